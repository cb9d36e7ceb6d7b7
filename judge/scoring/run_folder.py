"""What a run says of itself: which judge, data and machine, and how far it came; written first and last."""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from judge.data.dialogues import Record, example_files, read_dialogues
from judge.errors import InputError, discreet, one_line
from judge.models.hardware import Hardware
from judge.scoring.judge import Judge
from judge.scoring.parts import (
    DIALOGUES,
    JUDGMENTS,
    SCHEMAS,
    Damaged,
    kept_dialogues,
    read_part,
    telling,
    write_part,
    writing,
)
from judge.types import LEVELS, TRANSIENT, Dialogue

MANIFEST = "manifest.json"


EXAMPLE = "example"
"""Stands in a manifest for the paths of the packaged example."""


DAMAGED = "damaged"
"""Where parts are put that are not as they were written."""


CALIBRATED = "calibrated.parquet"
"""Scores on people's scale, where a calibration was applied; the parts hold what the judge said and nothing else."""


CALIBRATED_KEY = ["source", "character", "scenario", "metric", "content_digest"]


_RESTORE = "restore it or choose another --run"


class _Named(TypedDict):
    name: str
    judge_id: str


class _Data(TypedDict):
    paths: list[str]


class _Units(TypedDict):
    judgments: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]
    diversity: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]


class _Manifest(TypedDict):
    """What every manifest has, as the least that marks a file as one."""

    judge: _Named
    identity: dict[str, Any]
    metrics: list[str]
    sources: list[str]
    data: _Data
    units: _Units
    seconds: float


_SHAPE = TypeAdapter(_Manifest)


class Store:
    """The folder of one run.

    ``set_aside`` are parts that were found to be damaged, where they are now.

    Raises:
        InputError: the folder holds something that is not a run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set_aside: list[Path] = []
        there = _exists(folder)
        if there and not folder.is_dir():
            raise InputError(f"{folder}: is a file; a run is a folder, choose another --run")
        if there and self.manifest is None and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise InputError(f"{folder}: holds files but no {MANIFEST}, so it is not a run; choose another --run")

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What the run says of itself; None before it began. InputError where it cannot be read."""
        path = self.folder / MANIFEST
        if not path.is_file() and not path.exists():
            return None
        try:
            if not path.is_file():
                raise ValueError("it is no file")
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)}); {_RESTORE}") from error
        try:
            _SHAPE.validate_python(manifest)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise InputError(f"{path}: is not the manifest of a run (at {where or 'its top'}); {_RESTORE}") from error
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest, whole."""
        with self.replacing(MANIFEST) as file:
            file.write(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")

    @contextmanager
    def replacing(self, name: str) -> Iterator[TextIO]:
        """A text file of the run to write anew: it takes the old one's place whole, or not at all."""
        with writing(self.folder / name) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="\n", write_through=True)
            yield text
            text.detach()

    def is_done(self, kind: str, unit: str) -> bool:
        """Whether the part of a unit is there, with nothing in it that is worth another try.

        A part that is damaged is moved to ``damaged/``, so that its unit is judged again.
        """
        path = self.part(kind, unit)
        if not path.is_file():
            return False
        try:
            errors = read_part(path)["error"].to_pylist()
        except Damaged:
            aside = self.folder / DAMAGED / f"{kind}-{path.name}"
            with telling("moved", path), suppress(FileNotFoundError):  # another process was faster
                aside.parent.mkdir(exist_ok=True)
                os.replace(path, aside)
                self.set_aside.append(aside)
            return False
        return not TRANSIENT.intersection(errors)

    def part(self, kind: str, unit: str) -> Path:
        """The file of a unit's part."""
        return self.folder / kind / f"part-{unit}.parquet"

    def write_part(self, kind: str, unit: str, rows: list[dict[str, Any]]) -> None:
        """Write the part of a unit by an atomic write."""
        write_part(self.part(kind, unit), kind, rows)

    def read_parts(self, kind: str, units: Iterable[str]) -> Iterator[pd.DataFrame]:
        """The parts of these units that are there, in order."""
        for unit in units:
            path = self.part(kind, unit)
            if path.is_file():
                yield read_part(path).to_pandas()

    def tidy(self) -> None:
        """Remove what writers that were killed have left, a day and more ago."""
        for path in self.folder.glob("**/.*-*"):
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > 24 * 3600:
                    path.unlink()


def _exists(folder: Path) -> bool:
    """Whether there is something; InputError where its name cannot be one."""
    try:
        return folder.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"--run {folder}: cannot be a folder ({one_line(error)}); choose another") from error


def read_manifest(run: Path) -> dict[str, Any]:
    """What a run says of itself; InputError where there is none."""
    manifest = Store(run).manifest if _exists(run) and (run / MANIFEST).exists() else None
    if manifest is None:
        raise InputError(f"{run}: no run there (no {MANIFEST}); check the path")
    return manifest


