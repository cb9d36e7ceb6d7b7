"""Names that differ in case, width or blanks are one, in dialogues, ratings and options; what was joined is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.commands import Result, refused, typed

SYSTEMS, CHARACTERS, SCENARIOS, METRICS = ("GPT-4", "Qwen"), ("Anna", "爱丽丝"), range(4), ("fluency", "coherency")


def dialogues(spelled: Callable[[dict[str, str]], dict[str, str]] = lambda row: row) -> list[dict[str, str]]:
    return [
        spelled(
            {"source": s, "character": c, "scenario": f"{n}", "question_r1": f"问 {n}", "answer_r1": f"{s} {c} {n}"}
        )
        for s in SYSTEMS
        for c in CHARACTERS
        for n in SCENARIOS
    ]


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def other(row: dict[str, str]) -> dict[str, str]:
    """Every second dialogue with its names in another case, full width, or with blanks."""
    if int(row["scenario"]) % 2 == 0:
        return row
    full_width = row["character"].translate({n: n + 0xFEE0 for n in range(33, 127)}).replace("爱丽", "爱　丽")
    return {**row, "source": f" {row['source'].lower()}", "character": f"{full_width}　"}


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over dialogues whose names are spelled in two ways."""
    folder = tmp_path_factory.mktemp("spelled")
    result = score(written(folder / "a.jsonl", dialogues(other)), folder / "run", "--metrics", "流畅性, Coherency ")
    assert result.returncode == 0
    assert "source 'gpt-4' was read as 'GPT-4' (dialogues: 4)" in result.stderr
    assert "character 'Ａｎｎａ' was read as 'Anna' (dialogues: 4)" in result.stderr
    assert r"character '爱\u3000丽丝' was read as '爱丽丝' (dialogues: 4)" in result.stderr
    return folder / "run"


def score(data: Path, run: Path, *more: str) -> Result:
    return typed("score", data, "--judge", "stand-in", "--run", run, "--no-report", *more, cwd=data.parent)


def test_two_spellings_are_one_system_and_one_character(run: Path) -> None:
    table = pd.read_csv(run / "scores.csv", dtype=str)
    assert set(table["source"]) == set(SYSTEMS) and set(table["character"]) == set(CHARACTERS)
    assert set(pd.read_csv(run / "leaderboard.csv")["metric"]) == set(METRICS)
    shown = typed("data", "preview", run.parent / "a.jsonl", cwd=run.parent)
    assert "systems (2): GPT-4, Qwen" in shown.stdout and "source 'qwen' was read as 'Qwen'" in shown.stdout


def test_two_systems_that_differ_in_case_only_are_refused_with_a_remedy_that_works(tmp_path: Path) -> None:
    rows = dialogues()[:4] + [{**row, "source": "gpt-4"} for row in dialogues()[:4]]
    result = score(written(tmp_path / "a.jsonl", rows), tmp_path / "run", "--metrics", "fluency")
    assert result.returncode == 2
    assert (
        "source 'gpt-4' was read as 'GPT-4'; remove one, or give the two names that differ in letters" in result.stderr
    )
    renamed = rows[:4] + [{**row, "source": "gpt-4-small"} for row in rows[4:]]
    assert score(written(tmp_path / "a.jsonl", renamed), tmp_path / "run", "--metrics", "fluency").returncode == 0


def test_options_name_systems_characters_and_metrics_in_any_spelling(run: Path, tmp_path: Path) -> None:
    few = ("--sources", "gpt-4", "--characters", "ＡＮＮＡ", "--metrics", "Ｆluency")
    assert score(run.parent / "a.jsonl", tmp_path / "run", *few).returncode == 0
    table = pd.read_csv(tmp_path / "run" / "scores.csv", dtype=str)
    assert set(table["source"] + table["character"]) == {"GPT-4Anna"}
    result = typed("compare", run, "gpt-4", "QWEN ", "--json", cwd=tmp_path)
    assert result.returncode == 0 and '"GPT-4"' in result.stdout
    refused(typed("compare", run, "gpt-5", "Qwen", cwd=tmp_path), "no source 'gpt-5' (found: GPT-4, Qwen)")


