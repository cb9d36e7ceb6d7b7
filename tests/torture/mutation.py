"""Small good files of every kind that the command reads, and ways to spoil them, drawn by a seed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

Draw = random.Random

FIELDS = {"question_r1": "今天很累", "answer_r1": "歇一歇吧", "question_r2": "好", "answer_r2": "我在"}
DIALOGUES = [{"source": s, "character": "司弦", "scenario": str(n), **FIELDS} for s in ("a", "b") for n in range(3)]
METRICS = ("fluency", "coherency")
RATINGS = [
    {"source": row["source"], "character": row["character"], "scenario": row["scenario"], "metric": metric,
     "annotator": who, "score": 1 + (place + len(metric)) % 5}
    for place, row in enumerate(DIALOGUES) for metric in METRICS for who in ("甲", "乙")
]  # fmt: skip
SCORES = [{**{k: v for k, v in row.items() if k != "annotator"}, "judge": "j"} for row in RATINGS[::2]]

STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 7, 2**63, 10**300, -1e308, 0.1, 1e-320, float("nan"), float("inf"), "", " ", "NaN", "1e999", "5",
    "=1+1", "\x1b[31m", "\ud800", "a\x00b", "\ufeff", "a\n  b", "甲" * 50_000, [], [[]], {}, {"a": None}, [1, 2, "x"],
    "[link=file:///]x[/link]", "../../etc", "'", '"', "question_r3", "turns", 1e16, -0.0, "ａ", "٣", "1_000", "0x10",
)  # fmt: skip
SNIPPETS = (
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\x00" * 600, b"\x80", b"\r", b"\n\n", b'"', b"'", b",,", b"{", b"[" * 5000,
    b"]", b"}", b"1e999", b"NaN", b"-Infinity", b"9" * 5000, b"\\ud800", b"\x1b[2J", b"&a *a", b"*a",
    b"!!python/name:os",
    b"x: &a [*a]\n", b"!!timestamp x", b"!!int ''", b"!!float .", b"!!bool x", b"? [a]\n: b\n", b"<<: 5\n",
    b"2020-13-45", b"\t- a\n", b"---\n", b"%YAML 9.9\n", b"\xed\xa0\x80", "＝".encode(), b"a" * 100_000, b"{}" * 50,
    b"true", b"null", b'{"a":' * 3000,
)  # fmt: skip


def as_chatanime(rows: Any) -> bytes:
    """The dialogues of one source in ChatAnime's form."""
    if not isinstance(rows, list):
        return as_json(rows)
    return as_json({"司弦": [{"dialog_id": n, **FIELDS} if isinstance(r, dict) else r for n, r in enumerate(rows)]})


