"""The Parquet files of a run: parts of judgments, and the dialogues that were judged. ``pandas`` opens them.

A part holds one batch of work and never changes. Each file is written by an atomic write: written beside its place,
synced, renamed, the folder synced. So a file that is there is complete, and resuming is the question which parts are
missing. Temporary files begin with a dot. A part also holds a hash of its own content, and the dialogues have page
checksums, by which damage on the disk is found. Nothing here knows the manifest, nor which judge is at work.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from judge.data.dataset import Corpus
from judge.errors import EngineError, InputError, one_line
from judge.files import replacing
from judge.remote import opened
from judge.types import Dialogue, Judgment, Turn, digest

JUDGMENTS = "judgments"


DIVERSITY = "diversity"


DIALOGUES = "dialogues.parquet"
"""The file in a run's folder with the dialogues that it judged, so that a run can be moved without its input."""


_KEY = [(name, pa.string()) for name in ("judge_id", "judge", "source", "character")]


def schema(kind: str, levels: Sequence[int]) -> pa.Schema:
    """The columns of a kind of part (``JUDGMENTS`` or ``DIVERSITY``), where metrics have these levels."""
    judgment = [
        *((f"p{level}", pa.float64()) for level in levels),
        ("mass", pa.float64()),
        ("score", pa.float64()),
        ("error", pa.string()),
    ]
    if kind == JUDGMENTS:
        about = [(name, pa.string()) for name in ("scenario", "metric", "content_digest")]
        return pa.schema([*_KEY, *about, *judgment, ("suspicious", pa.string()), ("prompt_tokens", pa.int32())])
    statistics = [(name, pa.float64()) for name in ("distinct_2", "self_bleu", "compression_ratio")]
    return pa.schema([*_KEY, ("dialogues", pa.int32()), *statistics, *judgment])


DIALOGUE_KEY = ["content_digest", "source", "character", "scenario"]
"""The columns that say which dialogue a row is about, in this file and in the parts of judgments."""


DIALOGUE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*DIALOGUE_KEY, "profile")),
        ("turns", pa.list_(pa.struct([("user", pa.string()), ("character", pa.string())]))),
    ]
)
"""The columns of ``DIALOGUES``, a row per dialogue; ``content_digest`` is ``Dialogue.content_digest``."""


DIALOGUES_AT_ONCE = 1024
"""The most dialogues in a row group (or a batch, if that has more), which is what is in memory at a time."""


_CORPUS = b"corpus"
"""The name in the metadata of ``DIALOGUES`` of the digest of the data that it was written for."""


_HASH = b"content_digest"
"""The name in a part's metadata of the digest of its table."""


def columns(judgment: Judgment, levels: Sequence[int]) -> dict[str, Any]:
    """A judgment as columns: ``p1`` and so on for each of ``levels``, and ``mass, score, error``.

    A level that its metric does not have is None, and so is all but ``error`` where the judgment is missing.
    """
    probabilities = judgment.probabilities or {}
    chances = {f"p{level}": probabilities.get(level) for level in levels}
    return {**chances, "mass": judgment.mass, "score": judgment.score, "error": judgment.error}


class Damaged(InputError):
    """A file of a run is not as it was written."""


def part_name(kind: str, batch: str) -> str:
    """The place of a batch's part in a run's folder."""
    return f"{kind}/part-{batch}.parquet"


def write_part(path: Path, kind: str, rows: list[dict[str, Any]]) -> None:
    """Write a part by an atomic write, with the hash of its content.

    Args:
        path: the part's file.
        kind: ``JUDGMENTS`` or ``DIVERSITY``.
        rows: values by column; at least one, with the levels of all metrics among them.

    Raises:
        EngineError: the file cannot be written.
    """
    with writing(path) as file:
        file.write(part_content(kind, rows))


def part_content(kind: str, rows: list[dict[str, Any]]) -> bytes:
    """The content of a part's file; arguments as those of ``write_part``."""
    levels = [int(name[1:]) for name in rows[0] if re.fullmatch(r"p\d+", name)]
    table = pa.Table.from_pylist(rows, schema=schema(kind, levels))
    table = table.replace_schema_metadata({_HASH: digest(table.to_pydict())})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return bytes(buffer.getvalue().to_pybytes())