def load_judgments(run: Path | str) -> pd.DataFrame:
    """The current judgments of a run: a row per dialogue and metric, columns as in ``SCHEMAS["judgments"]``.

    Where a calibration was applied also ``calibrated, low, high, in_range``: see ``calibration.Calibration.predict``.
    Judgments of dialogues that have since been edited or left out stay in the folder but are not returned.

    Raises:
        InputError: there is no such run.
    """
    manifest, store = read_manifest(Path(run)), Store(Path(run))
    frames = list(store.read_parts(JUDGMENTS, manifest["units"][JUDGMENTS]))
    judgments = pd.concat(frames, ignore_index=True) if frames else SCHEMAS[JUDGMENTS].empty_table().to_pandas()
    path = store.folder / CALIBRATED
    if not path.is_file():
        return judgments
    try:
        calibrated = pq.read_table(path).to_pandas().drop_duplicates(CALIBRATED_KEY)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise InputError(f"{path}: is damaged ({one_line(error)}); apply the calibration anew, or remove it") from error
    return judgments.merge(calibrated, on=CALIBRATED_KEY, how="left")


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
        if path.is_file():
            dialogues = kept_dialogues(path, set(wanted.values()))
        else:
            paths = read_manifest(run)["data"]["paths"]
            files = example_files() if paths == [EXAMPLE] else [Path(path) for path in paths]
            dialogues = (record.dialogue for record in read_dialogues(files) if isinstance(record, Record))
        for dialogue in dialogues:
            if wanted.get(dialogue.id) == dialogue.content_digest:
                found[dialogue.id] = dialogue
    except InputError as error:
        return found, str(error)
    return found, None


def load_scores(run: Path | str) -> pd.DataFrame:
    """The current judgments of a run as ``calibration`` takes a judge's scores: a row per dialogue and metric.

    Columns: ``item_id`` (``source/character/scenario``), ``source, character, metric, score, group`` (the scenario),
    ``judge, p1..p5``, and ``length`` (tokens of the prompt). A judgment that is missing has a NaN score.

    Raises:
        InputError: there is no such run.
    """
    return scores_of(load_judgments(run))


def item_ids(judgments: pd.DataFrame) -> pd.Series:
    """The id of each row's dialogue: ``Dialogue.id``."""
    return judgments["source"] + "/" + judgments["character"] + "/" + judgments["scenario"]


def scores_of(judgments: pd.DataFrame) -> pd.DataFrame:
    """Judgments as ``load_scores`` gives them, row by row."""
    table = judgments.rename(columns={"scenario": "group", "prompt_tokens": "length"}).assign(
        item_id=item_ids(judgments)
    )
    levels = [f"p{level}" for level in LEVELS]
    return table[["item_id", "source", "character", "metric", "score", "group", "judge", *levels, "length"]]


def begin(store: Store, judge: Judge, hardware: Hardware, about: dict[str, Any]) -> None:
    """Write the manifest of a run that begins or goes on; what earlier sessions noted of its course is kept."""
    own = {
        "format": 1,
        "esrp_judge": version("esrp-judge"),
        "judge": {"name": judge.name, "judge_id": judge.identity.judge_id},
        "identity": asdict(judge.identity),
        "label_masses_of_answer_forms": judge.answer_form.masses,
        "machine": {"python": platform.python_version(), "torch": version("torch"), **asdict(hardware)},
        **about,
    }
    course = {
        "command": ["esrp-judge", *map(discreet, sys.argv[1:])],
        "engines": [],
        "started": _now(),
        "finished": None,
    }
    before = store.manifest or {}
    store.write_manifest({**own, **{key: before.get(key, value) for key, value in (course | {"seconds": 0.0}).items()}})


def note(store: Store, engines: list[dict[str, Any]], seconds: float) -> None:
    """Write how a session went that needed engines; the run is not finished, or not any more."""
    manifest = store.manifest
    if manifest and engines:
        total = round(manifest["seconds"] + seconds, 1)
        store.write_manifest({**manifest, "engines": engines, "seconds": total, "finished": None})


def finish(store: Store, result: dict[str, Any]) -> None:
    """Write how the run ended, and when it first did with what it now holds."""
    manifest = store.manifest or {}
    store.write_manifest({**manifest, "finished": manifest.get("finished") or _now(), **result})


def refuse_another(store: Store, judge: Judge, metrics: list[str]) -> None:
    """InputError where the folder holds judgments of another judge or on other metrics; it names what differs."""
    manifest = store.manifest
    if manifest is None:
        return
    if manifest["judge"]["judge_id"] != judge.identity.judge_id:
        differing, there = judge.identity.differences(manifest["identity"]), manifest["judge"]["name"]
        message = f"holds judgments of {there}, which differs from {judge.name} in {', '.join(differing)}"
    elif manifest["metrics"] != metrics:
        message = f"holds judgments on {', '.join(manifest['metrics'])} and not on {', '.join(metrics)}"
    else:
        return
    raise InputError(f"{store.folder}: {message}; choose another --run")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
