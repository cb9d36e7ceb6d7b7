"""The figures of a training as tables of text, for the screen and for the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from calibration.stats.intervals import Estimate
from judge.training.figures import GAINS, JUDGES, SYSTEM, Figure

NONE = "–"
"""Where there is no value."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table as it is shown."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(figures: Sequence[Figure], system: str | None) -> Iterator[TextTable]:
    """Agreement and errors on the system that was left out, with its means, then on the held-out scenarios.

    Args:
        figures: as ``Trained.figures`` has them.
        system: the one that was left out.
    """
    for about in dict.fromkeys(one.about for one in figures):
        rows = [one for one in figures if one.about == about]
        of_system = about == SYSTEM
        what = f"the system left out, {system}" if of_system else "held-out scenarios and characters"
        if of_system:
            heads = ("metric", "people", *JUDGES)
            yield TextTable(f"Mean score of {what}", heads, _numbers(rows, "means", heads[1:]))
        yield TextTable(
            f"Spearman with the mean human ratings on {what}: "
            f"{rows[-1].dialogues:,} dialogues, {rows[-1].groups:,} scenarios",
            ("metric", *JUDGES, "people", *(f"trained − {other}" for other in GAINS)),
            tuple(
                (
                    one.metric,
                    *(number(one.spearman[name]) for name in JUDGES),
                    number(one.people.value),
                    *(gain(one.gains.get(other)) for other in GAINS),
                )
                for one in rows
            ),
        )
        heads = ("metric", *JUDGES, "constant")
        yield TextTable(
            f"Mean absolute error in points on {what}; constant: the mean of what was learned from",
            heads,
            _numbers(rows, "errors", heads[1:]),
        )


def _numbers(rows: Sequence[Figure], field: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    values: list[tuple[Figure, Mapping[str, float | None]]] = [(one, getattr(one, field)) for one in rows]
    return tuple((one.metric, *(number(of.get(name)) for name in names)) for one, of in values)


def number(value: float | None) -> str:
    """With two decimals."""
    return NONE if value is None else f"{value:.2f}"


def gain(one: Estimate | None) -> str:
    """With its sign, and its interval where there is one."""
    if one is None or one.value is None:
        return NONE
    ends = "" if one.low is None else f" ({one.low:+.2f} to {one.high:+.2f})"
    return f"{one.value:+.2f}{ends}"
