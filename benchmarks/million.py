"""What a run costs outside the engine as it grows to a million dialogues: seconds and memory by stage, and its files.

    python -m benchmarks.million                       # 10,000, 100,000 and 1,000,000 dialogues of both shapes
    python -m benchmarks.million --shapes logs --sizes 1000 --keep FOLDER

Dialogues are made up of sentences of the packaged example, of ChatAnime's length. They are of two shapes: ``systems``,
which is ChatAnime's (10 systems play 20 characters through the same scenarios), and ``logs``, a platform's chat logs
(two systems, three characters, and each dialogue a scenario of its own). The whole path is that of ``score``, report
included, with the stand-in's tokenizer and an engine that answers at once. Each run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from judge import Options
from judge.cli.report import write_after_run
from judge.data.dialogues import example_dialogues
from judge.models.hardware import Hardware
from judge.progress import SILENT, Progress, Silent
from judge.scoring import run as running
from judge.scoring.judge import JudgeModel
from judge.scoring.setup import open_model

SHAPES = ("systems", "logs")
SIZES = (10_000, 100_000, 1_000_000)
TURN_CHARACTERS = 85
INTERVAL_S = 0.05


class AtOnce:
    """An engine that takes next to no time: levels are drawn by the hash of the dialogue's tokens."""

    window, max_tokens, name, report = 64, 10**6, "at once", {"name": "at once"}

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        chances = generator.dirichlet(np.ones(5), size=1024)
        self._answers = np.log(0.98 * chances + 1e-6)
        self.seconds = 0.0

    def verify(self, tree: Any) -> None:
        """Right by definition."""

    def level_logprobs(self, trees: Sequence[Any], level_ids: Any) -> list[np.ndarray]:
        started = time.perf_counter()
        places = [(hash(tree.dialogue) + np.arange(len(tree.leaves))) % len(self._answers) for tree in trees]
        answers = [self._answers[place] for place in places]
        self.seconds += time.perf_counter() - started
        return answers