def read_part(path: Path) -> pa.Table:
    """The table of a part, without its hash.

    Raises:
        Damaged: its content is not what was written.
        EngineError: the file cannot be read.
    """
    again = "score again with this run as --run, and it is judged anew"
    with telling("read", path):
        content = path.read_bytes()
    try:
        table = pq.read_table(io.BytesIO(content))
        sound = digest(table.to_pydict()) == (table.schema.metadata or {}).get(_HASH, b"").decode()
    except Exception as error:  # a broken file fails in many ways inside the library, and in what it makes of columns
        raise Damaged(f"{path}: is damaged ({one_line(error)}); {again}") from error
    if not sound:
        raise Damaged(f"{path}: is damaged (its content is not what was written); {again}")
    return table.replace_schema_metadata(None)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file of a run to write by an atomic write; EngineError where it cannot be written."""
    with telling("written", path), replacing(path) as file:
        yield file


@contextmanager
def telling(done: str, path: Path) -> Iterator[None]:
    """Turns an OSError into an EngineError: a file cannot be ``done`` (read, written, moved), and is the disk full?"""
    try:
        yield
    except OSError as error:
        full = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # The folder may not exist yet, so the disk is that of the nearest one above it that does.
            there = next(one for one in (path.parent, *path.parent.parents) if one.exists()).resolve()
            mount = next(one for one in (there, *there.parents) if one.is_mount())
            usage = shutil.disk_usage(mount)
            full = f": the disk at {mount} has {usage.free / 1e6:,.1f} MB free of {usage.total / 1e6:,.0f}"
        raise EngineError(f"{path}: cannot be {done} ({error.strerror}){full}") from error


def keep_dialogues(run: Path, corpus: Corpus) -> str | None:
    """Write a run's dialogues: those of its data, and those of earlier data that its parts still hold judgments of.

    Nothing is written where the file is sound and was written for the same data.

    Returns:
        A warning where an old file was damaged, so that dialogues of earlier data are lost.

    Raises:
        EngineError: the file cannot be written.
    """
    path, warning = run / DIALOGUES, None
    earlier = path.is_file()
    try:
        if earlier:
            for _ in _kept_rows(path):
                pass  # reading a page compares its checksum
            noted: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
            if noted.get(_CORPUS, b"").decode() == corpus.digest:
                return None
    except Damaged as error:
        earlier, warning = False, f"{error}: it is written anew, without the dialogues of earlier data"
    _write_dialogues(run, corpus, earlier)
    return warning


def _write_dialogues(run: Path, corpus: Corpus, with_earlier: bool) -> None:
    """Write a run's dialogues: those of its data, then those of the old file (if it is sound) that have judgments."""
    path, batches = run / DIALOGUES, corpus.batches()
    at_once = max(1, DIALOGUES_AT_ONCE // corpus.batch_dialogues)
    schema = DIALOGUE_SCHEMA.with_metadata({_CORPUS: corpus.digest})
    with writing(path) as file, pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        while some := list(islice(batches, at_once)):
            dialogues: list[dict[str, Any]] = [
                {
                    "content_digest": dialogue.content_digest,
                    "source": dialogue.source,
                    "character": dialogue.character,
                    "scenario": dialogue.scenario,
                    "profile": dialogue.profile,
                    "turns": [{"user": turn.user, "character": turn.character} for turn in dialogue.turns],
                }
                for batch in some
                for dialogue in batch.dialogues
            ]
            writer.write_table(pa.Table.from_pylist(dialogues, schema))
        if with_earlier:  # the old file is there until this one takes its place
            still: set[tuple[str, ...]] = set()
            for part in (run / JUDGMENTS).glob("part-*.parquet"):
                with suppress(OSError, pa.ArrowException):  # a damaged part is set aside later, and judged again
                    judged = set(_keys(pq.ParquetFile(part).read(DIALOGUE_KEY)))
                    still |= {key for key in judged if not _is_in(corpus, *key)}
            for rows in _kept_rows(path):
                chosen = pa.array([key in still for key in _keys(rows)])
                writer.write_batch(rows.filter(chosen).replace_schema_metadata(schema.metadata))


def _is_in(corpus: Corpus, content_digest: str, *names: str) -> bool:
    """Whether the dialogue of these names is in the data, with this content."""
    there = corpus.find(*names)
    return there is not None and there.content_digest == content_digest


def kept_dialogues(path: Path, digests: Collection[str]) -> Iterator[Dialogue]:
    """The dialogues in a file of ``keep_dialogues`` that have these content digests; Damaged where it is damaged."""
    values = pa.array(sorted(digests), pa.string())
    for rows in _kept_rows(path):
        yield from _dialogues(rows.filter(pc.is_in(rows["content_digest"], value_set=values)))


def dialogues_between(path: Path | str, start: int, stop: int) -> Iterator[Dialogue]:
    """The dialogues from the ``start``-th up to, and without, the ``stop``-th in a file of ``keep_dialogues``.

    Only the row groups that hold them are read. The file may be in a store. Damaged where it is damaged.
    """
    try:
        with pq.ParquetFile(opened(path), page_checksum_verification=True) as file:
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first < stop and start < first + rows:
                    begin, end = max(start - first, 0), min(stop - first, rows)
                    yield from _dialogues(file.read_row_group(group).slice(begin, end - begin))
                first += rows
    except Exception as error:  # a broken file fails in many ways inside the library
        raise Damaged(f"{path}: is damaged ({one_line(error)})") from error


def _dialogues(rows: pa.Table | pa.RecordBatch) -> Iterator[Dialogue]:
    """The dialogues of some rows."""
    for row in rows.to_pylist():
        turns = tuple(Turn(turn["user"], turn["character"]) for turn in row["turns"])
        yield Dialogue(row["source"], row["character"], row["scenario"], turns, row["profile"])


def _kept_rows(path: Path) -> Iterator[pa.RecordBatch]:
    """The file's rows, a row group or less at a time; Damaged where they are not as they were written."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(DIALOGUE_SCHEMA):
                raise ValueError("its columns are not those of dialogues")
            yield from file.iter_batches(batch_size=1024)
    except Exception as error:  # a broken file fails in many ways inside the library
        raise Damaged(f"{path}: is damaged ({one_line(error)})") from error


def _keys(rows: pa.Table | pa.RecordBatch) -> Iterator[tuple[str, ...]]:
    """The values of ``DIALOGUE_KEY`` of each row."""
    return zip(*(rows[name].to_pylist() for name in DIALOGUE_KEY), strict=True)
