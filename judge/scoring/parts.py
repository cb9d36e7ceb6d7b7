"""A run's folder: the manifest and immutable Parquet parts. No server, no lock; ``pandas`` opens it.

A part holds one unit of work. It is written whole, synced and renamed into place, and the folder synced, so a part
that is there is complete, and resuming is the question which parts are missing. Temporary files begin with a dot.
A part holds a hash of its own content too: one that a disk has spoiled since is known, set aside and judged again.
"""

from __future__ import annotations

import errno
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from judge.errors import EngineError, InputError, one_line
from judge.files import replacing
from judge.types import LEVELS, Judgment, digest

JUDGMENTS = "judgments"


DIVERSITY = "diversity"


_KEY = [(name, pa.string()) for name in ("judge_id", "judge", "source", "character")]


_JUDGMENT = [
    *((f"p{level}", pa.float64()) for level in LEVELS),
    ("mass", pa.float64()),
    ("score", pa.float64()),
    ("error", pa.string()),
]


SCHEMAS = {
    JUDGMENTS: pa.schema(
        [
            *_KEY,
            ("scenario", pa.string()),
            ("metric", pa.string()),
            ("content_digest", pa.string()),
            *_JUDGMENT,
            ("suspicious", pa.string()),
            ("prompt_tokens", pa.int32()),
        ]
    ),
    DIVERSITY: pa.schema(
        [
            *_KEY,
            ("dialogues", pa.int32()),
            *((name, pa.float64()) for name in ("distinct_2", "self_bleu", "compression_ratio")),
            *_JUDGMENT,
        ]
    ),
}
"""The columns of each kind of part."""


_HASH = b"content_digest"
"""Under this name a part's own metadata has the digest of its table."""


def columns(judgment: Judgment) -> dict[str, Any]:
    """A judgment as columns ``p1..p5, mass, score, error``; missing stays missing."""
    probabilities = judgment.probabilities or (None,) * len(LEVELS)
    levels = {f"p{level}": p for level, p in zip(LEVELS, probabilities, strict=True)}
    return {**levels, "mass": judgment.mass, "score": judgment.score, "error": judgment.error}


class Damaged(InputError):
    """A part is not as it was written."""


def _read(path: Path) -> pa.Table:
    """The table of a part, seen to be what was written; ``Damaged`` where it is not."""
    again = "score again with this run as --run, and it is judged anew"
    with _telling("read", path):
        content = path.read_bytes()
    try:
        table = pq.read_table(io.BytesIO(content))
        sound = _digest(table) == (table.schema.metadata or {}).get(_HASH, b"").decode()
    except Exception as error:  # a broken file fails in many ways inside the library, and in what it makes of columns
        raise Damaged(f"{path}: is damaged ({one_line(error)}); {again}") from error
    if not sound:
        raise Damaged(f"{path}: is damaged (its content is not what was written); {again}")
    return table


def _digest(table: pa.Table) -> str:
    return digest(table.to_pydict())


def _to_pandas(path: Path) -> pd.DataFrame:
    part: pd.DataFrame = _read(path).replace_schema_metadata(None).to_pandas()
    return part


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    with _telling("written", path), replacing(path) as file:
        yield file


@contextmanager
def _telling(done: str, path: Path) -> Iterator[None]:
    """EngineError where a file cannot be read, written or moved; it names the disk if that is full."""
    try:
        yield
    except OSError as error:
        full = f": {_disk(path.parent)}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise EngineError(f"{path}: cannot be {done} ({error.strerror}){full}") from error


def _disk(folder: Path) -> str:
    """Which disk a folder is on, and its room."""
    there = next(path for path in (folder, *folder.parents) if path.exists()).resolve()
    mount = next(path for path in (there, *there.parents) if path.is_mount())
    usage = shutil.disk_usage(mount)
    return f"the disk at {mount} has {usage.free / 1e6:,.1f} MB free of {usage.total / 1e6:,.0f}"
