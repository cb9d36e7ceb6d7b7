"""What the page shows as tables: leaderboards, verdicts, the judge beside human ratings, published means, and checks.

All of it is plain data (``judge.report.texts``); statistics come from ``calibration``. Of the checks (``attack``,
``probe`` and ``layouts``, where their results are in the run's folder) nothing is known but their form: a list of
records is a table, ``x_low`` and ``x_high`` are the confidence interval of ``x``, and a list of sentences is what a
reader should know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from calibration import Assessment, Pairing, rank_ranges, without_ratings
from calibration.system_means import LABELLED, NEW_SYSTEM
from judge.errors import InputError, one_line
from judge.report.load_run import Run
from judge.report.texts import Cell, Interval, Key, Sentence, Table, metric_key, number, numbers, visible
from judge.scoring.run_folder import scores_of
from judge.types import OVERALL, Scheme


@dataclass(frozen=True, slots=True)
class People:
    """A run and its human ratings; ``means`` has the systems' human means by target (``calibration.estimate``)."""

    pairing: Pairing
    assessment: Assessment
    means: pd.DataFrame

    @property
    def ratings(self) -> pd.DataFrame:
        """Every rating of an item that was judged: ``item_id, metric, annotator, score``."""
        tables = []
        for paired in self.pairing.metrics.values():
            item, annotator, score = paired.one_by_one
            columns = {
                "item_id": paired.items[item],
                "metric": paired.metric,
                "annotator": np.array(paired.annotators, dtype=object)[annotator],
                "score": score,
            }
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)


# The judge beside human ratings


