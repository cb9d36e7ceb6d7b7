"""A run's folder: its manifest, its parts by batch, and reading judgments and texts back.

The manifest says which judge, data and machine, and how far the run came. It is written before the first part, so that
a folder with parts is always known to be a run of one judge, and again at the end.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NotRequired, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from judge.data.dataset import lot
from judge.data.dialogues import Record, example_files, read_dialogues
from judge.errors import InputError, discreet, one_line
from judge.models.checkpoint import Checkpoint
from judge.models.hardware import Hardware
from judge.prompting.rubric import load_rubric
from judge.remote import put, refuse_address, shown
from judge.scoring.answer_log import ANSWERS, AnswerLog
from judge.scoring.judge import Judge
from judge.scoring.parts import (
    DIALOGUES,
    JUDGMENTS,
    Damaged,
    kept_dialogues,
    part_name,
    read_part,
    schema,
    telling,
    write_part,
    writing,
)
from judge.types import TRANSIENT, Dialogue, Scheme

MANIFEST = "manifest.json"


EXAMPLE = "example"
"""What a manifest has in place of the paths of the packaged example, which differ between machines."""


SHARDS = "shards"
"""The folder in which processes that each did a share of a run (``--shard``) note how they did."""


DAMAGED = "damaged"
"""The folder to which parts are moved that are not as they were written."""


CALIBRATED = "calibrated.parquet"
"""Calibrated scores, where a calibration was applied; the parts hold what the judge said and nothing else."""


CALIBRATED_KEY = ["source", "character", "scenario", "metric", "content_digest"]
"""The columns by which calibrated scores are joined to judgments."""


_RESTORE = "restore it or choose another --run"


class _Named(TypedDict):
    name: str
    judge_id: str


class _Data(TypedDict):
    paths: list[str]
    batch_dialogues: NotRequired[Annotated[int, Field(ge=1)]]
    """Not in runs of earlier versions, which had batches of 64 whatever their size."""


class _Batches(TypedDict):
    """The names of a run's current parts: hexadecimal, as they become names of files."""

    judgments: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]
    diversity: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]


class _Manifest(TypedDict):
    """The keys by which a file is taken to be a manifest; it has more."""

    judge: _Named
    identity: dict[str, Any]
    metrics: list[str]
    sources: list[str]
    scheme: NotRequired[Scheme]
    data: _Data
    units: _Batches
    seconds: float


_SHAPE = TypeAdapter(_Manifest)
_SCHEME = TypeAdapter(Scheme)


class Store:
    """The folder of one run; it need not exist yet.

    ``set_aside`` has the places to which damaged parts were moved.

    Raises:
        InputError: the folder holds something that is not a run.
    """

    def __init__(self, folder: Path) -> None:
        refuse_address(folder)
        self.folder = folder
        self.set_aside: list[Path] = []
        there = _exists(folder)
        if there and not folder.is_dir():
            raise InputError(f"{folder}: is a file; a run is a folder, choose another --run")
        if there and self.manifest is None and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise InputError(f"{folder}: holds files but no {MANIFEST}, so it is not a run; choose another --run")

    def __str__(self) -> str:
        return shown(self.folder)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest, read anew each time; None before the run began. InputError where it is no manifest."""
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
        """Replace the manifest by an atomic write."""
        with self.replacing(MANIFEST) as file:
            file.write(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")

    @contextmanager
    def replacing(self, name: str) -> Iterator[TextIO]:
        """A text file of the run to write anew by an atomic write."""
        with writing(self.folder / name) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="\n", write_through=True)
            yield text
            text.detach()  # without it the wrapper would close the file, which is still to be synced
        put(self.folder, self.folder / name)

    def is_done(self, kind: str, batch: str) -> bool:
        """Whether the part of a batch is there, with no error in it that another try may remove.

        A part that is damaged is moved to ``damaged/``, so that its batch is judged again. It is not deleted, as it may
        be all that is left of an expensive run.
        """
        path = self.part(kind, batch)
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

    def part(self, kind: str, batch: str) -> Path:
        """The file of a batch's part; ``kind`` is ``JUDGMENTS`` or ``DIVERSITY``."""
        return self.folder / part_name(kind, batch)

    def absent(self, units: Mapping[str, Collection[str]]) -> int:
        """How many of the parts of some batches, whose names are given by kind, are not there."""
        return sum(not self.part(kind, name).is_file() for kind, names in units.items() for name in names)

    def write_part(self, kind: str, batch: str, rows: list[dict[str, Any]]) -> None:
        """Write the part of a batch by an atomic write; its log of answers goes, unless something is asked again."""
        write_part(self.part(kind, batch), kind, rows)
        put(self.folder, self.part(kind, batch))
        if not TRANSIENT.intersection(row["error"] for row in rows):
            self.answers(kind, batch).remove()

    def answers(self, kind: str, batch: str) -> AnswerLog:
        """The log of a server's answers about a batch."""
        return AnswerLog(self.folder, kind, batch)

    def remove_other_answers(self, units: Mapping[str, Collection[str]]) -> None:
        """Remove logs of batches that are not of the run any more, as their texts were edited or left out.

        Args:
            units: the names of the run's batches, by kind of part.
        """
        for path in (self.folder / ANSWERS).glob("*.jsonl"):
            kind, _, batch = path.stem.rpartition("-")
            if kind in units and batch not in units[kind]:
                self.answers(kind, batch).remove()

    def read_parts(self, kind: str, batches: Iterable[str]) -> Iterator[pd.DataFrame]:
        """The parts of these batches that are there, in order."""
        for batch in batches:
            path = self.part(kind, batch)
            if path.is_file():
                yield read_part(path).to_pandas()

    def tidy(self) -> None:
        """Remove temporary files that writers left which were killed, if they are older than a day.

        A younger one may be at work: several processes write to one folder.
        """
        for path in self.folder.glob("**/.*-*"):
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > 24 * 3600:
                    path.unlink()


