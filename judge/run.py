"""The one loop: read, judge what is missing, write it, summarise. The same call again goes on where it stopped."""

from __future__ import annotations

import platform
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import pandas as pd

from judge import diversity
from judge.checkpoint import pick, resolve
from judge.corpus import Corpus, Unit
from judge.dialogues import example_files
from judge.errors import EngineError, InputError, Interrupted
from judge.fetch import chatanime_folder, is_complete
from judge.hardware import Hardware, detect, require_usable
from judge.judging import Judge, Judged
from judge.rubric import load_rubric
from judge.store import DIVERSITY, JUDGMENTS, Store
from judge.summary import STATISTICS, diversity_table, summarise
from judge.types import LEVELS, METRICS, RESPONSE_DIVERSITY, Judgment, digest

CHECKED_DIALOGUES = 50
"""How many dialogues are looked at before a judge that does not understand the task is stopped."""
MIN_MASS = 0.8
"""The median level mass under which it does not."""
EXAMPLE = "example"


class Progress(Protocol):
    """What is told while a run goes on."""

    def begin(self, what: str, total: int, done: int) -> None:
        """``total`` judgments are wanted, ``done`` were there before."""

    def advance(self, judgments: int, tokens: int) -> None:
        """So many more judgments were written, whose prompts had so many tokens."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """Tells nothing."""

    def begin(self, what: str, total: int, done: int) -> None:
        """Nothing."""

    def advance(self, judgments: int, tokens: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to score and how; each is the command's option of the same name."""

    run: Path | None = None
    judge: str = "auto"
    engine: str = "auto"
    language: str = "zh"
    layout: str = "prefill"
    orderings: int = 1
    metrics: tuple[str, ...] = (*METRICS, RESPONSE_DIVERSITY)
    sources: tuple[str, ...] = ()
    characters: tuple[str, ...] = ()
    limit: int | None = None
    prompts: Path | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, judge, how many judgments it holds, how many are missing by reason, and tables."""

    run: Path
    judge: str
    judgments: int
    missing: dict[str, int]
    leaderboard: pd.DataFrame = field(repr=False)
    diversity: pd.DataFrame = field(repr=False)


def score(data: Sequence[Path] = (), options: Options | None = None, progress: Progress | None = None) -> Result:
    """Score dialogues on every metric into a run folder, and go on with a run that is already there.

    Args:
        data: files or folders of dialogues; none for ChatAnime where it was fetched and the judge is real, otherwise
            for the packaged example.

    Raises:
        InputError: data, options or the run folder are wrong; nothing was written.
        EngineError: the machine or the model failed; what was judged is kept.
        Interrupted: the user stopped the run; what was judged is kept.
    """
    options, progress = options or Options(), progress or Silent()
    _check(options)
    hardware = detect()
    require_usable(hardware)
    name, reason = choose_judge(data, options.judge, hardware)
    paths = list(data) or default_data(name)
    rubric = load_rubric(options.language, options.prompts)
    with closing(Corpus(paths, options.sources, options.characters, options.limit)) as corpus:
        judge = Judge(resolve(name), rubric, hardware, options.layout, options.orderings)
        run = _Run(corpus, judge, options, paths, progress)
        progress.note(f"judge {judge.name}: {reason}; {len(corpus):,} dialogues; run {run.store.folder}")
        with _stoppable() as stop:
            run.complete(stop, hardware)
        return run.summarise()


def text_diversity(data: Sequence[Path] = ()) -> pd.DataFrame:
    """Response diversity from the text alone, of every source as each character and of every source: ``diversity.csv``
    without the judge's columns. No data is the packaged example.
    """
    with closing(Corpus(list(data) or example_files())) as corpus:
        rows = [{"judge": "", **_role_statistics(corpus, *role)} for role in corpus.roles()]
    table = diversity_table([pd.DataFrame(rows).assign(score=None, mass=None, error=None)])
    return table[["level", "source", "character", "dialogues", *STATISTICS]]


def _role_statistics(corpus: Corpus, source: str, character: str) -> dict[str, Any]:
    sample = corpus.sample(source, character, diversity.MOST_DIALOGUES)
    names = {"source": source, "character": character, "dialogues": len(sample)}
    return {**names, **diversity.text_statistics(sample)}


def choose_judge(data: Sequence[Path], judge: str, hardware: Hardware) -> tuple[str, str]:
    """The judge to take, and why; ``auto`` never takes the stand-in for a user's own data."""
    if judge != "auto":
        return judge, "as asked for"
    if data and not hardware.gpus:
        raise InputError(
            "no GPU here, so no judge is chosen for your data; name one: --judge qwen3-0.6b (JUDGE=qwen3-0.6b) is a "
            "small real judge, --judge stand-in (JUDGE=stand-in) gives scores that mean nothing"
        )
    return pick(hardware)


