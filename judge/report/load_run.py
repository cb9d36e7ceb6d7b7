"""What the page needs of a run: its tables, and the chosen dialogues as the page's script takes them.

A dialogue is a row with its texts, the distributions of the metrics that were asked, and its human ratings, each once
and short. How any of it is shown is up to ``judge.report.page``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from judge.errors import InputError, one_line
from judge.report.texts import number, numbers, visible
from judge.scoring.rationales import by_dialogue, explained_ids, read_rationales, select
from judge.scoring.run_folder import draw_judgments, item_ids, read_manifest, read_texts, scheme_of
from judge.types import Dialogue, Scheme


@dataclass(frozen=True, slots=True)
class Run:
    """A run's manifest and tables; ``judgments`` has ``item_id`` besides the columns of ``load_judgments``.

    Of very many dialogues ``judgments`` are those of a sample, and ``sampled`` says how many are in it; the leaderboard
    is always of all. ``diversity`` has no row where the rubric's set metric was not judged.
    """

    folder: Path
    manifest: dict[str, Any]
    scheme: Scheme
    judgments: pd.DataFrame
    leaderboard: pd.DataFrame
    diversity: pd.DataFrame
    rationales: dict[str, dict[str, str]]
    """By ``item_id`` and dimension."""
    sampled: int | None = None

    @property
    def metrics(self) -> list[str]:
        """The metrics of dialogues that were judged, in their order."""
        return [metric for metric in self.scheme.metrics if metric in self.manifest["metrics"]]

    @property
    def sources(self) -> list[str]:
        """The systems that were judged."""
        return list(self.manifest["sources"])

    @property
    def judge(self) -> str:
        """The judge's name."""
        return str(self.manifest["judge"]["name"])


MOST = 20_000
"""Of more dialogues than so many a page is made from a sample of about as many, so that memory does not grow."""


def read_run(folder: Path, rated: Collection[str] = ()) -> Run:
    """Read a run; InputError where there is none, or it has no tables yet.

    Of very many dialogues a sample is read, in which are those that are ``rated`` (their ids) or have rationales.
    """
    manifest = read_manifest(folder)
    judgments = draw_judgments(folder, MOST, {*rated, *explained_ids(folder)}).assign(item_id=item_ids)
    sampled = judgments["item_id"].nunique() if manifest["data"]["dialogues"] > MOST else None
    text = {"judge": str, "source": str, "character": str, "metric": str}
    scheme = scheme_of(manifest)
    tables = {"diversity": pd.DataFrame({"level": [], "source": []})}
    for name in ("leaderboard", *(["diversity"] if scheme.set_metric in manifest["metrics"] else [])):
        path = folder / f"{name}.csv"
        try:
            tables[name] = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        except FileNotFoundError as error:
            advice = "is not there, as the run is not finished; give its score command again"
            raise InputError(f"{path}: {advice}") from error
        except (OSError, ValueError) as error:
            advice = "give the run's score command again"
            raise InputError(f"{path}: cannot be read ({one_line(error)}); {advice}") from error
    rationales = read_rationales(folder, judgments)
    return Run(folder, manifest, scheme, judgments, tables["leaderboard"], tables["diversity"], rationales, sampled)


DIGITS = 3
"""Decimals of the numbers of a dialogue on the page."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The dialogues on the page: ``rows`` for the script, how many there are in all, and how many lack their text."""

    rows: list[dict[str, Any]]
    total: int
    without_text: int
    why_without: str | None
    flagged: int
    """How many of all dialogues are suspicious."""


def make_entries(run: Run, most: int, ratings: pd.DataFrame | None = None) -> Entries:
    """Choose dialogues and describe them.

    Args:
        run: the run.
        most: how many at most.
        ratings: human ratings, ``item_id, metric, annotator, score``.
    """
    human = None
    if ratings is not None:
        human = ratings.groupby(["item_id", "metric"])["score"].mean().rename("human").reset_index()
    every = by_dialogue(run.judgments, human, run.rationales)
    chosen = select(every, most)
    judgments = run.judgments[run.judgments["item_id"].isin(chosen)]
    digests = dict(zip(judgments["item_id"], judgments["content_digest"], strict=True))
    texts, why = read_texts(run.folder, digests) if chosen else ({}, None)
    # Of each rated dialogue, by metric in their order, who rated it and what.
    rated: dict[str, list[list[list[Any]]]] = {}
    if ratings is not None:
        for row in ratings[ratings["item_id"].isin(chosen) & ratings["metric"].isin(run.metrics)].to_dict("records"):
            by_metric = rated.setdefault(str(row["item_id"]), [[] for _ in run.metrics])
            own = [visible(str(row["annotator"])), number(row["score"], DIGITS)]
            by_metric[run.metrics.index(row["metric"])].append(own)
    parts = {str(item): part for item, part in judgments.groupby("item_id", sort=False)}
    rows = [_entry(run, parts[item], reasons, texts.get(item), rated.get(item)) for item, reasons in chosen.items()]
    total, flagged = len(every), int(every["suspicious"].sum())
    if run.sampled is not None:
        total, flagged = run.manifest["data"]["dialogues"], run.manifest.get("suspicious", flagged)
    return Entries(rows, total, len(chosen) - len(texts), why, flagged)


def _entry(
    run: Run,
    judgments: pd.DataFrame,
    reasons: list[str],
    dialogue: Dialogue | None,
    ratings: list[list[list[Any]]] | None,
) -> dict[str, Any]:
    """A dialogue as the page's script takes it. Lists are by metric, in the run's order.

    Fields without a value are left out, as a page holds hundreds of dialogues and each field is in all of them.
    """
    rows = {row["metric"]: row for row in judgments.to_dict("records")}
    asked = [rows[metric] for metric in run.metrics]
    first = asked[0]
    levels = [run.scheme.levels[metric] for metric in run.metrics]
    chances = [numbers((row[f"p{level}"] for level in own), DIGITS) for row, own in zip(asked, levels, strict=True)]
    entry = {
        "source": visible(first["source"]),
        "character": visible(first["character"]),
        "scenario": visible(first["scenario"]),
        "why": reasons,
        "turns": dialogue
        and [
            [text if text is None else visible(text) for text in (turn.user, turn.character)] for turn in dialogue.turns
        ],
        "profile": dialogue and dialogue.profile and visible(dialogue.profile),
        "p": [None if None in own else own for own in chances],
        "score": [number(row["score"], DIGITS) for row in asked],
        "mass": [number(row["mass"], DIGITS) for row in asked],
        "error": [_text(row["error"]) for row in asked],
        "calibrated": [number(row.get("calibrated"), DIGITS) for row in asked],
        "suspicious": _text(first["suspicious"]),
        "rationale": {about: visible(text) for about, text in run.rationales.get(first["item_id"], {}).items()},
        "ratings": ratings,
    }
    empty = {name for name, value in entry.items() if isinstance(value, list) and all(part is None for part in value)}
    return {name: value for name, value in entry.items() if value and name not in empty}


def _text(value: Any) -> str | None:
    """A cell of text; None where it is empty."""
    return None if value is None or pd.isna(value) or value == "" else visible(str(value))