def _exists(folder: Path) -> bool:
    """Whether there is a file or folder of this name; InputError where it cannot be a name (too long, a NUL in it)."""
    try:
        return folder.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"--run {folder}: cannot be a folder ({one_line(error)}); choose another") from error


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run; InputError where there is no run, or its manifest cannot be read."""
    refuse_address(run)
    manifest = Store(run).manifest if _exists(run) and (run / MANIFEST).exists() else None
    if manifest is None:
        raise InputError(f"{run}: no run there (no {MANIFEST}); check the path")
    return manifest


def load_judgments(run: Path | str) -> pd.DataFrame:
    """The current judgments of a run: a row per dialogue and metric, columns as in ``parts.schema``.

    Where a calibration was applied there are also ``calibrated, low, high, in_range``: see
    ``calibration.Calibration.predict``. Judgments of dialogues that have since been edited or left out stay in the
    folder but are not returned.

    Raises:
        InputError: there is no such run.
    """
    return _load(Path(run), lambda part: part)


def draw_judgments(run: Path, most: int, also: Collection[str] = ()) -> pd.DataFrame:
    """The current judgments of about ``most`` dialogues of a run, or of all where there are no more.

    They are drawn by the hash of character and scenario, so that scenarios are the same for every system; parts are
    read one at a time. Columns and errors are those of ``load_judgments``.

    Args:
        run: its folder.
        most: about how many dialogues.
        also: ids of dialogues that are taken in any case.
    """
    there = int(read_manifest(run)["data"]["dialogues"])
    if there <= most:
        return load_judgments(run)
    limit = f"{16**16 * most // there:016x}"

    def drawn(part: pd.DataFrame) -> pd.DataFrame:
        pairs = list(zip(part["character"], part["scenario"], strict=True))
        lots = {pair: lot(*pair) for pair in set(pairs)}
        return part[np.array([lots[pair] < limit for pair in pairs]) | item_ids(part).isin(list(also))]

    return _load(run, drawn)


def _whole(run: Path) -> tuple[dict[str, Any], Store]:
    """The manifest and the folder of a run; InputError where it has ended and has lost judgments since."""
    manifest, store = read_manifest(run), Store(run)
    names = manifest["units"][JUDGMENTS]
    if manifest.get("finished") and (absent := store.absent({JUDGMENTS: names})):
        raise InputError(
            f"{store}: {absent:,} of {len(names):,} parts of its judgments are not there any more; copy the folder "
            "anew, or give the run's score command again"
        )
    return manifest, store


def _load(run: Path, choose: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """What is chosen of each part of a run's current judgments, with calibrated scores where there are any."""
    manifest, store = _whole(run)
    frames = [choose(part) for part in store.read_parts(JUDGMENTS, manifest["units"][JUDGMENTS])]
    if frames:
        judgments = pd.concat(frames, ignore_index=True)
    else:
        judgments = schema(JUDGMENTS, scheme_of(manifest).all_levels).empty_table().to_pandas()
    path = store.folder / CALIBRATED
    if not path.is_file():
        return judgments
    try:
        calibrated = pq.read_table(path).to_pandas().drop_duplicates(CALIBRATED_KEY)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise InputError(f"{path}: is damaged ({one_line(error)}); apply the calibration anew, or remove it") from error
    return judgments.merge(calibrated, on=CALIBRATED_KEY, how="left")


