"""What a dialogue's annotators gave, as the distribution over levels that a judge is to answer with.

A distribution and not a mean: where annotators disagree, the judge learns how far. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsqr

from judge.errors import InputError
from judge.types import Dialogue, Scheme, digest

DOUBT = 2.0
"""Of so many ratings an annotator's severity is halved: it is not known yet, and by default nobody is severe."""


@dataclass(frozen=True, slots=True)
class RatedDialogue:
    """One dialogue, and what its annotators gave."""

    dialogue: Dialogue
    group: str
    """What it is held out with: the group of its ratings, or its scenario."""
    targets: dict[str, tuple[float, ...]]
    """Of each rated metric: the share of its annotators at each of its levels, upwards."""
    weight: float
    """1 / inclusion probability, scaled to a mean of 1 over all rated dialogues; 1 where none is given."""


def soft_target(scores: Sequence[float], levels: Sequence[int]) -> tuple[float, ...]:
    """The share of scores at each level; a score between two levels counts for both, by how near it is to each.

    Args:
        scores: from the lowest level to the highest, at least one.
        levels: upwards.
    """
    unit = np.eye(len(levels))
    shares = np.mean([[np.interp(score, levels, row) for row in unit] for score in scores], axis=0)
    return tuple(float(share) for share in shares)


def rated_dialogues(
    dialogues: Iterable[Dialogue], ratings: pd.DataFrame, scheme: Scheme, notes: list[str]
) -> list[RatedDialogue]:
    """The dialogues that were rated and can be judged, in their order, with their targets.

    A metric on which all scores are equal is left out, since a judge could learn nothing but that number.

    Args:
        dialogues: with ids as ``item_id`` of the ratings.
        ratings: as ``calibration.read_ratings`` returns them.
        scheme: what the rubric rates.
        notes: is added what a reader should know, a sentence each.

    Raises:
        InputError: nothing is left to learn from.
    """
    ratings = ratings[ratings["metric"].isin(scheme.metrics)]
    differing = ratings.groupby("metric")["score"].nunique()
    constant = sorted(str(metric) for metric in differing.index[differing == 1])
    if constant:
        notes.append(f"Left out, as all scores on it are equal: {', '.join(constant)}.")
        ratings = ratings[~ratings["metric"].isin(constant)]
    if ratings.empty:
        raise InputError("--annotations: no metric has scores that differ, so there is nothing to learn; rate more")
    if ratings["annotator"].nunique() == 1:
        notes.append("All ratings are by one annotator: the judge learns to agree with that one.")
    given = _targets(ratings, scheme)
    first = ratings.drop_duplicates("item_id").set_index("item_id")
    if "inclusion_probability" in ratings:
        chances = ratings.groupby("item_id")["inclusion_probability"].nunique(dropna=False)
        for item in chances.index[chances > 1][:1]:
            raise InputError(
                f"--annotations: item {item!r} has two inclusion probabilities, and a judge learns all metrics of a "
                "dialogue together; give it one"
            )
    weights = 1 / first["inclusion_probability"] if "inclusion_probability" in first else None
    rated, unanswered = [], 0
    for dialogue in dialogues:
        if dialogue.id not in given:
            continue
        if not dialogue.is_answered:
            unanswered += 1
            continue
        group = str(first["group"][dialogue.id])
        rated.append(
            RatedDialogue(
                dialogue,
                dialogue.scenario if group == dialogue.id else group,
                given[dialogue.id],
                1.0 if weights is None else float(weights[dialogue.id]),
            )
        )
    if unanswered:
        notes.append(f"Rated dialogues left out, as a reply in them is blank: {unanswered:,}.")
    if lost := len(given) - len(rated) - unanswered:
        notes.append(f"Rated dialogues that are not among the data: {lost:,} of {len(given):,}.")
    if not rated:
        raise InputError("--annotations: no dialogue of the data is rated; check how both name them")
    mean = float(np.mean([one.weight for one in rated]))
    return [replace(one, weight=one.weight / mean) for one in rated]


def _targets(ratings: pd.DataFrame, scheme: Scheme) -> dict[str, dict[str, tuple[float, ...]]]:
    """The targets of each rated item, metrics in their order."""
    each = ratings.groupby(["item_id", "metric", "annotator"], sort=False)["score"].mean().reset_index()
    given: dict[str, dict[str, tuple[float, ...]]] = {}
    for metric, levels in scheme.levels.items():
        for item, scores in each[each["metric"] == metric].groupby("item_id", sort=False)["score"]:
            given.setdefault(str(item), {})[metric] = soft_target(scores.tolist(), levels)
    return given


def severities(ratings: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How much higher than others each annotator rates the same items, in points, by metric; below 0 is strict.

    Ridge regression of ratings on their item and their annotator: additive, as in a two-way analysis of variance, and
    drawn towards 0 by ``DOUBT``. An annotator who shares no item with another has 0.

    Args:
        ratings: as ``calibration.read_ratings`` returns them.
    """
    found = {}
    for metric, part in ratings.groupby("metric", sort=False):
        item, (annotator, names) = pd.factorize(part["item_id"])[0], pd.factorize(part["annotator"])
        count = np.bincount(item)[item]
        rows = np.arange(len(part))
        own = csr_array((np.ones(len(part)), (rows, annotator)), shape=(len(part), len(names)))
        # Less the mean of the item's row, so that what the item deserves needs no unknown of its own.
        of_item = csr_array((np.ones(len(part)), (item, rows)), shape=(item.max() + 1, len(part)))
        share = csr_array((1 / count, (rows, item)), shape=(len(part), item.max() + 1))
        score = part["score"].to_numpy(float)
        left = score - share @ (of_item @ score)
        severity = lsqr(own - share @ (of_item @ own), left, damp=DOUBT**0.5)[0]
        found[str(metric)] = {str(name): float(value) for name, value in zip(names, severity, strict=True)}
    return found


def without_severity(
    rated: Sequence[RatedDialogue],
    ratings: pd.DataFrame,
    found: Mapping[str, Mapping[str, float]],
    scheme: Scheme,
) -> tuple[RatedDialogue, ...]:
    """The same dialogues with targets from ratings less their annotators' severity, as far as the scale goes.

    Args:
        rated: the dialogues.
        ratings: theirs, and perhaps of others.
        found: by metric and annotator, as ``severities`` returns them; 0 where an annotator is not in it.
        scheme: what the rubric rates.
    """
    slots = zip(ratings["metric"], ratings["annotator"], strict=True)
    severe = [found.get(metric, {}).get(annotator, 0.0) for metric, annotator in slots]
    given = _targets(ratings.assign(score=ratings["score"] - severe), scheme)
    return tuple(
        replace(one, targets={metric: given[one.dialogue.id][metric] for metric in one.targets}) for one in rated
    )


def data_digest(rated: Sequence[RatedDialogue]) -> str:
    """Hash of all that is learned from: names, texts, groups, targets and weights (32 hexadecimal digits)."""
    return digest([[one.dialogue.id, one.dialogue.content_digest, one.group, one.targets, one.weight] for one in rated])
