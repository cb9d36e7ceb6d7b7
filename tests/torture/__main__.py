"""``python -m tests.torture [NAME[=COUNT] …]``: all trials at full length, or those named; exit code 1 on failures."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

TRIALS = {
    "guard": 100_000,
    "fuzz": 20_000,
    "spoilt": 5000,
    "writes": 1000,
    "disks": 10,
    "clashes": 10,
    "kills": 200,
    "engines": 10,
}
"""How often each is tried."""


def main() -> int:
    """Run the trials and print what became of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("trials", nargs="*", metavar="NAME[=COUNT]", help=f"of {', '.join(TRIALS)}; all by default")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    asked = [name.partition("=") for name in given.trials or TRIALS]
    with tempfile.TemporaryDirectory(prefix="esrp-torture-") as folder:
        os.environ["ESRP_CACHE"] = str(Path(folder) / "cache")
        results = {n: _run(n, int(count or TRIALS[n]), given.seed, Path(folder) / n) for n, _, count in asked}
    for name, failures in results.items():
        print(f"{name:10} {'held' if not failures else f'FAILED {len(failures)} times'}")
    return int(any(results.values()))


def _run(name: str, count: int, seed: int, folder: Path) -> list[str]:
    started = time.monotonic()
    folder.mkdir()
    failures: list[str] = import_module(f".{name}", __package__).run(count, seed, folder)
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    print(f"{name}: seed {seed}, {time.monotonic() - started:.0f} s", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