def ratings(folder: Path, spelled: Callable[[dict[str, str]], dict[str, str]]) -> Path:
    rows = [
        {**spelled({name: row[name] for name in ("source", "character", "scenario")}), "metric": m, "annotator": a,
         "score": 1 + (len(row["answer_r1"]) + n + len(m) + len(a)) % 5}
        for n, row in enumerate(dialogues())
        for m in METRICS
        for a in ("anna", "bo")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "ratings.csv", index=False)
    return folder / "ratings.csv"


@pytest.mark.parametrize(
    "spelled",
    [
        other,
        lambda row: {**row, "source": row["source"].upper()},
        lambda row: {
            "source": row["source"].lower(),
            "item_id": f"{row['source']}/{row['character']}/{row['scenario']} ",
        },
    ],
)
def test_ratings_under_other_spellings_are_those_of_the_run(
    run: Path, tmp_path: Path, spelled: Callable[[dict[str, str]], dict[str, str]]
) -> None:
    def agree(table: Path) -> dict[str, object]:
        result = typed("agree", run, "--annotations", table, "--json", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    plain = agree(ratings(tmp_path, lambda row: row))
    found = agree(ratings(tmp_path, spelled))
    assert found["metrics"] == plain["metrics"]
    said = [text for text in found["remarks"] if text not in plain["remarks"]]  # type: ignore[union-attr, operator]
    assert all(text.startswith("Items written otherwise") for text in said)


def test_an_item_that_an_annotator_rated_under_two_spellings_is_refused(run: Path, tmp_path: Path) -> None:
    table = pd.read_csv(ratings(tmp_path, lambda row: row), dtype=str)
    again = table[table["source"] == "Qwen"].assign(source="qwen", score="1")
    pd.concat([table, again]).to_csv(tmp_path / "twice.csv", index=False)
    how = ("agree", run, "--annotations", "twice.csv")
    refused(typed(*how, cwd=tmp_path), "annotator 'anna' rated 'qwen/Anna/0' and 'Qwen/Anna/0'", "keep one of the two")
    table.to_csv(tmp_path / "twice.csv", index=False)
    assert typed(*how, cwd=tmp_path).returncode == 0


def test_ratings_from_1_to_7_beside_a_run_from_1_to_5_are_not_compared_as_they_are(run: Path, tmp_path: Path) -> None:
    table = pd.read_csv(ratings(tmp_path, lambda row: row))
    table.assign(score=[1 + n % 7 for n in range(len(table))]).to_csv(tmp_path / "seven.csv", index=False)
    how = ("agree", run, "--annotations", "seven.csv", "--json")
    refused(typed(*how, cwd=tmp_path), "off the scale: they go from 1 to 7", "--scale LOWEST-HIGHEST, such as 1-7")
    result = typed(*how, "--scale", "1-7", cwd=tmp_path)
    said = [text for text in json.loads(result.stdout)["remarks"] if "differences mean nothing" in text]
    assert [text.split()[1] for text in said] == list(METRICS)


def test_a_table_of_scores_without_systems_takes_the_only_one_that_was_rated(tmp_path: Path) -> None:
    rated = pd.read_csv(ratings(tmp_path, lambda row: row), dtype=str)
    scores = rated[rated["annotator"] == "bo"].drop(columns="annotator")
    scores[scores["source"] == "Qwen"].drop(columns="source").to_csv(tmp_path / "scores.csv", index=False)
    how = ("agree", "scores.csv", "--annotations", "ratings.csv")
    refused(typed(*how, cwd=tmp_path), "no column 'source'", "several systems (GPT-4, Qwen); add the column")
    rated[rated["source"] == "Qwen"].to_csv(tmp_path / "one.csv", index=False)
    assert typed("agree", "scores.csv", "--annotations", "one.csv", cwd=tmp_path).returncode == 0
    scores.to_csv(tmp_path / "scores.csv", index=False)  # with the column, as the message says
    assert typed(*how, cwd=tmp_path).returncode == 0


def test_of_very_many_spellings_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    rows = [{**row, "character": f"c{n}{c}", "scenario": f"{n}"} for n, row in enumerate(dialogues()) for c in "aA"]
    rows = [{**row, "scenario": f"{n}"} for n, row in enumerate(rows)]
    result = typed("data", "preview", written(tmp_path / "a.jsonl", rows), "--json", cwd=tmp_path)
    said = json.loads(result.stdout)["warnings"]
    assert len([text for text in said if "was read as" in text]) == 10
    assert "characters in other spellings: 6 more" in said
