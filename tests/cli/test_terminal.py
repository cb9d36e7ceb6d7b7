"""What a person sees: every number of a table at every width, and nothing that a terminal would obey."""

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from judge.cli.score import leaderboard_table
from judge.prompting.rubric import load_rubric
from judge.scoring.run import Result
from judge.types import OVERALL
from tests.helpers.chatanime import DIMENSIONS, METRICS


def printed(width: int, columns: tuple[str, ...] = (*METRICS, *DIMENSIONS, OVERALL), source: str = "gpt-4.1") -> str:
    rows = [
        {"judge": "J", "source": name, "metric": column, "mean": i + 1.0 + k / 100, "low": i + 0.75, "high": i + 1.25}
        for i, name in enumerate(["worst", source])
        for k, column in enumerate(columns)
    ]
    result = Result(Path("run"), "J", 0, {}, 0, pd.DataFrame(rows), pd.DataFrame())
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(leaderboard_table(result, load_rubric("zh").scheme, width))
    return console.export_text()


def test_a_wide_terminal_shows_every_metric() -> None:
    text = printed(120)
    assert all(metric.title in text for metric in load_rubric("zh").metrics.values())
    assert all(f"2.{k:02d}" in text for k in range(9))


def test_a_narrow_terminal_shows_the_dimensions() -> None:
    text = printed(80)
    assert all(title in text for title in load_rubric("zh").texts.dimensions.values())
    assert all(f"2.{k:02d}" in text for k in range(9, 12))


@pytest.mark.parametrize("width", [80, 120])
def test_the_best_source_stands_first_with_its_interval(width: int) -> None:
    text = printed(width)
    assert text.index("gpt-4.1") < text.index("worst")
    assert "2.12 ±0.25" in text


def test_metrics_alone_are_shown_where_no_dimension_is_whole() -> None:
    assert "流畅性" in printed(80, ("fluency",)) and "2.00" in printed(80, ("fluency",))


def test_a_name_cannot_command_the_terminal() -> None:
    assert "\x1b" not in printed(120, source="a\x1b[31mb")
