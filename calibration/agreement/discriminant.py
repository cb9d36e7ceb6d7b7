"""Discriminant validity: does a judge's metric go with people's same metric, or with all of them alike (halo)?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from calibration.agreement.association import spearman
from calibration.paired import Paired
from calibration.resampling import Floats

__all__ = ["Discriminant", "discriminant_validity"]

MIN_ITEMS = 3


@dataclass(frozen=True, slots=True)
class Discriminant:
    """The multitrait matrix of a judge and people (Campbell and Fiske 1959), in Spearman correlations over items."""

    matrix: pd.DataFrame
    """Judge's metrics by people's metrics; NaN where under three items have both or one side is constant."""
    own_is_highest: float | None
    """The share of the judge's metrics that go with people's same metric more than with any other."""
    judge_halo: float | None
    """The mean correlation among the judge's metrics."""
    human_halo: float | None
    """That among people's."""


def discriminant_validity(metrics: Mapping[str, Paired]) -> Discriminant | None:
    """The matrix over rated items; None for a single metric, which has nothing to be told from."""
    rated = {name: paired.labelled for name, paired in metrics.items()}
    if len(rated) < 2:
        return None
    judge = pd.DataFrame({name: pd.Series(one.judge, one.items) for name, one in rated.items()})
    human = pd.DataFrame({name: pd.Series(one.human, one.items) for name, one in rated.items()})
    weights = pd.DataFrame({name: pd.Series(one.weights, one.items) for name, one in rated.items()}).max(axis=1)
    matrix = _matrix(judge, human, weights)
    return Discriminant(matrix, _own_is_highest(matrix), *(_halo(_matrix(one, one, weights)) for one in (judge, human)))


def _matrix(rows: pd.DataFrame, columns: pd.DataFrame, weights: pd.Series[float]) -> pd.DataFrame:
    cells = [[_correlation(rows[row], columns[column], weights) for column in columns] for row in rows]
    return pd.DataFrame(cells, index=list(rows), columns=list(columns))


def _correlation(x: pd.Series[float], y: pd.Series[float], weights: pd.Series[float]) -> float:
    both = (x.notna() & y.notna()).to_numpy()
    if both.sum() < MIN_ITEMS:
        return float("nan")
    return float(spearman(*(_floats(one)[both] for one in (x, y, weights))))


def _floats(column: pd.Series[float]) -> Floats:
    return np.asarray(column, dtype=float)


def _own_is_highest(matrix: pd.DataFrame) -> float | None:
    """Over the metrics that can be compared with their own and with another."""
    rows = {str(name): row.dropna() for name, row in matrix.iterrows()}
    told = [row[name] > row.drop(name).max() for name, row in rows.items() if name in row.index and len(row) > 1]
    return float(np.mean(told)) if told else None


def _halo(matrix: pd.DataFrame) -> float | None:
    others = matrix.to_numpy()[~np.eye(len(matrix), dtype=bool)]
    return float(np.nanmean(others)) if np.isfinite(others).any() else None