def mean_scores(run: Path) -> pd.DataFrame:
    """The judge mean over the dialogues of each system on each metric: ``source, metric, mean``, NaN without a score.

    Parts are read one at a time. InputError where there is no such run.
    """
    keys, sums = ["source", "metric"], []
    manifest, store = _whole(run)
    for part in store.read_parts(JUDGMENTS, manifest["units"][JUDGMENTS]):
        sums.append(part.groupby(keys)["score"].agg(["sum", "count"]))
    if not sums:
        return pd.DataFrame(columns=[*keys, "mean"])
    found = pd.concat(sums).groupby(level=keys).sum()
    return (found["sum"] / found["count"]).rename("mean").reset_index()


def read_texts(run: Path, wanted: Mapping[str, str]) -> tuple[dict[str, Dialogue], str | None]:
    """Dialogues of a run as they were judged, in the order in which the run keeps them.

    Earlier versions kept no dialogues. Those of such a run are looked up where it read its data, and one that has been
    edited since is not found.

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
    ``judge, p1..pK``, and ``length`` (tokens of the prompt). ``p1`` is the probability of the lowest score of a
    metric's scale, ``p2`` that of the next whole score, and so on; a metric of fewer scores has NaN in the last ones.
    A judgment that is missing has a NaN score.

    Raises:
        InputError: there is no such run.
    """
    return scores_of(load_judgments(run), scheme_of(read_manifest(Path(run))))


def item_ids(judgments: pd.DataFrame) -> pd.Series:
    """The id of each row's dialogue: ``Dialogue.id``."""
    return judgments["source"] + "/" + judgments["character"] + "/" + judgments["scenario"]


def scores_of(judgments: pd.DataFrame, scheme: Scheme) -> pd.DataFrame:
    """Judgments by a rubric of this scheme as ``load_scores`` gives them, row by row."""
    names = {"scenario": "group", "prompt_tokens": "length"}
    table = judgments.rename(columns=names).assign(item_id=item_ids(judgments))
    # Statistics know a scale by its ends and take every whole score between them for a level: one that the metric does
    # not have is of no probability.
    widest = max(int(high - low) + 1 for low, high in scheme.scales.values())
    chances = np.full((len(table), widest), np.nan)
    for metric, levels in scheme.levels.items():
        rows = (judgments["metric"] == metric).to_numpy()
        own = judgments.loc[rows, [f"p{level}" for level in levels]].to_numpy(float)
        filled = np.where(np.isnan(own[:, :1]), np.nan, np.zeros((len(own), levels[-1] - levels[0] + 1)))
        filled[:, [level - levels[0] for level in levels]] = own
        chances[rows, : filled.shape[1]] = filled
    places = [f"p{place}" for place in range(1, widest + 1)]
    first = ["item_id", "source", "character", "metric", "score", "group", "judge"]
    found = pd.concat([table[first], pd.DataFrame(chances, table.index, places), table["length"]], axis=1)
    return found


def scheme_of(manifest: Mapping[str, Any]) -> Scheme:
    """What the rubric of a run rates; earlier versions had ChatAnime's only and noted none."""
    if "scheme" not in manifest:
        return load_rubric(manifest["identity"].get("language")).scheme
    return _SCHEME.validate_python(manifest["scheme"])


