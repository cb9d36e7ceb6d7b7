"""The figures of a training as tables of text, for the screen and for the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from calibration.stats.intervals import Estimate
from judge.training.figures import ALL, GAINS, JUDGES, SYSTEM, Figure

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
            tuple(_agreement(one, rows) for one in rows),
        )
        heads = ("metric", *JUDGES, "constant")
        yield TextTable(
            f"Mean absolute error in points on {what}; constant: the mean of what was learned from",
            heads,
            _numbers(rows, "errors", heads[1:]),
        )


def _agreement(one: Figure, rows: Sequence[Figure]) -> tuple[str, ...]:
    """The cells of a row. A mean over metrics is of those that have the figure, and says of how many, if not of all."""
    metrics = [row for row in rows if row.metric != ALL]

    def counted(cell: str, defined: Sequence[bool]) -> str:
        return (
            cell if one.metric != ALL or all(defined) or cell == NONE else f"{cell} [{sum(defined)} of {len(defined)}]"
        )

    judges = [
        counted(number(one.spearman[name]), [row.spearman[name] is not None for row in metrics]) for name in JUDGES
    ]
    gains = [
        counted(
            gain(one.gains.get(other)), [other in row.gains and row.gains[other].value is not None for row in metrics]
        )
        for other in GAINS
    ]
    people = counted(number(one.people.value), [row.people.value is not None for row in metrics])
    return one.metric, *judges, people, *gains


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