def default_data(judge: str) -> list[Path]:
    """What is scored where no data is named: ChatAnime for a real judge, if fetched; otherwise the example."""
    if judge != "stand-in" and is_complete(chatanime_folder()):
        return [chatanime_folder()]
    return example_files()


class _Run:
    """One run in the making: its corpus, judge and store."""

    def __init__(self, corpus: Corpus, judge: Judge, options: Options, paths: list[Path], progress: Progress) -> None:
        self.corpus, self.judge, self.progress = corpus, judge, progress
        self.metrics = tuple(metric for metric in METRICS if metric in options.metrics)
        self.rates_diversity = RESPONSE_DIVERSITY in options.metrics
        data = EXAMPLE if paths == example_files() else paths[0].resolve().stem
        self.data = {"name": data, "paths": [EXAMPLE] if data == EXAMPLE else [str(path) for path in paths]}
        self.store = Store(options.run or Path("results") / self._default_name(data))
        _refuse_another_judge(self.store, judge)
        self.units = {
            JUDGMENTS: [self._unit_name(unit) for unit in corpus.unit_digests] if self.metrics else [],
            DIVERSITY: list(self._role_units()) if self.rates_diversity else [],
        }
        self._masses: list[float] = []
        self._seconds = 0.0

    def _default_name(self, data: str) -> str:
        made_of = [self.corpus.digest, self.judge.identity.judge_id, self.metrics, self.rates_diversity]
        return f"{data}-{self.judge.name.lower().replace('/', '-')}-{digest(made_of, 8)}"

    def _unit_name(self, unit_digest: str) -> str:
        return digest([self.judge.identity.judge_id, self.metrics, unit_digest], 16)

    def _role_units(self) -> dict[str, list[tuple[str, str]]]:
        """Units of response diversity: some roles (a source as a character) each, by the unit's name."""
        roles = self.corpus.roles()
        chunks = [roles[start : start + 32] for start in range(0, len(roles), 32)]
        return {self._unit_name(digest([chunk, self.corpus.digest])): chunk for chunk in chunks}

    def complete(self, stop: threading.Event, hardware: Hardware) -> None:
        """Judge and write every unit that is missing; ``stop`` ends the work after the unit in flight."""
        self.store.write_manifest(self._manifest(hardware))
        started = time.monotonic()
        try:
            for work in (self._judge_dialogues(), self._judge_answers()):
                for _ in work:
                    if stop.is_set():
                        raise Interrupted(f"stopped; all judged so far is in {self.store.folder}; {GO_ON}")
        except EngineError as error:
            raise EngineError(f"{error}; what was judged is in {self.store.folder}; mend it, then {GO_ON}") from error
        finally:
            self._seconds = time.monotonic() - started

    def _judge_dialogues(self) -> Iterator[None]:
        """Write the missing parts of judgments, one a step."""
        names = self.units[JUDGMENTS]
        done = {name for name in names if self.store.is_done(JUDGMENTS, name)}
        units = list(zip(names, self.corpus.unit_sizes, strict=True)) if names else []
        total, there = sum(size for _, size in units), sum(size for name, size in units if name in done)
        self.progress.begin("dialogues", total * len(self.metrics), there * len(self.metrics))
        for name, unit in zip(names, self.corpus.units(), strict=False):
            if name not in done:
                self._judge_unit(name, unit)
                yield
        if len(done) < len(names):
            self._check_mass(final=True)

    def _judge_unit(self, name: str, unit: Unit) -> None:
        judged = self.judge.judge(unit.dialogues, self.metrics)
        self._masses += [j.mass for dialogue in judged for j in dialogue.judgments if j.mass is not None]
        self._check_mass()
        self.store.write_part(JUDGMENTS, name, list(self._rows(unit, judged)))
        tokens = sum(sum(dialogue.prompt_tokens) for dialogue in judged)
        self.progress.advance(len(judged) * len(self.metrics), tokens)

    def _check_mass(self, final: bool = False) -> None:
        """Stop a judge that does not answer with a level, once enough dialogues were seen (or all were)."""
        if len(self._masses) >= CHECKED_DIALOGUES * len(self.metrics) or (final and self._masses):
            middle = median(self._masses)
            if middle < MIN_MASS:
                raise EngineError(
                    f"{self.judge.name} does not answer with a level: the median probability of the five levels "
                    f"together is {middle:.3f}, under {MIN_MASS}; choose another judge or --layout"
                )
            self._masses = []

    def _rows(self, unit: Unit, judged: list[Judged]) -> Iterator[dict[str, Any]]:
        for dialogue, found in zip(unit.dialogues, judged, strict=True):
            for metric, judgment, tokens in zip(self.metrics, found.judgments, found.prompt_tokens, strict=True):
                yield {
                    **self._signature(dialogue.source, dialogue.character),
                    "scenario": dialogue.scenario,
                    "metric": metric,
                    "content_digest": dialogue.content_digest,
                    **_columns(judgment),
                    "prompt_tokens": tokens or None,
                }

    def _signature(self, source: str, character: str) -> dict[str, str]:
        judge_id = self.judge.identity.judge_id
        return {"judge_id": judge_id, "judge": self.judge.name, "source": source, "character": character}

    def _judge_answers(self) -> Iterator[None]:
        """Write the missing parts of response diversity, one a step."""
        units = self._role_units() if self.rates_diversity else {}
        todo = {name: roles for name, roles in units.items() if not self.store.is_done(DIVERSITY, name)}
        total = sum(len(roles) for roles in units.values())
        self.progress.begin("response diversity", total, total - sum(map(len, todo.values())))
        for name, roles in todo.items():
            samples = [self.corpus.sample(*role, diversity.MOST_DIALOGUES) for role in roles]
            judgments = self.judge.judge_answers([diversity.sample_answers(sample) for sample in samples])
            rows = [
                {**self._signature(*role), **_role_statistics(self.corpus, *role), **_columns(judgment)}
                for role, judgment in zip(roles, judgments, strict=True)
            ]
            self.store.write_part(DIVERSITY, name, rows)
            self.progress.advance(len(roles), 0)
            yield

    def summarise(self) -> Result:
        """Write the tables from the parts, and the end of the story into the manifest."""
        counts: Counter[str] = Counter()
        parts = _counted(self.store.read_parts(JUDGMENTS, self.units[JUDGMENTS]), counts)
        with self.store.replacing("scores.csv") as text:
            leaderboard = summarise(parts, self.metrics, text)
        ratings = list(_counted(self.store.read_parts(DIVERSITY, self.units[DIVERSITY]), counts))
        varied = diversity_table(ratings)
        for name, table in (("leaderboard.csv", leaderboard), ("diversity.csv", varied)):
            with self.store.replacing(name) as text:
                table.to_csv(text, index=False, float_format="%.4f", lineterminator="\n")
        missing = dict(sorted((error, count) for error, count in counts.items() if error))
        self._finish(judgments=counts.total(), missing=missing)
        return Result(self.store.folder, self.judge.name, counts.total(), missing, leaderboard, varied)

    def _manifest(self, hardware: Hardware) -> dict[str, Any]:
        before = self.store.manifest or {}
        own = {
            "format": 1,
            "esrp_judge": version("esrp-judge"),
            "judge": {"name": self.judge.name, "judge_id": self.judge.identity.judge_id},
            "identity": asdict(self.judge.identity),
            "metrics": [*self.metrics, *([RESPONSE_DIVERSITY] if self.rates_diversity else [])],
            "data": {**self.data, "digest": self.corpus.digest, "dialogues": len(self.corpus)},
            "sources": self.corpus.values("source"),
            "machine": {"python": platform.python_version(), "torch": version("torch"), **asdict(hardware)},
            "command": ["esrp-judge", *sys.argv[1:]],
            "units": self.units,
        }
        history = {"started": _now(), "finished": None, "seconds": 0.0, "engine": None}
        return {**own, **{key: before.get(key, value) for key, value in history.items()}}

    def _finish(self, **result: Any) -> None:
        manifest = self.store.manifest or {}
        if "engine" in vars(self.judge):  # it was loaded, so something was judged
            manifest["engine"] = self.judge.engine.name
            manifest["seconds"] = round(manifest["seconds"] + self._seconds, 1)
            manifest["finished"] = _now()
        self.store.write_manifest({**manifest, **result})