def begin(
    store: Store, judge: Judge, hardware: Hardware, reason: str, about: dict[str, Any], is_shared: bool = False
) -> None:
    """Write the manifest of a run that begins or goes on.

    One that ``is_shared`` is begun by several processes. The first writes the manifest and the others leave it.

    What says which run it is (``own``) is written anew. How it went so far (``course``: command, engines, times) is
    kept from earlier sessions, and so is why the judge was chosen (``reason``).
    """
    own = {
        "format": 1,
        "esrp_judge": version("esrp-judge"),
        "judge": {"name": judge.name, "judge_id": judge.identity.judge_id, **_trained(judge)},
        "identity": asdict(judge.identity),
        "scheme": asdict(judge.scheme),
        "label_masses_of_answer_forms": judge.answer_form.masses,
        "machine": {"python": platform.python_version(), "torch": version("torch"), **asdict(hardware)},
        **about,
    }
    course = {
        "command": ["esrp-judge", *map(discreet, sys.argv[1:])],
        "judge_chosen": reason,
        "engines": [],
        "started": _now(),
        "finished": None,
        "seconds": 0.0,
    }
    before = store.manifest or {}
    if is_shared:
        if about.items() <= before.items():
            return
        before |= {"finished": None}
    store.write_manifest({**own, **{key: before.get(key, value) for key, value in course.items()}})


def _trained(judge: Judge) -> dict[str, Any]:
    """How the judge was trained and what it reached, where ``train`` made it: for who reads its scores."""
    noted = judge.model.origin.training if isinstance(judge.model.origin, Checkpoint) else None
    names = ("base", "data_digest", "split", "options", "held_out_losses", "figures")
    return {"training": {name: noted[name] for name in names}} if noted else {}


def note_share(store: Store, share: str, engines: list[dict[str, Any]], seconds: float, hardware: Hardware) -> None:
    """Write how a share of a run was judged, where it needed engines; ``share`` is which of how many, as ``2/3``.

    It is a file of its own (``shards/2-of-3.json``), as other processes may be at the manifest at the same time.
    ``finish`` puts them all there.
    """
    if not engines:
        return
    index, count = share.split("/")
    name = f"{SHARDS}/{index}-of-{count}.json"
    with suppress(OSError, ValueError, KeyError):  # an earlier session of it
        seconds += json.loads((store.folder / name).read_text(encoding="utf-8"))["seconds"]
    facts = {"shard": share, "engines": engines, "seconds": round(seconds, 1), "ended": _now()}
    with store.replacing(name) as file:
        file.write(json.dumps({**facts, "machine": asdict(hardware)}, ensure_ascii=False, indent=2) + "\n")


def note(store: Store, engines: list[dict[str, Any]], seconds: float) -> None:
    """Add a session that needed engines to the manifest; until ``finish`` is called the run counts as unfinished."""
    manifest = store.manifest
    if manifest and engines:
        total = round(manifest["seconds"] + seconds, 1)
        store.write_manifest({**manifest, "engines": engines, "seconds": total, "finished": None})


def read_shards(store: Store) -> list[dict[str, Any]]:
    """What the shares of a run noted of themselves."""
    shards = []
    for path in sorted(store.folder.glob(f"{SHARDS}/*.json")):
        with suppress(OSError, ValueError):  # it tells how a share was judged, and the judgments do not need it
            shards.append(json.loads(path.read_text(encoding="utf-8")))
    return shards


def lists_all(store: Store) -> bool:
    """Whether the judge's probabilities are of every level, and not of those that a server listed alone."""
    sessions = [store.manifest or {}, *read_shards(store)]
    return not any("unlisted_levels" in engine for session in sessions for engine in session.get("engines", []))


def finish(store: Store, result: dict[str, Any]) -> None:
    """Write how the run ended, and the time at which what it now holds was first complete."""
    manifest, shards = store.manifest or {}, read_shards(store)
    told = {"shards": shards} if shards else {}
    store.write_manifest({**manifest, **told, "finished": manifest.get("finished") or _now(), **result})


def refuse_another(store: Store, judge: Judge, metrics: list[str]) -> None:
    """Raises InputError where the folder holds judgments of another judge or on other metrics; it says what differs.

    A run is of one judge on one choice of metrics, so that all its numbers can be compared.
    """
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
    raise InputError(f"{store}: {message}; choose another --run")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
