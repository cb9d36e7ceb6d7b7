"""The dialogues that a run judged, kept in its folder as ``dialogues.parquet``.

Whatever needs the texts of a run (its report, forms for annotators, the anchor dialogues of a calibration) takes them
from here by content digest. So a run says what it judged after its input was edited, moved or deleted. This module
knows nothing of judges or scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from judge.data.dataset import Corpus
from judge.data.dialogues import Record, example_files, read_dialogues
from judge.errors import InputError, one_line
from judge.scoring.parts import JUDGMENTS, Damaged, _writing
from judge.scoring.run_folder import read_manifest
from judge.types import Dialogue, Turn

DIALOGUES = "dialogues.parquet"


EXAMPLE = "example"
"""Stands in a manifest for the paths of the packaged example."""


KEY = ["content_digest", "source", "character", "scenario"]
"""The columns that say which dialogue it is, in this file and in the parts of judgments."""


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*KEY, "profile")),
        ("turns", pa.list_(pa.struct([("user", pa.string()), ("character", pa.string())]))),
    ]
)
"""A row is a dialogue; ``content_digest`` is ``Dialogue.content_digest``."""


UNITS_AT_ONCE = 16
"""Units of the corpus in a row group, which is what is in memory at a time: at most 1,024 dialogues."""


_CORPUS = b"corpus"
"""Under this name the file's own metadata has the digest of the data that it was written for."""


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
        if earlier and _check(path) == corpus.digest:
            return None
    except Damaged as error:
        earlier, warning = False, f"{error}: it is written anew, without the dialogues of earlier data"
    units, written = corpus.units(), set()
    schema = SCHEMA.with_metadata({_CORPUS: corpus.digest})
    with _writing(path) as file, pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        while group := list(islice(units, UNITS_AT_ONCE)):
            rows = [
                {
                    "content_digest": dialogue.content_digest,
                    "source": dialogue.source,
                    "character": dialogue.character,
                    "scenario": dialogue.scenario,
                    "profile": dialogue.profile,
                    "turns": [{"user": turn.user, "character": turn.character} for turn in dialogue.turns],
                }
                for unit in group
                for dialogue in unit.dialogues
            ]
            written |= {tuple(row[name] for name in KEY) for row in rows}
            writer.write_table(pa.Table.from_pylist(rows, schema))
        if earlier:
            wanted = _judged(run) - written
            for batch in _batches(path):
                chosen = [key in wanted for key in zip(*(batch[name].to_pylist() for name in KEY), strict=True)]
                writer.write_batch(batch.filter(pa.array(chosen)).replace_schema_metadata(schema.metadata))
    return warning


def read_texts(run: Path, wanted: Mapping[str, str]) -> tuple[dict[str, Dialogue], str | None]:
    """Dialogues of a run as they were judged, in the order in which the run keeps them.

    A run of a version that kept none is looked up where it read its data.

    Args:
        run: its folder.
        wanted: content digests by the dialogues' ids.

    Returns:
        The dialogues that are there, by id; and why some may be absent, where something cannot be read.
    """
    found: dict[str, Dialogue] = {}
    path = run / DIALOGUES
    try:
        for dialogue in _kept(path, set(wanted.values())) if path.is_file() else _input_of(run):
            if wanted.get(dialogue.id) == dialogue.content_digest:
                found[dialogue.id] = dialogue
    except InputError as error:
        return found, str(error)
    return found, None


def _kept(path: Path, digests: Collection[str]) -> Iterator[Dialogue]:
    """The kept dialogues with these content digests."""
    values = pa.array(sorted(digests), pa.string())
    for batch in _batches(path):
        for row in batch.filter(pc.is_in(batch["content_digest"], value_set=values)).to_pylist():
            turns = tuple(Turn(turn["user"], turn["character"]) for turn in row["turns"])
            yield Dialogue(row["source"], row["character"], row["scenario"], turns, row["profile"])


def _input_of(run: Path) -> Iterator[Dialogue]:
    """The dialogues that are now in the files that a run read."""
    paths = read_manifest(run)["data"]["paths"]
    files = example_files() if paths == [EXAMPLE] else [Path(path) for path in paths]
    return (record.dialogue for record in read_dialogues(files) if isinstance(record, Record))


def _judged(run: Path) -> set[tuple[str, ...]]:
    """The keys of all dialogues that a run has judgments of, earlier data included."""
    found: set[tuple[str, ...]] = set()
    for part in (run / JUDGMENTS).glob("part-*.parquet"):
        with suppress(OSError, pa.ArrowException):  # a damaged part is set aside later, and judged again
            table = pq.ParquetFile(part).read(KEY)
            found |= set(zip(*(table[name].to_pylist() for name in KEY), strict=True))
    return found


def _check(path: Path) -> str:
    """The digest of the data that a file was written for, once all its pages were seen to be sound."""
    for _ in _batches(path):
        pass
    noted: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    return noted.get(_CORPUS, b"").decode()


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The file's rows, a row group or less at a time; ``Damaged`` where they are not as they were written."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise ValueError("its columns are not those of dialogues")
            yield from file.iter_batches(batch_size=1024)
    except Exception as error:  # a broken file fails in many ways inside the library
        raise Damaged(f"{path}: is damaged ({one_line(error)})") from error
