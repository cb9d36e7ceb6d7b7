"""What a run costs as it grows: time and memory of 1,000 and 10,000 dialogues with the stand-in, and of 10,000 and
100,000 with an engine that answers at once. Each is a process of its own.

    python -m benchmarks.cost --data FOLDER     # ChatAnime's; repeated under new names where it has too few
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from judge import Options, score
from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.scoring import setup as choosing

SIZES = {"stand-in": (1, 1_000, 10_000), "at once": (1, 10_000, 100_000)}


class AtOnce:
    """An engine that takes no time: every level is as likely."""

    window, max_tokens, name, report = 1, 10**6, "at once", {"name": "at once"}

    def verify(self, tree: Any) -> None:
        """Right by definition."""

    def level_logprobs(self, trees: Sequence[Any], level_ids: Any) -> list[np.ndarray]:
        return [np.log(np.full((len(tree.leaves), 5), 0.2)) for tree in trees]


def main() -> None:
    """The command; without ``--one`` it starts itself once for each size and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(options.engine, Path(options.one))
        return
    print(f"{'engine':10} {'dialogues':>9} {'seconds':>8} {'above one, per 1,000':>20} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for engine, sizes in SIZES.items():
            alone = 0.0
            for size in sizes:
                data = _written(Path(folder), options.data or example_files(), size)
                command = [sys.executable, "-m", "benchmarks.cost", "--engine", engine, "--one", str(data)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                alone = alone or found["seconds"]
                above = f"{(found['seconds'] - alone) / size * 1000:.2f}" if size > 1 else ""
                print(f"{engine:10} {size:9,} {found['seconds']:8.1f} {above:>20} {found['mb']:8.0f}", flush=True)


def _one(engine: str, data: Path) -> None:
    """Score a file, and print how long it took after the imports, and the process's peak memory."""
    if engine == "at once":
        choosing._engine = lambda *asked: AtOnce  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        score([data], Options(judge="stand-in", run=Path(folder) / "run"))
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def _written(folder: Path, paths: Sequence[Path], size: int) -> Path:
    """A file of so many dialogues; where there are fewer, they are repeated as other scenarios."""
    path = folder / f"{size}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        endless = ((dialogue, number) for number in count() for dialogue in Corpus(paths))
        for dialogue, number in islice(endless, size):
            turns = [{"user": turn.user, "character": turn.character} for turn in dialogue.turns]
            scenario = f"{dialogue.scenario}.{number}" if number else dialogue.scenario
            names = {"source": dialogue.source, "character": dialogue.character, "scenario": scenario}
            file.write(json.dumps({**names, "turns": turns}, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    main()
