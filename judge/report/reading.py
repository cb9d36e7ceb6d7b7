"""A finished run as tables: what its folder holds, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from judge.dialogues import Record, read_dialogues
from judge.errors import InputError, one_line
from judge.rationales import read_rationales
from judge.run import data_files
from judge.store import item_ids, load_judgments, read_manifest
from judge.types import METRICS, Dialogue


@dataclass(frozen=True, slots=True)
class Run:
    """A run's manifest and tables; ``judgments`` has ``item_id`` besides the columns of ``load_judgments``."""

    folder: Path
    manifest: dict[str, Any]
    judgments: pd.DataFrame
    leaderboard: pd.DataFrame
    diversity: pd.DataFrame
    rationales: dict[str, dict[str, str]]
    """By ``item_id`` and dimension."""

    @property
    def metrics(self) -> list[str]:
        """The metrics of dialogues that were judged, in their order."""
        return [metric for metric in METRICS if metric in self.manifest["metrics"]]

    @property
    def sources(self) -> list[str]:
        """The sources that were judged."""
        return list(self.manifest["sources"])

    @property
    def judge(self) -> str:
        """The judge's name."""
        return str(self.manifest["judge"]["name"])


def read_run(folder: Path) -> Run:
    """Read a run; InputError where there is none, or it has no tables yet."""
    manifest = read_manifest(folder)
    judgments = load_judgments(folder).assign(item_id=item_ids)
    board, varied = (_table(folder / f"{name}.csv") for name in ("leaderboard", "diversity"))
    return Run(folder, manifest, judgments, board, varied, read_rationales(folder, judgments))


def read_texts(manifest: dict[str, Any], wanted: dict[str, str]) -> tuple[dict[str, Dialogue], str | None]:
    """The dialogues a run judged, from where it read them.

    Args:
        manifest: the run's.
        wanted: the digest of their content, by id.

    Returns:
        Those that are there as they were judged; and why not all are, if the data cannot be read.
    """
    found: dict[str, Dialogue] = {}
    try:
        for record in read_dialogues(data_files(manifest["data"]["paths"])):
            dialogue = record.dialogue if isinstance(record, Record) else None
            if dialogue and wanted.get(dialogue.id) == dialogue.content_digest:
                found[dialogue.id] = dialogue
    except InputError as error:
        return found, str(error)
    return found, None


def _table(path: Path) -> pd.DataFrame:
    text = {"judge": str, "source": str, "character": str, "metric": str}
    try:
        return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there, as the run is not finished; give its score command again") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); give the run's score command again") from error
