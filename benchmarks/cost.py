"""What a run with the stand-in costs as it grows: time and memory of 1,000 and 10,000 dialogues, each a process of its
own. ``benchmarks.million`` has what is not the engine's.

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

from judge import Options, score
from judge.data.dataset import Corpus
from judge.data.dialogues import example_files

SIZES = (1, 1_000, 10_000)


def main() -> None:
    """The command; without ``--one`` it starts itself once for each size and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(Path(options.one))
        return
    print(f"{'dialogues':>9} {'seconds':>8} {'above one, per 1,000':>20} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        alone = 0.0
        for size in SIZES:
            data = _written(Path(folder), options.data or example_files(), size)
            command = [sys.executable, "-m", "benchmarks.cost", "--one", str(data)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            alone = alone or found["seconds"]
            above = f"{(found['seconds'] - alone) / size * 1000:.2f}" if size > 1 else ""
            print(f"{size:9,} {found['seconds']:8.1f} {above:>20} {found['mb']:8.0f}", flush=True)


def _one(data: Path) -> None:
    """Score a file, and print how long it took after the imports, and the process's peak memory."""
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
