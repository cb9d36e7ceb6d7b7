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
            heads = ("metric", "annotators", *JUDGES)
            yield TextTable(f"Mean score of {what}", heads, _numbers(rows, "means", heads[1:]))
        yield TextTable(
            f"Spearman with the mean human ratings on {what}: "
            f"{rows[-1].dialogues:,} dialogues, {rows[-1].groups:,} scenarios",
            ("metric", *JUDGES, "human ceiling", *(f"trained − {other}" for other in GAINS)),
            tuple(_agreement(one, rows) for one in rows),
        )
        heads = ("metric", *JUDGES, "constant")
        yield TextTable(
            f"Mean absolute error in points on {what}; constant: the mean of what was learned from",
            heads,
            _numbers(rows, "errors", heads[1:]),
        )


def _agreement(one: Figure, rows: Sequence[Figure]) -> tuple[str, ...]:
    """The cells of a row: each judge, the human ceiling, the gains."""
    values = [
        *((number(one.spearman[name]), [row.spearman[name] for row in rows]) for name in JUDGES),
        (number(one.ceiling.value), [row.ceiling.value for row in rows]),
        *(
            (gain(one.gains.get(name)), [row.gains[name].value if name in row.gains else None for row in rows])
            for name in GAINS
        ),
    ]
    return one.metric, *(_counted(cell, one, rows, of) for cell, of in values)


def _numbers(rows: Sequence[Figure], field: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    values: list[tuple[Figure, Mapping[str, float | None]]] = [(one, getattr(one, field)) for one in rows]
    column = {name: [of.get(name) for _, of in values] for name in names}
    return tuple(
        (one.metric, *(_counted(number(of.get(name)), one, rows, column[name]) for name in names)) for one, of in values
    )


def _counted(cell: str, one: Figure, rows: Sequence[Figure], column: Sequence[float | None]) -> str:
    """A cell; a mean over some of the metrics says of how many, as means over all stand beside it."""
    of = [value is not None for row, value in zip(rows, column, strict=True) if row.metric != ALL]
    return cell if one.metric != ALL or all(of) or cell == NONE else f"{cell} [{sum(of)} of {len(of)}]"


def number(value: float | None) -> str:
    """With two decimals."""
    return NONE if value is None else f"{value:.2f}"


def gain(one: Estimate | None) -> str:
    """With its sign, and its interval where there is one."""
    if one is None or one.value is None:
        return NONE
    ends = "" if one.low is None else f" ({one.low:+.2f} to {one.high:+.2f})"
    return f"{one.value:+.2f}{ends}"
