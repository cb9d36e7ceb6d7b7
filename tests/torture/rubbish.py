"""What is no file, or a file made to take for ever or all memory, by name: for the readers that are fuzzed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.torture.mutation import FIELDS, RATINGS

BIG = 10 * 2**20
ROWS = 20_000_000


def _linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def _big_field(path: Path) -> None:
    """A record with a field of 10 MB."""
    row = {**RATINGS[0], **FIELDS, "answer_r1": "长" * (BIG // 3), "score": "9" * BIG}
    if path.suffix == ".csv":
        path.write_text(",".join(row) + "\n" + ",".join(map(str, row.values())), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")


def _wide(path: Path) -> None:
    """So many columns, two of the same name, that comparing each with each would take hours."""
    names = [f"c{number}" for number in range(200_000)] + ["c7"]
    if path.suffix == ".csv":
        path.write_text(",".join(names), encoding="utf-8")
    else:
        path.write_text("{" + ",".join(f'"{name}":1' for name in names) + "}", encoding="utf-8")


def _bomb_of_rows(path: Path) -> None:
    """A small Parquet file of many equal rows."""
    row = {**RATINGS[0], **FIELDS}
    same = pa.repeat(pa.scalar(0, pa.int8()), ROWS)
    columns = {name: pa.DictionaryArray.from_arrays(same, [str(value)]) for name, value in row.items()}
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=ROWS)


def _bomb_of_text(path: Path) -> None:
    """A small Parquet file with a text of 128 MiB."""
    row = {**RATINGS[0], **FIELDS, "answer_r1": "a" * 2**27}
    pq.write_table(pa.Table.from_pylist([row]), path, compression="zstd", use_dictionary=False)


def _laughs(path: Path) -> None:
    """YAML whose aliases stand for a billion words, as lists and as merged mappings."""
    lines = ["a: &a0 [lol, lol]", *(f"b{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9))]
    merged = [f"c{n}: &m{n + 1} {{<<: [{', '.join([f'*m{n}'] * 9)}]}}" for n in range(9)]
    path.write_text("\n".join([*lines, "c: &m0 {x: 1}", *merged, "id: *a9"]), encoding="utf-8")


EVERY: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "endless device": _linked("/dev/zero"),
    "empty device": _linked("/dev/null"),
    "terminal": _linked("/dev/tty"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": _linked("/nowhere"),
    "process": _linked("/proc/self/mem"),
    "empty": _bytes(b""),
    "blank": _bytes(b" \n" * 1000),
    "NULs": _bytes(b"\0" * 100_000),
    "brackets": _bytes(b"[" * 1_000_000),
    "objects": _bytes(b'{"a":' * 300_000),
    "digits": _bytes(b"9" * 1_000_000),
    "quotes": _bytes(b'"' * 1_000_001),
    "GBK": _bytes("角色：司弦，今天很累\n".encode("gbk") * 100),
    "UTF-16": _bytes("角色：司弦，今天很累\n".encode("utf-16") * 100),
}
"""For files of every kind."""
OF_KIND: dict[str, dict[str, Callable[[Path], None]]] = {
    ".json": {"wide": _wide, "big field": _big_field},
    ".jsonl": {"wide": _wide, "big field": _big_field},
    ".csv": {"wide": _wide, "big field": _big_field},
    ".parquet": {"big field": _big_field, "bomb of rows": _bomb_of_rows, "bomb of text": _bomb_of_text},
    ".yaml": {"billion laughs": _laughs},
}


def rubbish(suffix: str) -> dict[str, Callable[[Path], None]]:
    """What to put in the place of a file with this suffix, by name: each makes it at a path."""
    return EVERY | OF_KIND.get(suffix, {})
