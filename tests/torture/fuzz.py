"""Rubbish for every kind of file that is read.

A file is read, or refused in the project's own words: a few lines at most that a person can read, within seconds and
a bounded memory. Nothing else may happen.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from judge.data.dataset import Corpus
from judge.errors import LONGEST_LINE, InputError, plain, readable
from judge.human_ratings import calibrated_run as calibrating
from judge.human_ratings.agreement import read_annotations, read_judge_scores, read_pairing
from judge.prompting.rubric import load_rubric
from tests.torture import mutation
from tests.torture.rubbish import rubbish

LONGEST_S, LONGEST_WAIT_S = 5.0, 30.0
"""Seconds of this process's own, and of the clock on a machine that others use too, in which a file is done with."""
MEMORY = 3 * 2**30
"""Bytes that a process may take above what it has at the start."""
MOST_LINES = 22


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: a good value, how it is written, and what reads it."""

    name: str
    value: Any
    write: Callable[[Any], bytes]
    read: Callable[[Path], Any]


def kinds(home: Path) -> list[Kind]:
    """All kinds; good files that some are read together with are written to ``home``."""
    scores, ratings = home / "scores.jsonl", home / "ratings.jsonl"
    scores.write_bytes(mutation.as_jsonl(mutation.SCORES))
    ratings.write_bytes(mutation.as_jsonl(mutation.RATINGS))
    table = {"csv": mutation.as_csv, "jsonl": mutation.as_jsonl, "parquet": mutation.as_parquet}
    return [
        Kind("chatanime.json", mutation.DIALOGUES, mutation.as_chatanime, _corpus),
        *(Kind(f"dialogues.{end}", mutation.DIALOGUES, write, _corpus) for end, write in table.items()),
        Kind("chats.jsonl", mutation.DIALOGUES, mutation.as_chats, _corpus),
        Kind("dialogues.jsonl.gz", mutation.DIALOGUES, mutation.as_gzip, _corpus),
        Kind("dialogues.xlsx", mutation.DIALOGUES, mutation.as_workbook, _corpus),
        *(
            Kind(f"ratings.{end}", mutation.RATINGS, write, lambda path: _ratings(path, scores))
            for end, write in table.items()
        ),
        *(
            Kind(f"scores.{end}", mutation.SCORES, write, lambda path: _scores(path, ratings))
            for end, write in table.items()
        ),
        Kind("calibration.json", _calibration(home), mutation.as_json, lambda path: _calibrated(path, scores)),
        Kind("fluency.yaml", _rubric("fluency"), _as_yaml, lambda path: _prompts(path, home)),
        Kind("system.yaml", _rubric("system"), _as_yaml, lambda path: _prompts(path, home)),
    ]


def _corpus(path: Path) -> None:
    with closing(Corpus([path])) as corpus:
        for _ in corpus.batches():
            pass


def _ratings(path: Path, scores: Path) -> None:
    read_annotations(path)
    read_pairing(scores, path, "1-5")


def _scores(path: Path, ratings: Path) -> None:
    read_judge_scores(path, (1, 5))
    read_pairing(path, ratings, "1-5")


def _calibration(home: Path) -> Any:
    from calibration.calibrators.calibration import fit_calibration

    pairing = read_pairing(home / "scores.jsonl", home / "ratings.jsonl", "1-5", with_composites=False)
    path = home / "good-calibration.json"
    fit_calibration(pairing, judge_id="j", created="").save(path)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _calibrated(path: Path, scores: Path) -> None:
    calibrating.use(path, scores, None, None)


def _rubric(name: str) -> Any:
    return yaml.safe_load((_packaged() / f"{name}.yaml").read_text(encoding="utf-8"))


def _packaged() -> Path:
    return Path(str(resources.files("prompts") / "chatanime" / "zh"))


def _as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def _prompts(path: Path, home: Path) -> None:
    """A rubric of which one file is the spoilt one."""
    folder = home / "prompts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in _packaged().glob("*.yaml"):
        (folder / file.name).symlink_to(path if file.name == path.name else file)
    load_rubric("zh", folder)


class _TooSlow(BaseException):
    """A file took longer than is allowed."""


def _alarm(*_: object) -> None:
    raise _TooSlow


def told(read: Callable[[Path], Any], path: Path, seconds: float = LONGEST_S) -> str | None:
    """What went wrong in reading a file other than that it was refused as it should be."""
    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, LONGEST_WAIT_S)}
    before = {number: signal.signal(number, _alarm) for number in clocks}
    for clock in clocks.values():
        signal.setitimer(*clock)
    try:
        with warnings.catch_warnings(action="error"):
            read(path)
    except InputError as error:
        return _unreadable(readable(str(error)))
    except (Exception, _TooSlow) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        for number, (clock, _) in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number])
    return None


def _unreadable(message: str) -> str | None:
    lines = message.split("\n")
    if len(lines) > MOST_LINES or any(len(line) > LONGEST_LINE + 3 or plain(line) != line for line in lines):
        return f"an error that nobody can read: {message[:200]!r}"
    if any(word in message for word in ("Traceback", "internal error")) or not message.strip():
        return f"no error of ours: {message[:200]!r}"
    return None


def trial(kinds_: list[Kind], home: Path, seed: int, number: int) -> str | None:
    """One spoilt file: what went wrong, or None; the same for the same seed and number."""
    draw = random.Random(f"{seed}/{number}")
    kind = draw.choices(kinds_, weights=[1 if kind.name.endswith(".yaml") else 3 for kind in kinds_])[0]
    path = home / kind.name
    path.write_bytes(mutation.spoilt(draw, kind.value, kind.write))
    wrong = told(kind.read, path)
    return wrong and f"{kind.name}, seed {seed}, number {number}: {wrong}"


def refusals(kinds_: list[Kind], home: Path) -> list[str]:
    """What went wrong with what is no file, or made to take for ever, in the place of each kind of file."""
    wrongs = []
    for kind in kinds_:
        for name, make in rubbish(Path(kind.name).suffix).items():
            place = Path(tempfile.mkdtemp(dir=home)) / kind.name
            make(place)
            wrong = told(kind.read, place)
            wrongs += [f"{kind.name}, {name}: {wrong}"] if wrong else []
            shutil.rmtree(place.parent)
        long = home / f"{'长' * 200}{Path(kind.name).suffix}"
        wrongs += [f"{kind.name}, a long name: {wrong}"] if (wrong := told(kind.read, long)) else []
    return wrongs


def _work(first: int, last: int, seed: int, folder: Path, at: Any, found: Any) -> None:
    """Trials in a process of its own, which may fall."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEMORY,) * 2)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        home = Path(place)
        every = kinds(home)
        for wrong in refusals(every, home) if first == 0 else []:
            found.put(wrong)
        for number in range(first, last):
            at.value = number
            if wrong := trial(every, home, seed, number):
                found.put(wrong)
        at.value = last


def address_space() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def run(count: int, seed: int, folder: Path) -> list[str]:
    """What went wrong in so many trials; empty where all held."""
    context = multiprocessing.get_context("spawn")
    at, found = context.Value("q", 0), context.SimpleQueue()
    failures: list[str] = []
    first, started = 0, time.monotonic()
    while first < count:
        last = min(first + 2000, count)
        process = context.Process(target=_work, args=(first, last, seed, folder, at, found))
        process.start()
        while process.is_alive() or not found.empty():
            if not found.empty():
                failures.append(found.get())
                print(failures[-1], flush=True)
            process.join(0.1)
        if process.exitcode:
            failures.append(f"seed {seed}, number {at.value}: the process died ({process.exitcode})")
        first = at.value + bool(process.exitcode)
        print(f"fuzz: {first:,} files, {len(failures):,} failures, {time.monotonic() - started:,.0f} s", flush=True)
    return failures