GO_ON = "run the same command again to go on"


def _counted(parts: Iterator[pd.DataFrame], counts: Counter[str]) -> Iterator[pd.DataFrame]:
    """The parts as they come, with their rows counted by error ("" for none)."""
    for part in parts:
        counts.update(part["error"].fillna("").tolist())
        yield part


def _columns(judgment: Judgment) -> dict[str, Any]:
    """A judgment as columns; missing stays missing."""
    probabilities = judgment.probabilities or (None,) * len(LEVELS)
    levels = {f"p{level}": p for level, p in zip(LEVELS, probabilities, strict=True)}
    return {**levels, "mass": judgment.mass, "score": judgment.score, "error": judgment.error}


def _check(options: Options) -> None:
    known = (*METRICS, RESPONSE_DIVERSITY)
    for metric in options.metrics:
        if metric not in known:
            raise InputError(f"--metrics {metric}: unknown metric; choose from {', '.join(known)}")
    if options.engine not in ("auto", "packed"):
        raise InputError(f"--engine {options.engine}: unknown engine; choose auto or packed")


def _refuse_another_judge(store: Store, judge: Judge) -> None:
    manifest = store.manifest
    if manifest is None or manifest["judge"]["judge_id"] == judge.identity.judge_id:
        return
    names = ", ".join(judge.identity.differences(manifest["identity"])) or "name"
    raise InputError(
        f"{store.folder}: holds judgments of {manifest['judge']['name']}, which differs from {judge.name} in {names}; "
        "choose another --run"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a polite kill sets; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("stopping after the unit in flight; once more to stop at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