def as_json(value: Any) -> bytes:
    """JSON as Python writes it, with NaN and half characters."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def as_jsonl(rows: Any) -> bytes:
    """A JSON value a line."""
    return b"\n".join(as_json(row) for row in (rows if isinstance(rows, list) else [rows]))


def as_csv(rows: Any) -> bytes:
    """A table under the columns of its first row."""
    rows = [row for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, dict)] or [{}]
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(rows[0])
    out.writerows(row.values() for row in rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(rows: Any) -> bytes:
    """A table, its columns as Arrow takes them: texts where they go together in no other way."""
    rows = [row for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, dict)] or [{}]
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    columns = {_whole(name): _column([row.get(name) for row in rows]) for name in names}
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), out)
    return bytes(out.getvalue().to_pybytes())


def as_chats(rows: Any) -> bytes:
    """The dialogues as chat logs, a line each."""
    rows = rows if isinstance(rows, list) else [rows]
    return as_jsonl([_chat(row) if isinstance(row, dict) else row for row in rows])


def _chat(row: dict[str, Any]) -> dict[str, Any]:
    said = [
        {"role": "user" if name.startswith("q") else "assistant", "content": row[name]} for name in row if "_r" in name
    ]
    return {**{name: value for name, value in row.items() if name not in FIELDS}, "messages": said}


def as_gzip(rows: Any) -> bytes:
    """JSONL, packed."""
    return gzip.compress(as_jsonl(rows), mtime=0)


def as_workbook(rows: Any) -> bytes:
    """A sheet; a cell that none can hold is a text that it can."""
    rows = [row for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, dict)] or [{}]
    names = list(dict.fromkeys(name for row in rows for name in row))
    book = Workbook()
    for cells in (names, *([row.get(name) for name in names] for row in rows)):
        book.worksheets[0].append([ILLEGAL_CHARACTERS_RE.sub("", _whole(str(cell)))[:32_000] for cell in cells])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _column(values: list[Any]) -> Any:
    try:
        column = pa.array(values)
        pq.write_table(pa.table({"": column}), pa.BufferOutputStream())
        return column
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([_whole(str(value)) for value in values])


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def spoilt(draw: Draw, value: Any, write: Callable[[Any], bytes]) -> bytes:
    """A good value spoilt as a structure, as bytes, or both, or (seldom) not at all."""
    kind = draw.randrange(20)
    if kind < 14:
        value = json.loads(json.dumps(value))
        for _ in range(draw.choice((1, 1, 2, 4))):
            value = _changed(draw, value)
    content = write(value)
    if kind >= 10:
        for _ in range(draw.choice((1, 1, 2, 5))):
            content = draw.choice(BYTEWISE)(draw, content)
    return content


def _changed(draw: Draw, value: Any) -> Any:
    """A structure with one place in it changed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        return _changed_field(draw, value, name)
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        how = draw.randrange(8)
        if how == 0:
            return value[:place] + value[place + 1 :]
        if how == 1:
            return [*value, value[place]]
        return [*value[:place], _changed(draw, value[place]), *value[place + 1 :]]
    return draw.choice(STRANGE)


def _changed_field(draw: Draw, value: dict[str, Any], name: str) -> dict[str, Any]:
    how = draw.randrange(8)
    rest = {key: part for key, part in value.items() if key != name}
    if how == 0:
        return rest
    if how == 1:
        return {**rest, str(draw.choice(STRANGE)): value[name]}
    if how == 2:
        return {**value, str(draw.choice(STRANGE)): draw.choice(STRANGE)}
    return {**value, name: _changed(draw, value[name])}


def _span(draw: Draw, content: bytes) -> tuple[int, int]:
    start = draw.randrange(len(content) + 1)
    return start, min(len(content), start + draw.choice((1, 1, 3, 20, 500)))


def _flipped(draw: Draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 2, 8)) if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _without(draw: Draw, content: bytes) -> bytes:
    start, end = _span(draw, content)
    return content[:start] + content[end:]


def _with(draw: Draw, content: bytes) -> bytes:
    place, _ = _span(draw, content)
    return content[:place] + draw.choice(SNIPPETS) + content[place:]


def _in_a_field(draw: Draw, content: bytes) -> bytes:
    """The content with something else where a field begins."""
    begins = [found.end() for found in re.finditer(rb": |,|\n", content)] or [0]
    place = draw.choice(begins)
    end = min((content + b"\n").index(b"\n", place), place + draw.choice((0, 5, 10_000)))
    return content[:place] + draw.choice(SNIPPETS) + content[end:]


def _lines(draw: Draw, content: bytes) -> bytes:
    lines = content.split(b"\n")
    draw.shuffle(lines)
    return b"\n".join([*lines, draw.choice(lines)])


def _encoded(draw: Draw, content: bytes) -> bytes:
    """The text in another encoding."""
    return content.decode("utf-8", "replace").encode(draw.choice(("utf-16", "gb18030", "utf-32", "utf-7")), "replace")


BYTEWISE: tuple[Callable[[Draw, bytes], bytes], ...] = (
    _flipped,
    _flipped,
    _without,
    _with,
    _in_a_field,
    _in_a_field,
    _lines,
    _encoded,
    lambda draw, content: content[: draw.randrange(len(content) + 1)],
    lambda draw, content: b"\xef\xbb\xbf" + content,
    lambda draw, content: content * draw.choice((2, 3)),
)