class Stages(Silent):
    """Notes of each stage of a run its seconds, its seconds of CPU, and the most memory that was held in it, in MB."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}
        self._stage, self._since = "start", (time.perf_counter(), time.process_time())
        threading.Thread(target=self._watch, daemon=True).start()

    def enter(self, stage: str) -> None:
        """A stage begins, and the one before it is over."""
        self.look()
        now = time.perf_counter(), time.process_time()
        for place in (0, 1):
            self.found[self._stage][place] += now[place] - self._since[place]
        self._stage, self._since = stage, now

    def begin(self, what: str, total: int, done: int, unit: str = "judgments") -> None:
        self.enter(what)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        before = self._stage
        self.enter(what)
        yield
        self.enter(before)

    def look(self) -> None:
        """Take note of the memory that the process holds now."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        own = self.found.setdefault(self._stage, [0.0, 0.0, 0.0])
        own[2] = max(own[2], pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(INTERVAL_S)


def main() -> None:
    """The command; without ``--one`` it starts itself once for each shape and size and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--keep", type=Path, help="where data and runs stay; a temporary folder otherwise")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one)))
        return
    for shape in options.shapes:
        for size in options.sizes:
            with tempfile.TemporaryDirectory(prefix="esrp-million-") as temporary:
                folder = (options.keep or Path(temporary)) / f"{shape}-{size}"
                write_dialogues(folder / "data", shape, size)
                command = [sys.executable, "-m", "benchmarks.million", "--one", str(folder)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                show(shape, size, json.loads(done.stdout.splitlines()[-1]))


def measured(folder: Path) -> dict[str, Any]:
    """Score the dialogues in ``folder/data`` into ``folder/run`` and write the report; what that took."""
    stages, engine, run = Stages(), AtOnce(), folder / "run"

    def at_once(options: Options, hardware: Hardware, progress: Progress = SILENT) -> JudgeModel:
        return JudgeModel(open_model(options, hardware, progress).origin, hardware, lambda: engine)

    running.open_model = at_once
    result = running.score([folder / "data"], Options(judge="stand-in", run=run), stages)
    stages.enter("report")
    print(write_after_run(run), file=sys.stderr)
    stages.enter("end")
    parts = [path.stat().st_size for path in (run / "judgments").iterdir()]
    files = {path.name: path.stat().st_size for path in run.iterdir() if path.is_file()}
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return {
        "judgments": result.judgments,
        "missing": result.missing,
        "engine_seconds": engine.seconds,
        "stages": {name: own for name, own in stages.found.items() if name != "end"},
        "peak_mb": int(peak[1]) * 1.024 / 1e3 if peak else None,
        "parts": {"count": len(parts), "smallest": min(parts), "largest": max(parts), "bytes": sum(parts)},
        "files": files,
    }


def show(shape: str, size: int, found: dict[str, Any]) -> None:
    """Print what one run took."""
    seconds, cpu = (sum(own[place] for own in found["stages"].values()) - found["engine_seconds"] for place in (0, 1))
    rate = found["judgments"] / seconds
    print(f"{shape}, {size:,} dialogues: {found['judgments']:,} judgments, {found['missing'] or 'none'} missing")
    print(
        f"  {seconds:,.0f} s outside the engine ({cpu:,.0f} s of CPU), {rate:,.0f} judgments/s; "
        f"at most {found['peak_mb']:,.0f} MB"
    )
    for stage, (took, of_cpu, held) in found["stages"].items():
        print(f"  {stage:24} {took:9.1f} s {of_cpu:9.1f} s of CPU {held:8,.0f} MB")
    parts = found["parts"]
    print(
        f"  {parts['count']:,} parts of {parts['smallest'] / 1e3:,.0f} to {parts['largest'] / 1e3:,.0f} kB, "
        f"{parts['bytes'] / 1e6:,.1f} MB in all"
    )
    for name, length in sorted(found["files"].items()):
        print(f"  {name:22} {length / 1e6:9,.1f} MB")
    sys.stdout.flush()


def write_dialogues(folder: Path, shape: str, size: int) -> None:
    """Files of so many dialogues of a shape, the same ones every time."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    examples = example_dialogues()
    sides = [
        re.findall(r"[^。！？\n]+[。！？]", text)
        for text in (
            "".join(turn.user or "" for dialogue in examples for turn in dialogue.turns),
            "".join(reply for dialogue in examples for reply in dialogue.replies),
        )
    ]

    def said(side: int, *about: object) -> str:
        """What a side says: some sentences, drawn by what they are about."""
        chance, text = random.Random(repr(about)), ""
        while len(text) < TURN_CHARACTERS:
            text += chance.choice(sides[side])
        return text

    if shape == "logs":
        with (folder / "logs.jsonl").open("w", encoding="utf-8") as file:
            for number in range(size):
                messages = [
                    {"role": role, "content": said(side, number, turn, role)}
                    for turn in range(2)
                    for side, role in enumerate(("user", "assistant"))
                ]
                names = {
                    "source": f"model-{number % 2}",
                    "character": f"角色{number % 3}",
                    "scenario": f"chat-{number:07}",
                }
                file.write(json.dumps({**names, "messages": messages}, ensure_ascii=False) + "\n")
        return
    for system in range(10):
        with (folder / f"system-{system}.jsonl").open("w", encoding="utf-8") as file:
            for character, scenario in ((c, s) for c in range(20) for s in range(size // 200)):
                rounds = {
                    f"{name}_r{turn + 1}": said(side, character, scenario, turn, system if side else None)
                    for turn in range(2)
                    for side, name in enumerate(("question", "answer"))
                }
                names = {"source": f"system-{system}", "character": f"《作品》的角色{character}", "scenario": scenario}
                file.write(json.dumps({**names, **rounds}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
