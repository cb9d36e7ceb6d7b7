"""Tables of ratings as people have them: each is read with the right numbers, or refused with cause and remedy."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import calibration
from calibration import TableError, pair, read_scores
from judge.report.texts import sentence_patterns


def read_ratings(path: Path, scale: Any = (1, 5), **more: Any) -> pd.DataFrame:
    """Ratings from 1 to 5."""
    return calibration.read_ratings(path, scale, **more)


openpyxl = pytest.importorskip("openpyxl")

TITLES = {"fluency": "fluency", "流畅性": "fluency", "Fluency": "fluency", "empathy": "empathy", "共情": "empathy"}
"""Metrics as a judge's side knows them: by id, and by titles in both languages."""
LONG = pd.DataFrame(
    [(item, "s1", metric, who, score)
     for item, of_item in {"i1": "4534", "i2": "2213"}.items()
     for (metric, who), score in zip(
         [(m, w) for m in ("fluency", "empathy") for w in ("anna", "bo")], map(int, of_item), strict=True)],
    columns=["item_id", "source", "metric", "annotator", "score"],
)  # fmt: skip
"""Two items, two metrics, two annotators: eight ratings, which every shape below holds."""
EXPECTED = {(row.item_id, row.metric, row.annotator): float(row.score) for row in LONG.itertuples()}


def read(path: Path, **options: Any) -> tuple[dict[tuple[str, str, str], float], list[str]]:
    """Ratings by item, metric and annotator; and what is said of them."""
    notes: list[str] = []
    table = read_ratings(path, metrics=TITLES, notes=notes, **options)
    rows = zip(table["item_id"], table["metric"], table["annotator"], table["score"], strict=True)
    found = {(item, metric, who): score for item, metric, who, score in rows}
    assert len(found) == len(table)
    return found, notes


def refusal(path: Path, **options: Any) -> str:
    """The one line in which a file is refused, without its name."""
    with pytest.raises(TableError) as caught:
        read_ratings(path, **{"metrics": TITLES, **options})
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    return said.removeprefix(f"{path}: ")


def by_metric(titles: dict[str, str] | None = None) -> pd.DataFrame:
    """A column a metric."""
    wide = LONG.pivot(index=["item_id", "source", "annotator"], columns="metric", values="score").reset_index()
    return wide.rename(columns=titles or {}).rename_axis(columns=None)


def by_annotator() -> pd.DataFrame:
    """A column an annotator."""
    wide = LONG.pivot(index=["item_id", "source", "metric"], columns="annotator", values="score").reset_index()
    return wide.rename_axis(columns=None)


def workbook(path: Path, **sheets: pd.DataFrame) -> Path:
    with pd.ExcelWriter(path) as writer:
        for name, table in sheets.items():
            table.to_excel(writer, sheet_name=name, index=False)
    return path


def csv_of(table: pd.DataFrame, path: Path, encoding: str = "utf-8", **how: Any) -> Path:
    path.write_bytes(table.to_csv(index=False, **how).encode(encoding))
    return path


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ratings/t.csv", LONG.to_csv(index=False))
    return path