def verdicts(assessment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By metric its verdict in a word and in the sentence to quote, from ``Assessment.to_dict()``."""
    return [
        {"metric": metric, "word": found["verdict"], "sentence": Sentence(found["sentence"])}
        for metric, found in assessment["metrics"].items()
    ]


def interval_of(found: Mapping[str, Any], part: str, statistic: str) -> Interval:
    """A statistic of a metric with its confidence interval, from ``Assessment.to_dict()``."""
    low, high = found[part]["intervals"].get(statistic, (None, None))
    return Interval(number(found[part].get(statistic)), number(low), number(high))


def tables_of(people: People) -> dict[str, Table]:
    """Four tables of the judge beside human ratings, a row a metric (``severity``: a row a metric and annotator).

    ``raters``: agreement among annotators. ``severity``: how much higher each rates than the others of an item.
    ``alt_test``: the alternative annotator test. ``bias``: what scores go with that they should not (length, the
    judge's own family), and how far the judge puts systems in order.
    """
    raters: list[list[Cell]] = []
    severity: list[list[Cell]] = []
    alt_test: list[list[Cell]] = []
    bias: list[list[Cell]] = []
    for metric, found in people.assessment.to_dict()["metrics"].items():
        title, own, test = metric_key(metric), found["reliability"], found["alt_test"]
        agreement = [
            interval_of(found, "reliability", "alpha_ordinal"),
            interval_of(found, "person_left_out", "spearman"),
            interval_of(found, "person_left_out", "mae"),
        ]
        raters.append([title, found["n"], own["raters"], number(own["ratings_per_item"], 2), *agreement])
        for one in own["annotators"]:
            apart = Interval(*numbers((one["severity"], one["low"], one["high"])))
            severity.append([title, str(one["annotator"]), one["n"], apart, number(one["spread"], 2)])
        outcome = Key("undecided" if test["passed"] is None else "passed" if test["passed"] else "not.passed")
        figures = numbers((test["winning_rate"], test["advantage_probability"], test["epsilon"]), 2)
        alt_test.append([title, *figures, outcome, Sentence(test["reason"]) if test["reason"] else ""])
        length = numbers((found["length"].get(name) for name in ("judge", "people", "partial")), 2)
        family = found["same_family"] or {"value": None, "low": None, "high": None}
        favour = Interval(*numbers((family["value"], family["low"], family["high"])))
        systems = interval_of(found, "system", "pairwise_accuracy")
        bias.append([title, interval_of(found, "agreement", "bias"), *length, favour, systems])
    if not any(row[-1] for row in alt_test):  # the test was done on every metric: no column of reasons
        alt_test = [row[:-1] for row in alt_test]
    heads = {
        "raters": ["metric", "items", "raters", "per.item", "alpha", "person.spearman", "person.mae"],
        "severity": ["metric", "annotator", "ratings", "severity", "spread"],
        "alt_test": ["metric", "winning_rate", "advantage", "epsilon", "outcome", "reason"],
        "bias": ["metric", "bias", "length.judge", "length.people", "length.partial", "family", "pairs.of.systems"],
    }
    rows = {"raters": raters, "severity": severity, "alt_test": alt_test, "bias": bias}
    return {
        name: Table([Key(head) for head in heads[name][: len(rows[name][0]) if rows[name] else None]], rows[name])
        for name in heads
    }


# Systems

LINE = (3.0, 97.0)
"""Where the lowest and the highest end of a leaderboard's intervals are drawn, in parts of a hundred."""


LEAST_WIDTH = 0.1
"""Points of the scale that the line of a leaderboard spans at least."""


def leaderboards(run: Run, people: People | None) -> dict[str, list[dict[str, Any]]]:
    """By metric, dimension and overall, the overall mean first: a row a system, best first.

    A row has ``source, mean, drawn`` (where value and interval are drawn), ``rank, rank_low, rank_high, n, missing``
    and, with human ratings, ``labelled`` and ``new``: the human mean by target.
    """
    ranks: dict[str, dict[str, dict[Any, Any]]] = {}
    if run.judgments["score"].notna().any():
        pairing = without_ratings(
            scores_of(run.judgments, run.scheme), scale=run.scheme.scales, composites=run.scheme.composites
        )
        for name, one in pairing.metrics.items():
            ranks[name] = {row["source"]: row for row in rank_ranges(one).to_dict("records")}
    targets = {
        (row["metric"], row["source"], row["target"]): Interval(*numbers(row[end] for end in ("mean", "low", "high")))
        for row in ([] if people is None else people.means.to_dict("records"))
    }
    boards: dict[str, list[dict[str, Any]]] = {}
    for metric in sorted(run.scheme.columns(run.metrics), key=lambda name: name != OVERALL):
        board = run.leaderboard[run.leaderboard["metric"] == metric]
        # Intervals are drawn on one line for all systems, from the lowest end to the highest.
        known = board[["mean", "low", "high"]].to_numpy(float)
        known = known[np.isfinite(known)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        width = max(high - low, LEAST_WIDTH)
        boards[metric] = []
        for row in board.sort_values(["mean", "source"], ascending=[False, True]).to_dict("records"):
            source, ends = row["source"], [row[name] for name in ("mean", "low", "high")]
            own = ranks.get(metric, {}).get(source, {})
            places = {name: number(own.get(name)) for name in ("rank", "rank_low", "rank_high")}
            boards[metric].append(
                {
                    "source": source,
                    "mean": Interval(*numbers(ends)),
                    "drawn": [
                        None if pd.isna(end) else round(LINE[0] + (LINE[1] - LINE[0]) * (end - low) / width, 2)
                        for end in ends
                    ],
                    **{name: None if place is None else int(place) for name, place in places.items()},
                    "labelled": targets.get((metric, source, LABELLED)),
                    "new": targets.get((metric, source, NEW_SYSTEM)),
                    "n": int(row["n"]),
                    "missing": int(row["missing"]),
                }
            )
    return boards


def published_table(found: pd.DataFrame, scheme: Scheme) -> Table:
    """A run's means beside published ones, from ``calibration.agreement_with_published``."""
    columns = {"sources": "sources.count", "decided": "pairs.decided", "alike": "pairs.alike", "p_value": "p.value",
               "spearman": "spearman", "pearson": "pearson"}  # fmt: skip

    def place(names: pd.Series[str]) -> pd.Series[int]:
        """Metrics of dialogues in their order; behind them what is of a system."""
        order = list(scheme.metrics)
        return names.map(lambda name: order.index(name) if name in order else len(order))

    def count(value: float) -> int | float | None:
        """A count, which may be a half, as a tie counts."""
        known = number(value, 1)
        return int(known) if known is not None and known.is_integer() else known

    rows: list[list[Cell]] = []
    for row in found.sort_values("metric", key=place, kind="stable").to_dict("records"):
        counts = [count(row[name]) for name in ("sources", "decided", "alike")]
        rows.append([metric_key(row["metric"]), *counts, *numbers((row[n] for n in list(columns)[3:]), 3)])
    return Table([Key("metric"), *(Key(key) for key in columns.values())], rows)


# How the judge was trained


@dataclass(frozen=True, slots=True)
class Training:
    """What ``train`` noted of the judge, and its figures as tables by title."""

    facts: Mapping[str, Any]
    tables: list[tuple[Key, Table]]


def training_of(run: Run) -> Training | None:
    """How the run's judge was trained, as the manifest has it; None where ``train`` did not make it."""
    noted = run.manifest["judge"].get("training")
    if noted is None:
        return None
    system = {"system": visible(str(noted["split"]["left_out_system"]))}
    tables = []
    for about in dict.fromkeys(one["about"] for one in noted["figures"]):
        rows = [one for one in noted["figures"] if one["about"] == about]
        for kind in ("means", "spearman", "errors"):
            if kind == "means" and about != "system":
                continue
            columns = {f"training.{name}": [one[kind].get(name) for one in rows] for one in rows for name in one[kind]}
            if kind == "spearman":
                columns["training.ceiling"] = [one["ceiling"] for one in rows]
                for name in dict.fromkeys(name for one in rows for name in one["gains"]):
                    columns[f"training.gain.{name}"] = [one["gains"].get(name) for one in rows]
            heads = [Key("metric"), *map(Key, columns)]
            names = [_metric(one["metric"], run.scheme) for one in rows]
            cells = zip(names, *map(_training_column, columns.values()), strict=True)
            tables.append((Key(f"training.{kind}.{about}", system), Table(heads, list(map(list, cells)))))
    return Training(noted, tables)


def _metric(name: str, scheme: Scheme) -> Cell:
    known = name in (*scheme.metrics, *scheme.composites)
    return metric_key(name) if known else Key("training.all")


def _training_column(values: Sequence[Any]) -> list[Cell]:
    """Numbers and intervals as cells; the last one, a mean of the others, only where all of these have a value."""
    cells: list[Cell] = []
    for value in values:
        ends = [number(value[name]) for name in ("value", "low", "high")] if isinstance(value, Mapping) else None
        cells.append(number(value) if ends is None else Interval(*ends))
    known = [(cell.value if isinstance(cell, Interval) else cell) is not None for cell in cells]
    return cells if all(known) else [*cells[:-1], None]


# Checks

FILES = {"attack": "attack.json", "probe": "probe.json", "layouts": "layouts.csv"}
"""What ``--out`` of a command writes, by the command."""


VALUES = ("value", "change", "mean")
"""Columns whose interval is called ``low`` and ``high`` alone."""


DIGITS = 3
"""Decimals of a check's numbers."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one command found: tables by name, sentences, and a warning where it is not known to be of this judge."""

    name: str
    tables: dict[str, Table]
    sentences: tuple[Sentence, ...]
    warning: Key | None


def read_checks(run: Run) -> list[Check]:
    """Every check whose file is in the run's folder; InputError where one cannot be read."""
    checks = []
    for name, file in FILES.items():
        path = run.folder / file
        if not path.is_file():
            continue
        try:
            if path.suffix == ".csv":  # of layouts: the rows over all metrics, without the columns that are empty there
                table = pd.read_csv(path)
                overall = table[table["metric"] == OVERALL].dropna(axis="columns", how="all").drop(columns="metric")
                found = {"variants": json.loads(overall.to_json(orient="records"))}
            else:
                found = json.loads(path.read_text(encoding="utf-8"))
            tables = {
                str(title): table_of(rows, run.scheme)
                for title, rows in found.items()
                if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
            }
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)}); write it again or remove it") from error
        sentences = [Sentence(str(one)) for key in ("sentences", "remarks") for one in found.get(key) or ()]
        warning = None
        if "judge_id" not in found:
            warning = Key("check.unknown.judge")
        elif found["judge_id"] != run.manifest["judge"]["judge_id"]:
            warning = Key("check.other.judge", {"judge": str(found.get("judge"))})
        checks.append(Check(name, tables, tuple(sentences), warning))
    return checks


def table_of(records: list[dict[str, Any]], scheme: Scheme) -> Table:
    """Records as a table, a column a name; intervals stand beside their values and have no columns of their own."""
    names = list(dict.fromkeys(name for record in records for name in record))
    plain = next((one for one in VALUES if one in names), None)
    ends = {}
    for name in names:
        if {f"{name}_low", f"{name}_high"} <= set(names):
            ends[name] = (f"{name}_low", f"{name}_high")
        elif name == plain and {"low", "high"} <= set(names):
            ends[name] = ("low", "high")
    shown = [name for name in names if not any(name in pair for pair in ends.values())]

    def cell(record: Mapping[str, Any], name: str) -> Cell:
        value = record.get(name)
        if name in ends:
            return Interval(*(number(record.get(one), DIGITS) for one in (name, *ends[name])))
        if isinstance(value, str):
            known = (*scheme.metrics, *scheme.composites)
            return metric_key(value) if name == "metric" and value in known else Sentence(value)
        if isinstance(value, float):
            return number(value, DIGITS)
        return value if value is None or isinstance(value, int) else json.dumps(value, ensure_ascii=False)

    return Table(shown, [[cell(record, name) for name in shown] for record in records])
