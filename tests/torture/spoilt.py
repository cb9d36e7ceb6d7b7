"""Parts that a disk has spoiled: every damage is found, told, set aside and judged again."""

from __future__ import annotations

import random
from pathlib import Path

from judge.errors import InputError
from judge.scoring.parts import JUDGMENTS
from judge.scoring.run_folder import Store
from tests.torture import runs


def run(count: int, seed: int, folder: Path) -> list[str]:
    """Flip ``count`` bits of a part, one at a time, and cut it at a tenth as many places; the failures.

    Each must be found on reading, or else must not change what is read.
    """
    draw = random.Random(seed)
    data, reported = runs.write_data(folder / "data.jsonl", 2), folder / "reported"
    run = runs.complete(data, folder / "run", reported)
    path = min(run.glob("judgments/part-*.parquet"))
    sound = path.read_bytes()
    flips = [_flipped(sound, draw.randrange(8 * len(sound))) for _ in range(count)]
    cuts = [sound[: draw.randrange(len(sound))] for _ in range(count // 10)]
    unseen, found = 0, 0
    store = Store(run)
    (right,) = store.read_parts(JUDGMENTS, [_unit(path)])
    failures = []
    for content in flips + cuts:
        path.write_bytes(content)
        try:
            (part,) = store.read_parts(JUDGMENTS, [_unit(path)])
        except InputError:
            found += 1
            continue
        unseen += 1
        failures += [] if part.equals(right) else [f"{len(content)} bytes of {len(sound)}: read, and not what it was"]
    path.write_bytes(cuts[0])
    runs.complete(data, run, reported)
    failures += ["the part was not judged again"] if path.read_bytes() != sound else []
    print(f"spoilt parts: {found} found, {unseen} without effect, {len(failures)} failures", flush=True)
    return failures


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _unit(path: Path) -> str:
    return path.stem.removeprefix("part-")