def bytes_at(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


SHAPES = {
    "csv": lambda at: csv_of(LONG, at / "t.csv"),
    "tsv": lambda at: csv_of(LONG, at / "t.tsv", sep="\t"),
    "csv with semicolons": lambda at: csv_of(LONG, at / "t.csv", sep=";"),
    "csv with a byte order mark": lambda at: csv_of(LONG, at / "t.CSV", "utf-8-sig"),
    "csv in UTF-16": lambda at: csv_of(LONG, at / "t.csv", "utf-16"),
    "csv in GB18030": lambda at: csv_of(LONG.replace("fluency", "流畅性"), at / "t.csv", "gb18030"),
    "csv packed by gzip": lambda at: bytes_at(at / "t.csv.gz", gzip.compress(LONG.to_csv(index=False).encode())),
    "csv in a zip": lambda at: zipped(at / "t.zip"),
    "csv with a comma too many": lambda at: bytes_at(
        at / "t.csv", LONG.to_csv(index=False).replace("\n", ",\n").encode()
    ),
    "csv with pandas' index": lambda at: csv_of(LONG.reset_index(names=""), at / "t.csv"),
    "csv with blank rows": lambda at: bytes_at(at / "t.csv", (LONG.to_csv(index=False) + ",,,,\n\n").encode()),
    "json": lambda at: bytes_at(at / "t.json", json.dumps(LONG.to_dict("records")).encode()),
    "json lines called json": lambda at: bytes_at(at / "t.json", LONG.to_json(orient="records", lines=True).encode()),
    "ndjson": lambda at: bytes_at(at / "t.ndjson", LONG.to_json(orient="records", lines=True).encode()),
    "workbook": lambda at: workbook(at / "t.xlsx", ratings=LONG),
    "workbook with a sheet an annotator": lambda at: workbook(
        at / "t.xlsx", **{who: part for who, part in LONG.groupby("annotator")}
    ),
    "workbook with a sheet of other things": lambda at: workbook(
        at / "t.xlsx", about=pd.DataFrame({"rater": ["anna", "bo"], "age": [30, 40]}), ratings=LONG
    ),
    "headings in other case": lambda at: csv_of(
        LONG.set_axis(["Item ID", " SOURCE", "Metric", "Ａnnotator", "Score "], axis=1), at / "t.csv"
    ),
    "4分": lambda at: csv_of(LONG.assign(score=LONG["score"].astype(str) + "分"), at / "t.csv"),
    "4/5": lambda at: csv_of(LONG.assign(score=LONG["score"].astype(str) + "/5"), at / "t.csv"),
    "full width": lambda at: csv_of(LONG.assign(score=[chr(0xFF10 + s) for s in LONG["score"]]), at / "t.csv"),
    "4.0": lambda at: csv_of(LONG.assign(score=LONG["score"].astype(float)), at / "t.csv"),
    "4 stars": lambda at: csv_of(LONG.assign(score=LONG["score"].astype(str) + " stars"), at / "t.csv"),
    "★★★★☆": lambda at: csv_of(LONG.assign(score=["★" * s + "☆" * (5 - s) for s in LONG["score"]]), at / "t.csv"),
    "metrics in other case": lambda at: csv_of(LONG.replace("fluency", "FLUENCY "), at / "t.csv"),
    "metrics by title": lambda at: csv_of(LONG.replace({"fluency": "流畅性", "empathy": "共情"}), at / "t.csv"),
    "a name with a blank": lambda at: csv_of(
        LONG.assign(annotator=["anna ", *LONG["annotator"][1:]]), at / "t.csv"
    ),
    "a name in three spellings": lambda at: csv_of(
        LONG.assign(annotator=["Ａｎｎａ", "bo", "anna", "BO", "anna", "bo", "anna", "bo"]), at / "t.csv"
    ),
    "a row twice": lambda at: csv_of(pd.concat([LONG, LONG[2:3]]), at / "t.csv"),
    "a row twice, with a blank": lambda at: csv_of(
        pd.concat([LONG, LONG[2:3].assign(annotator="anna ", score="3.0")]), at / "t.csv"
    ),
    "a column a metric": lambda at: csv_of(by_metric(), at / "t.csv"),
    "a column a metric, by title": lambda at: csv_of(
        by_metric({"fluency": "流畅性", "empathy": " Empathy"}).assign(comment="好", seconds=3), at / "t.csv"
    ),
    "a column a metric, headings of our sheets": lambda at: workbook(
        at / "t.xlsx", 评分=by_metric({"fluency": "流畅性 [fluency]"})
    ),
    "a column an annotator": lambda at: csv_of(by_annotator(), at / "t.csv"),
    "a column an annotator, and notes": lambda at: csv_of(by_annotator().assign(note="–", why="好"), at / "t.csv"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_holds_the_same_ratings(tmp_path: Path, shape: str):
    found, _ = read(SHAPES[shape](tmp_path))
    assert found == EXPECTED


MAPPED = {
    "other headings": (
        lambda: LONG.set_axis(["id", "model", "dimension", "rater", "rating"], axis=1),
        {"item_id": "id", "source": "MODEL", "metric": "dimension", "annotator": "rater", "score": "rating"},
    ),
    "a column that stands in the way": (
        lambda: LONG.rename(columns={"score": "rating"}).assign(score="x"), {"score": "rating"},
    ),
    "constants": (lambda: LONG.drop(columns="source"), {"source": "'s1'"}),
    "columns of metrics": (
        lambda: by_metric({"fluency": "q1", "empathy": "empathy"}).assign(length=7), {"metric": "empathy+q1"},
    ),
    "columns of annotators": (lambda: by_annotator().assign(mean=3), {"annotator": "anna+bo"}),
}  # fmt: skip


@pytest.mark.parametrize("case", MAPPED)
def test_columns_are_what_they_are_mapped_to(tmp_path: Path, case: str):
    table, mapping = MAPPED[case]
    found, _ = read(csv_of(table(), tmp_path / "t.csv"), mapping=mapping)
    expected = {(i, "q1" if "q1" in table() and m == "fluency" else m, w): s for (i, m, w), s in EXPECTED.items()}
    assert found == expected


def test_a_sheet_may_say_who_rated(tmp_path: Path):
    sheets = {who: part.drop(columns="annotator") for who, part in LONG.groupby("annotator")}
    found, _ = read(workbook(tmp_path / "t.xlsx", **sheets), mapping={"annotator": "sheet"})
    assert found == EXPECTED


SHEETS: dict[str, tuple[pd.DataFrame, str, dict[str, str]]] = {
    "long": (LONG, "--map annotator=sheet", {}),
    "wide": (by_metric(), "--map metric=empathy+fluency,annotator=sheet", {"metric": "empathy+fluency"}),
}


@pytest.mark.parametrize("shape", SHEETS)
def test_sheets_without_a_column_annotator_may_be_an_annotators_each(tmp_path: Path, shape: str):
    table, remedy, mapping = SHEETS[shape]
    sheets = {who: part.drop(columns="annotator") for who, part in table.groupby("annotator")}
    path = workbook(tmp_path / "t.xlsx", **sheets)
    assert f"where a sheet is an annotator's: {remedy}" in refusal(path, metrics=None)
    assert read(path, mapping={**mapping, "annotator": "sheet"})[0] == EXPECTED
    one = csv_of(table.drop(columns="annotator"), tmp_path / "t.csv")
    assert "annotator=sheet" not in refusal(one, metrics=None)


def test_the_systems_of_a_table_without_them_come_from_the_scores(tmp_path: Path):
    path = csv_of(LONG.drop(columns="source"), tmp_path / "t.csv")
    table = read_ratings(path, source={"i1": "s1"})
    assert dict(zip(table["item_id"], table["source"], strict=True)) == {"i1": "s1", "i2": "unknown"}


# What is left out is counted and said


SAID = {
    "csv in GB18030": [
        "t.csv is not UTF-8: it was read as GB18030.", "Metric '流畅性' was read as 'fluency' (ratings: 4).",
    ],
    "csv in UTF-16": ["t.csv is not UTF-8: it was read as UTF-16."],
    "a name with a blank": ["Annotator 'anna ' was read as 'anna' (ratings: 1)."],
    "a name in three spellings": [
        "Annotator 'Ａｎｎａ' was read as 'anna' (ratings: 1).", "Annotator 'BO' was read as 'bo' (ratings: 1).",
    ],
    "metrics by title": [
        "Metric '流畅性' was read as 'fluency' (ratings: 4).", "Metric '共情' was read as 'empathy' (ratings: 4).",
    ],
    "a row twice": ["Ratings that are exact copies of another row and left out: 1."],
    "a row twice, with a blank": [
        "Annotator 'anna ' was read as 'anna' (ratings: 1).",
        "Ratings that are exact copies of another row and left out: 1.",
    ],
    "a column a metric, by title": [
        "Columns read as metrics: Empathy (empathy), 流畅性 (fluency).", "Columns that are not read: comment, seconds.",
    ],
    "a column an annotator, and notes": [
        "Columns read as annotators: anna, bo.", "Columns that are not read: note, why.",
    ],
    "workbook with a sheet of other things": ["Not read, as their columns are others: sheet 'about' of t.xlsx."],
    "4/5": [],
    "csv": [],
}  # fmt: skip


@pytest.mark.parametrize("shape", SAID)
def test_what_was_made_of_a_table_is_said(tmp_path: Path, shape: str):
    assert read(SHAPES[shape](tmp_path))[1] == SAID[shape]


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "NaN", "null", "None", "-", "–", "—", "无", "/"])
def test_a_cell_without_a_rating_is_a_missing_rating_and_counted(tmp_path: Path, cell: str):
    scores = [str(score) if row != 2 else cell for row, score in enumerate(LONG["score"])]
    found, notes = read(csv_of(LONG.assign(score=scores), tmp_path / "t.csv"))
    assert found == {key: score for key, score in EXPECTED.items() if key != ("i1", "empathy", "anna")}
    assert notes == ["Ratings that are missing (empty, NA) and left out: 1 of 8."]


def test_empty_cells_of_a_wide_table_are_missing_ratings(tmp_path: Path):
    wide = by_annotator().assign(bo=[None, 1, None, 3])
    found, notes = read(csv_of(wide, tmp_path / "t.csv"))
    assert len(found) == 6 and notes[-1] == "Ratings that are missing (empty, NA) and left out: 2 of 8."


def test_half_points_are_kept_where_the_scale_has_them(tmp_path: Path):
    path = csv_of(LONG.assign(score=LONG["score"] + 0.5), tmp_path / "t.csv")
    assert sorted(set(read(path, scale=(0, 10))[0].values())) == [1.5, 2.5, 3.5, 4.5, 5.5]


def test_what_is_said_of_a_table_has_its_chinese_in_the_report(tmp_path: Path):
    notes = [note for shape in SAID for note in SAID[shape]]
    notes += read(csv_of(LONG.assign(score=["", *LONG["score"][1:]]), tmp_path / "t.csv"))[1]
    with zipfile.ZipFile(zipped(tmp_path / "t.zip"), "a") as archive:
        archive.writestr("README.txt", "x")
    notes += read(tmp_path / "t.zip")[1]
    assert len(notes) > len(SAID)
    assert [note for note in notes if not any(known.fullmatch(note) for known, _ in sentence_patterns())] == []


def test_notes_are_the_first_remarks_of_a_pairing(tmp_path: Path):
    notes: list[str] = []
    ratings = read_ratings(SHAPES["a row twice"](tmp_path), notes=notes)
    scores = LONG.drop_duplicates(["item_id", "metric"]).drop(columns="annotator")
    judged = read_scores(csv_of(scores, tmp_path / "s.csv"), notes=notes)
    assert pair(ratings, judged, notes=notes).remarks[0] == notes[0]


def test_annotators_are_chosen_in_any_spelling(tmp_path: Path):
    ratings = read_ratings(csv_of(LONG, tmp_path / "t.csv"))
    scores = read_scores(csv_of(LONG.drop(columns="annotator").drop_duplicates(["item_id", "metric"]), tmp_path / "s"
                                ".csv"))  # fmt: skip
    assert pair(ratings, scores, annotators=["Anna"]).metrics["fluency"].annotators == ("anna",)


def test_a_judges_table_may_be_wide_too(tmp_path: Path):
    wide = by_metric().query("annotator == 'bo'").drop(columns="annotator")
    scores = read_scores(csv_of(wide, tmp_path / "s.csv"))
    found = {(row.item_id, row.metric): row.score for row in scores.itertuples()}
    assert found == {(item, metric): score for (item, metric, who), score in EXPECTED.items() if who == "bo"}


# What is refused names the cause and a remedy


def changed(**columns: Any) -> pd.DataFrame:
    """The table with other cells in its first row."""
    table = LONG.astype(object)
    for name, cell in columns.items():
        table.loc[0, name] = cell
    return table


REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "4/10": (changed(score="4/10"), {}, ["record 1", "'4/10' is out of 10", "ends at 5", "give a number from 1 to 5"]),
    "4/5 on no scale": (changed(score="4/5"), {"scale": None}, ["out of 5", "--scale", "1-5"]),
    "9/5": (changed(score="9/5"), {}, ["off the scale of 'fluency'"]),
    "4,5": (changed(score="4,5"), {}, ["record 1", "is not a number; write it with a point: 4.5"]),
    "a date": (changed(score="4月5日"), {}, ["is a date", "give a number from 1 to 5"]),
    "a range": (changed(score="3-4"), {}, ["'3-4' is not a number"]),
    "underscores": (changed(score="1_0"), {"scale": None}, ["'1_0' is not a number"]),
    "another score": (
        pd.concat([LONG, LONG[:1].assign(score=1)]), {}, ["record 9", "already in record 1", "--average-repeats"],
    ),
    "other spelling, other score": (
        pd.concat([LONG, LONG[:1].assign(score=1, annotator="Anna")]), {}, ["annotator 'anna'", "already in record 1"],
    ),
    "rater": (LONG.rename(columns={"annotator": "rater"}), {}, ["no column 'annotator'", "--map annotator=rater"]),
    "评分": (LONG.rename(columns={"score": "评分"}), {}, ["no column 'score'", "--map score=评分"]),
    "nobody": (LONG.drop(columns="annotator"), {}, ["no column 'annotator'", "--map \"annotator='NAME'\""]),
    "two columns": (LONG.assign(Score_=1).rename(columns={"score": "Score", "Score_": "SCORE"}), {}, ["both 'score'"]),
    "metric twice": (by_metric().assign(流畅性=3), {}, ["fluency and 流畅性 are both metric 'fluency'"]),
    "wide both ways": (
        by_annotator().query("metric == 'fluency'").drop(columns="metric"), {"metrics": None},
        ["columns anna, bo", "of metrics, or by annotators", "annotator=anna+bo,metric='NAME'"],
    ),
    "a mean beside": (by_annotator().assign(mean=3), {}, ["anna, bo, mean hold numbers", "--map annotator=A+B"]),
    "a word in a column": (
        by_annotator().astype(object).assign(bo=[5, "four", 2, 3]), {}, ["record 2", "column 'bo': score 'four'"],
    ),
    "map to nothing": (LONG, {"mapping": {"score": "points"}}, ["--map score=points", "no column 'points'", "found:"]),
    "map of nothing": (LONG, {"mapping": {"scor": "score"}}, ["no field 'scor'", "item_id, source"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_cause_and_remedy(tmp_path: Path, case: str):
    table, options, parts = REFUSED[case]
    said = refusal(csv_of(table, tmp_path / "t.csv"), **options)
    assert [part for part in parts if part not in said] == [], said


def test_the_remedy_for_an_ambiguous_table_works(tmp_path: Path):
    path = csv_of(by_annotator().query("metric == 'fluency'").drop(columns="metric"), tmp_path / "t.csv")
    found, _ = read(path, mapping={"annotator": "anna+bo", "metric": "'fluency'"})
    assert found == {key: score for key, score in EXPECTED.items() if key[1] == "fluency"}


def test_a_record_is_named_by_its_sheet(tmp_path: Path):
    sheets = {who: part.assign(score=[9, 3, 2, 1]) if who == "bo" else part for who, part in LONG.groupby("annotator")}
    assert refusal(workbook(tmp_path / "t.xlsx", **sheets)).startswith("record 1: sheet 'bo': score '9' is off")


def test_ratings_on_another_scale_are_refused_as_such_and_not_one_by_one(tmp_path: Path):
    many = pd.concat([LONG.assign(item_id=f"i{n}", annotator=LONG.index.astype(str)) for n in range(10)])
    path = csv_of(many.assign(score=7), tmp_path / "t.csv")
    assert refusal(path) == (
        "80 of 80 scores are off the scale: they go from 7 to 7; if they are on another scale, name it: "
        "--scale LOWEST-HIGHEST, such as 1-7"
    )
    assert len(read_ratings(path, (1, 7))) == 80


def test_two_columns_without_a_heading_are_no_columns_there_twice(tmp_path: Path):
    unnamed = pd.concat([pd.DataFrame({"a": ["x"] * 8, "b": "y"}), LONG], axis=1).to_csv(index=False)
    path = bytes_at(tmp_path / "t.csv", unnamed.replace("a,b,", ",,", 1).encode())
    assert read(path)[0] == EXPECTED


ITEMS = {
    "ids": (LONG, LONG.assign(item_id="x" + LONG["item_id"]), "check how item_id is written in both", "xi1"),
    "system": (LONG, LONG.assign(source="s9"), "no source is in both (ratings: 's1'; scores: 's9')", "write it alike"),
    "scenario": (LONG, LONG.assign(scenario="7"), "no scenario is in both (ratings: 'i1'; scores: '7')", ""),
    "one of each": (LONG, LONG, "one has item_id, the other source/character/scenario", "use one"),
}


@pytest.mark.parametrize("case", ITEMS)
def test_items_that_do_not_meet_are_refused_by_what_differs(tmp_path: Path, case: str):
    ratings, scores, *parts = ITEMS[case]
    if case != "ids":
        scores = scores.assign(character="c", scenario=scores.get("scenario", scores["item_id"])).drop(
            columns="item_id"
        )
        if case != "one of each":
            ratings = ratings.assign(character="c", scenario=ratings["item_id"]).drop(columns="item_id")
    scores = scores.drop(columns="annotator").drop_duplicates(list(scores.columns.difference(["annotator", "score"])))
    tables = read_ratings(csv_of(ratings, tmp_path / "t.csv")), read_scores(csv_of(scores, tmp_path / "s.csv"))
    with pytest.raises(TableError, match="no item in common; ") as caught:
        pair(*tables)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize("heading", ["rater", "评分者", "label"])
def test_a_column_called_as_a_field_may_be_is_never_taken_for_an_annotator(tmp_path: Path, heading: str) -> None:
    table = pd.DataFrame(
        {"item_id": ["i1", "i2"], "source": "s", "metric": "fluency", heading: [1, 2], "rating": [4, 5]}
    )
    with pytest.raises(TableError, match="no column 'annotator'"):
        read_ratings(csv_of(table, tmp_path / "t.csv"))
    mapped = read_ratings(tmp_path / "t.csv", mapping={"annotator": heading, "score": "rating"})
    assert mapped["score"].tolist() == [4, 5] and mapped["annotator"].tolist() == ["1", "2"]


HEADINGS = {
    "Chinese": "模型 角色 场景 指标 评分者 得分",
    "Chinese, with a number a row": "模型 角色 场景编号 指标 评分者 得分 编号",
    "English": "model role dialogue_id dimension rater rating",
    "an item": "model sample_id dimension rater rating role",
}


@pytest.mark.parametrize("case", HEADINGS)
def test_the_maps_that_are_suggested_for_other_headings_are_all_that_is_needed(tmp_path: Path, case: str) -> None:
    ids = ["item_id"] if case == "an item" else ["character", "scenario"]
    fields = ["source", *ids, "metric", "annotator", "score"]
    headings = dict(zip(fields, HEADINGS[case].split(), strict=False))
    more = {name: range(1, 9) for name in HEADINGS[case].split()[len(fields) :]}
    table = LONG.assign(character="路飞", scenario=LONG["item_id"])[fields].rename(columns=headings).assign(**more)
    path = csv_of(table, tmp_path / "t.csv")
    with pytest.raises(TableError) as caught:
        read_ratings(path, metrics=TITLES)
    suggested = dict(re.findall(r"there is '.*': --map (\w+)=(\w+)", str(caught.value)))
    assert suggested == headings
    found = read_ratings(path, metrics=TITLES, mapping=suggested)
    assert found["score"].tolist() == LONG["score"].tolist()


def test_a_column_called_as_an_id_may_be_is_never_taken_for_an_annotator(tmp_path: Path) -> None:
    table = by_annotator().assign(character="路飞", 场景=[1, 1, 2, 2]).drop(columns="item_id")
    path = csv_of(table, tmp_path / "t.csv")
    assert "there is '场景': --map scenario=场景" in refusal(path)
    found = read_ratings(path, metrics=TITLES, mapping={"scenario": "场景"})
    assert set(found["annotator"]) == {"anna", "bo"} and len(found) == len(LONG)


def test_a_metric_may_be_mapped_to_its_column(tmp_path: Path) -> None:
    table = pd.DataFrame({"item_id": ["i1"], "source": "s", "annotator": "a", "Q1": [2], "Q2": [4]})
    found = read_ratings(csv_of(table, tmp_path / "t.csv"), metrics=TITLES, mapping={"fluency": "Q1", "共情": "Q2"})
    assert dict(zip(found["metric"], found["score"], strict=True)) == {"fluency": 2, "empathy": 4}


def test_ratings_on_metrics_that_were_not_judged_are_counted_and_left_out(tmp_path: Path) -> None:
    path, notes = csv_of(LONG, tmp_path / "t.csv"), list[str]()
    found = read_ratings(path, {"fluency": (1, 5)}, metrics={"fluency": "fluency"}, notes=notes)
    assert set(found["metric"]) == {"fluency"} and len(found) == 4
    assert notes == ["Ratings on metrics that were not judged and are left out: empathy (4)."]
    with pytest.raises(TableError, match=r"no metric that was judged \(tone\), but fluency \(4\), empathy \(4\)"):
        read_ratings(path, {"tone": (1, 5)}, metrics={"tone": "tone"})


def test_means_of_metrics_have_the_scale_of_their_members(tmp_path: Path) -> None:
    ratings = LONG.assign(score=LONG["score"].clip(2, 3))
    scores = ratings.drop(columns="annotator").drop_duplicates(["item_id", "metric"])
    scale = {"fluency": (0.0, 9.0), "empathy": (0.0, 9.0)}
    paired = pair(
        read_ratings(csv_of(ratings, tmp_path / "r.csv")), read_scores(csv_of(scores, tmp_path / "s.csv")),
        scale=scale, composites={"both": ("fluency", "empathy")},
    )  # fmt: skip
    assert paired.metrics["both"].scale == (0.0, 9.0)
