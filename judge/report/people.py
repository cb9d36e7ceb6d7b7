"""The judge beside people: verdicts, and tables of raters, the alternative annotator test and what scores lean on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from calibration import Assessment, Paired, Pairing
from judge.report.figures import metric_key
from judge.report.values import Cell, Interval, Key, Table, number, numbers


@dataclass(frozen=True, slots=True)
class People:
    """A run put beside people's ratings; ``means`` has the systems' means by target (``calibration.estimate``)."""

    pairing: Pairing
    assessment: Assessment
    means: pd.DataFrame

    @property
    def ratings(self) -> pd.DataFrame:
        """Every rating of an item that was judged: ``item_id, metric, annotator, score``."""
        return pd.concat([_ratings(one) for one in self.pairing.metrics.values()], ignore_index=True)


def _ratings(paired: Paired) -> pd.DataFrame:
    item, annotator = np.nonzero(np.isfinite(paired.ratings))
    names = np.array(paired.annotators, dtype=object)[annotator]
    scores = paired.ratings[item, annotator]
    return pd.DataFrame({"item_id": paired.items[item], "metric": paired.metric, "annotator": names, "score": scores})


def verdicts(assessment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By metric the verdict, the sentence to quote, and the figures it rests on; from ``Assessment.to_dict()``."""
    return [
        {
            "metric": metric,
            "word": found["verdict"],
            "sentence": found["sentence"],
            "n": found["n"],
            "spearman": interval_of(found, "agreement", "spearman"),
            "person": interval_of(found, "person_left_out", "spearman"),
            "systems": interval_of(found, "system", "pairwise_accuracy"),
            "mae": number(found["agreement"]["mae"]),
            "constant": number(found["constant"]["mae"]),
        }
        for metric, found in assessment["metrics"].items()
    ]


def interval_of(found: Mapping[str, Any], part: str, statistic: str) -> Interval:
    """A statistic of a metric with its interval, from ``Assessment.to_dict()``."""
    low, high = found[part]["intervals"].get(statistic, (None, None))
    return Interval(number(found[part].get(statistic)), number(low), number(high))


def tables_of(people: People) -> dict[str, Table]:
    """Tables of a judge beside people: raters, annotators, the alternative annotator test, what scores lean on."""
    metrics = people.assessment.to_dict()["metrics"]
    return {
        "raters": _raters(metrics),
        "severity": _severity(metrics),
        "alt_test": _alt_test(metrics),
        "bias": _bias(metrics),
    }


def _raters(metrics: Mapping[str, Any]) -> Table:
    heads = ["metric", "items", "raters", "per.item", "alpha", "person.spearman", "person.mae"]
    rows: list[list[Cell]] = []
    for metric, found in metrics.items():
        own = found["reliability"]
        rows.append(
            [
                metric_key(metric),
                found["n"],
                own["raters"],
                number(own["ratings_per_item"], 2),
                interval_of(found, "reliability", "alpha_ordinal"),
                interval_of(found, "person_left_out", "spearman"),
                interval_of(found, "person_left_out", "mae"),
            ]
        )
    return Table([Key(head) for head in heads], rows)


def _severity(metrics: Mapping[str, Any]) -> Table:
    """Of every annotator on every metric, how much higher they rate than the others of an item."""
    rows: list[list[Cell]] = [
        [metric_key(metric), str(one["annotator"]), one["n"],
         Interval(*numbers((one["severity"], one["low"], one["high"]))), number(one["spread"], 2)]
        for metric, found in metrics.items()
        for one in found["reliability"]["annotators"]
    ]  # fmt: skip
    return Table([Key(head) for head in ("metric", "annotator", "ratings", "severity", "spread")], rows)


def _alt_test(metrics: Mapping[str, Any]) -> Table:
    rows: list[list[Cell]] = []
    for metric, found in metrics.items():
        test = found["alt_test"]
        passed = Key("undecided" if test["passed"] is None else "passed" if test["passed"] else "not.passed")
        figures = numbers((test["winning_rate"], test["advantage_probability"], test["epsilon"]), 2)
        rows.append([metric_key(metric), *figures, passed, test["reason"] or ""])
    heads = ["metric", "winning_rate", "advantage", "epsilon", "outcome", "reason"]
    told = len(heads) if any(row[-1] for row in rows) else len(heads) - 1
    return Table([Key(head) for head in heads[:told]], [row[:told] for row in rows])


def _bias(metrics: Mapping[str, Any]) -> Table:
    """What scores go with that they should not: length, the judge's own family; and systems put in order."""
    heads = ["metric", "bias", "length.judge", "length.people", "length.partial", "family", "pairs.of.systems"]
    rows: list[list[Cell]] = []
    for metric, found in metrics.items():
        length = numbers((found["length"].get(name) for name in ("judge", "people", "partial")), 2)
        own = found["same_family"] or {"value": None, "low": None, "high": None}
        family = Interval(*numbers((own["value"], own["low"], own["high"])))
        systems = interval_of(found, "system", "pairwise_accuracy")
        rows.append([metric_key(metric), interval_of(found, "agreement", "bias"), *length, family, systems])
    return Table([Key(head) for head in heads], rows)
