"""Reading tables: what a good one becomes, and what is said of a bad one."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import calibration
from calibration import TableError


def read_ratings(path, scale=(1, 5), **more):
    """Ratings from 1 to 5."""
    return calibration.read_ratings(path, scale, **more)


def read_scores(path, scale=(1, 5), **more):
    """Scores from 1 to 5."""
    return calibration.read_scores(path, scale, **more)


RATING = {"item_id": "i1", "source": "s1", "metric": "fluency", "annotator": "ann", "score": 4}
JUDGED = {"item_id": "i1", "source": "s1", "metric": "fluency", "score": 3.5}
CHATANIME = {
    "source": "qwen",
    "character": "桐谷和人",
    "scenario": 7,
    "metric": "fluency",
    "annotator": "甲",
    "score": 5,
}


@pytest.fixture
def write(tmp_path: Path):
    """Writes records in the format of the suffix; text and bytes as they are."""

    def written(content, name: str = "t.csv") -> Path:
        path = tmp_path / name
        if isinstance(content, str | bytes):
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        elif path.suffix.lower() == ".csv":
            pd.DataFrame(content).to_csv(path, index=False)
        elif path.suffix == ".parquet":
            pd.DataFrame(content).to_parquet(path)
        else:
            path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in content), encoding="utf-8")
        return path

    return written


def problem(read, path: Path, *args, **options) -> str:
    """What the TableError says after the file's path, which it must begin with."""
    with pytest.raises(TableError) as caught:
        read(path, *args, **options)
    start = f"{path}: "
    assert str(caught.value).startswith(start)
    return str(caught.value)[len(start) :]


def ratings(*changes: dict) -> list[dict]:
    """A record for each change, each of an item of its own unless the change says otherwise."""
    return [{**RATING, "item_id": f"i{n}", **change} for n, change in enumerate(changes, 1)]


def scores(*changes: dict) -> list[dict]:
    return [{**JUDGED, "item_id": f"i{n}", **change} for n, change in enumerate(changes, 1)]


# What a good table becomes


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".CSV"])
def test_every_kind_of_file_gives_the_same_ratings(write, suffix: str):
    table = read_ratings(write([CHATANIME, {**CHATANIME, "scenario": 8, "score": 2.5}], f"t{suffix}"))
    expected = {
        "item_id": ["qwen/桐谷和人/7", "qwen/桐谷和人/8"],
        "source": ["qwen", "qwen"],
        "metric": ["fluency", "fluency"],
        "annotator": ["甲", "甲"],
        "score": [5.0, 2.5],
        "group": ["7", "8"],
        "character": ["桐谷和人", "桐谷和人"],
        "scenario": ["7", "8"],
    }
    assert table.to_dict("list") == expected
    assert list(table) == list(expected)


def test_ids_stay_the_text_they_are(write):
    text = "item_id,source,metric,annotator,score\n007,NA,1.0,null,4\n"
    row = read_ratings(write(text)).iloc[0]
    assert [row["item_id"], row["source"], row["metric"], row["annotator"]] == ["007", "NA", "1.0", "null"]


def test_whole_numbers_that_a_file_stores_as_floats_are_the_ids_they_were(write):
    table = read_ratings(write([{**CHATANIME, "scenario": 7.0}], "t.parquet"))
    assert table["item_id"].tolist() == ["qwen/桐谷和人/7"]


def test_an_item_is_a_group_of_its_own_unless_a_group_is_given(write):
    assert read_ratings(write([RATING]))["group"].tolist() == ["i1"]
    assert read_ratings(write([{**RATING, "group": "prompt 3"}]))["group"].tolist() == ["prompt 3"]
    assert read_ratings(write([{**CHATANIME, "group": "pair 1"}]))["group"].tolist() == ["pair 1"]


def test_an_item_id_that_is_given_is_the_item_whatever_other_columns_there_are(write):
    table = read_ratings(write([{**CHATANIME, "item_id": "i1"}]))
    assert table[["item_id", "group", "scenario"]].to_numpy().tolist() == [["i1", "i1", "7"]]


def test_further_columns_are_kept(write):
    row = read_ratings(write([{**RATING, "note": "好", "inclusion_probability": 0.25}])).iloc[0]
    assert row["note"] == "好"
    assert row["inclusion_probability"] == 0.25


def test_columns_that_mean_something_in_the_other_kind_of_table_only_are_kept_too(write):
    assert read_ratings(write([{**RATING, "p1": "x"}]))["p1"].tolist() == ["x"]
    row = read_scores(write([{**JUDGED, "inclusion_probability": "x"}])).iloc[0]
    assert row["inclusion_probability"] == "x"


def test_ids_that_parquet_keeps_in_its_index_are_found(tmp_path: Path):
    path = tmp_path / "t.parquet"
    pd.DataFrame([RATING]).set_index(["item_id", "annotator"]).to_parquet(path)
    assert read_ratings(path)["annotator"].tolist() == ["ann"]


def test_a_csv_from_a_spreadsheet_may_have_a_byte_order_mark_blank_lines_and_quoted_line_breaks(write):
    text = '\ufeffitem_id, source,metric,annotator,score \r\n"a,\nb",s,m,x,4\r\n\r\nc,s,m,x,5\r\n'
    assert read_ratings(write(text))["item_id"].tolist() == ["a,\nb", "c"]


def test_a_missing_judgment_stays_missing(write):
    text = "item_id,source,metric,score\na,s,m,\nb,s,m,NaN\nc,s,m,null\nd,s,m,2.5\n"
    table = read_scores(write(text))
    assert table["score"].isna().tolist() == [True, True, True, False]
    assert read_scores(write(scores({"score": None}, {}), "t.jsonl"))["score"].isna().tolist() == [True, False]


def test_a_judges_distribution_is_read_as_numbers_within_a_thousandth_of_1(write):
    table = read_scores(write("item_id,source,metric,score,p1,p2,p10\na,s,m,1.7,0.3,0.7009,x\n"))
    assert table[["p1", "p2"]].to_numpy().tolist() == [[0.3, 0.7009]]
    assert table["p10"].tolist() == ["x"]  # not one of p1..p2


def test_a_missing_judgment_has_no_distribution(write):
    table = read_scores(write(scores({"p1": 0.5, "p2": 0.5}, {"score": None, "p1": None, "p2": None})))
    assert table["p1"].isna().tolist() == [False, True]


def test_judge_tables_may_be_in_chatanimes_shape(write):
    row = {name: value for name, value in CHATANIME.items() if name != "annotator"}
    table = read_scores(write([row]))
    assert table[["item_id", "group"]].to_numpy().tolist() == [["qwen/桐谷和人/7", "7"]]


def test_two_judges_and_two_samples_of_one_judge_are_different_judgments(write):
    rows = [{**JUDGED, "judge": judge, "sample_index": sample} for judge in "ab" for sample in (0, 1)]
    assert read_scores(write(rows))["judge"].tolist() == ["a", "a", "b", "b"]


def test_the_source_of_a_judge_table_without_that_column_may_be_given(write):
    path = write("item_id,metric,score\na,m,3\n")
    assert read_scores(path, source="gpt")["source"].tolist() == ["gpt"]
    assert problem(read_scores, path).startswith("no column 'source' (found: item_id, metric, score)")
    assert read_scores(write([JUDGED]), source="gpt")["source"].tolist() == ["s1"]


def test_a_scale_may_be_of_each_metric_or_none(write):
    path = write(ratings({"metric": "a", "score": 0}, {"metric": "b", "score": 7}))
    assert read_ratings(path, {"a": (0, 2), "b": (1, 7)})["score"].tolist() == [0, 7]
    assert read_ratings(path, None)["score"].tolist() == [0, 7]


def test_an_annotator_may_repeat_where_that_is_asked_for(write):
    assert len(read_ratings(write([RATING, RATING]), repeats="keep")) == 2


# What is said of a bad file


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl", "none.parquet"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str):
    assert problem(read_ratings, tmp_path / name) == "no such file; check the path"


def test_a_kind_of_file_that_is_not_known(write):
    said = problem(read_ratings, write("x", "t.docx"))
    assert said.startswith("cannot tell its format from its suffix; give .json, .jsonl") and ".xlsx" in said


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        ("not parquet", "t.parquet", "cannot be read (Parquet magic bytes"),
        ('item_id,score\n"a,4', "t.csv", "not CSV near line 2 (unexpected end of data); fix the quoting"),
        (
            "システム,スコア\n".encode("shift-jis"),
            "t.csv",
            "line 1 is not UTF-8, and the file does not read as Chinese",
        ),
        (b"\xff\xfe\xff", "t.jsonl", "line 1 is not UTF-16; save it as UTF-8"),
        ("x", "t.xlsx", "not a workbook (File is not a zip file); save it again as .xlsx"),
        ("x", "t.csv.gz", "cannot be unpacked (Not a gzipped file"),
        ('{"a": 1}', "t.json", "not JSON with a list of records; write a list of objects"),
    ],
)
def test_a_file_that_cannot_be_read(write, content, name: str, says: str):
    said = problem(read_ratings, write(content, name))
    assert said.startswith(says)
    assert "\n" not in said


def test_a_folder_is_not_a_table(tmp_path: Path):
    (tmp_path / "t.csv").mkdir()
    assert problem(read_ratings, tmp_path / "t.csv").startswith("cannot be read (")


@pytest.mark.parametrize(("content", "name"), [("", "t.csv"), ("a,b\n", "t.csv"), ("\n", "t.jsonl"), ([], "t.parquet")])
def test_a_file_without_records(write, content, name: str):
    assert problem(read_ratings, write(content, name)) == "no records; give at least one"


def test_rows_that_do_not_fit_the_header(write):
    said = problem(read_ratings, write("item_id,score\na,4\nb,4,5\nc\n"))
    assert said.splitlines() == [
        "2 problems:",
        "  record 2: 3 cells under 2 columns; quote any cell with a comma, or name every column",
        "  record 3: 1 cells under 2 columns; quote any cell with a comma",
    ]


def test_a_column_that_is_there_twice(write):
    assert problem(read_ratings, write("score,score\n1,2\n")) == "column 'score' is there twice; rename one"


def test_lines_that_are_not_json_objects(write):
    content = f"{json.dumps(RATING)}\n\n[1]\n{{\n"
    said = problem(read_ratings, write(content, "t.jsonl"))
    assert said.splitlines()[1:] == [
        f"  record {record}: not a JSON object; write one object a line" for record in (2, 3)
    ]


@pytest.mark.parametrize("column", list(RATING))
def test_a_column_that_is_missing_from_ratings(write, column: str):
    found = [name for name in RATING if name != column]
    said = problem(read_ratings, write([{name: RATING[name] for name in found}]))
    assert said.startswith(f"no column {column!r} (found: {', '.join(found)}); add or rename one, or name it: --map")


@pytest.mark.parametrize("column", list(CHATANIME))
def test_a_column_that_is_missing_from_ratings_in_chatanimes_shape(write, column: str):
    said = problem(read_ratings, write([{name: CHATANIME[name] for name in CHATANIME if name != column}]))
    assert said.startswith(f"no column {column!r} (found: ")


# What is said of a bad record


@pytest.mark.parametrize("score", ["four", "inf", "4 or 5", "True"])
@pytest.mark.parametrize("scale", [(1, 5), None])
def test_a_score_that_is_no_number(write, score: str, scale):
    said = problem(read_ratings, write(ratings({}, {"score": score})), scale)
    remedy = "give a number from 1 to 5" if scale else "give one"
    assert said == f"record 2: score {score!r} is not a number; {remedy}"


@pytest.mark.parametrize("score", [0.99, 5.01, -1.0])
@pytest.mark.parametrize(("read", "rows"), [(read_ratings, ratings), (read_scores, scores)])
def test_a_score_off_the_scale(write, read, rows, score: float):
    said = problem(read, write(rows({}, {"score": score})))
    assert said == f"record 2: score '{score}' is off the scale of 'fluency'; give a number from 1 to 5"


def test_a_metric_without_a_scale_where_scales_are_given(write):
    said = problem(read_ratings, write(ratings({"metric": "a"}, {"metric": "b"})), {"a": (1, 4), "c": (1, 2)})
    assert said == "record 2: no scale is known for metric 'b' (known: a, c); give its scale, or correct it"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_table_of_which_all_ratings_are_missing(write, name: str):
    path = write(ratings({"score": None}, {"score": None}), name)
    assert problem(read_ratings, path) == "every score is missing; fill in some"


@pytest.mark.parametrize("column", ["item_id", "source", "metric", "annotator", "group"])
@pytest.mark.parametrize(("name", "empty"), [("t.csv", ""), ("t.csv", " "), ("t.jsonl", None), ("t.parquet", None)])
def test_an_id_that_is_empty(write, column: str, name: str, empty):
    rows = [{**row, "group": "g"} for row in ratings({}, {})]
    rows[1][column] = empty
    assert problem(read_ratings, write(rows, name)) == f"record 2: {column!r} is empty; fill it in"


def test_an_empty_part_of_an_id_in_chatanimes_shape(write):
    said = problem(read_ratings, write([{**CHATANIME, "scenario": None}, CHATANIME], "t.jsonl"))
    assert said == "record 1: 'scenario' is empty; fill it in"


def test_records_without_an_item_are_not_taken_for_records_of_one_item(write):
    rows = [{**RATING, "item_id": ""}, {**RATING, "item_id": "", "source": "s2"}, {**RATING, "item_id": ""}]
    said = problem(read_ratings, write(rows)).splitlines()
    assert said == ["3 problems:", *(f"  record {record}: 'item_id' is empty; fill it in" for record in (1, 2, 3))]


def test_an_empty_judge(write):
    said = problem(read_scores, write(scores({"judge": "a"}, {"judge": None})))
    assert said == "record 2: 'judge' is empty; fill it in"


def test_an_annotator_who_rated_the_same_cell_twice(write):
    other = {**RATING, "annotator": "bob"}
    said = problem(read_ratings, write([other, RATING, {**RATING, "metric": "coherency"}, {**RATING, "score": 2}]))
    assert said == (
        "record 4: item 'i1', metric 'fluency', annotator 'ann': already in record 2; "
        "keep one of the two, or average them (--average-repeats; in Python repeats='keep')"
    )


def test_a_judgment_that_is_there_twice(write):
    said = problem(read_scores, write([{**JUDGED, "judge": "a"}, {**JUDGED, "judge": "b"}, {**JUDGED, "judge": "a"}]))
    assert said == (
        "record 3: item 'i1', metric 'fluency', judge 'a': already in record 1; "
        "keep one of the two, or tell them apart in a column 'judge' or 'sample_index'"
    )


def test_an_item_of_two_sources_or_in_two_groups(write):
    said = problem(read_ratings, write([RATING, {**RATING, "source": "s2"}]))
    assert said == (
        "record 2: item 'i1' has source 's2' here and 's1' before; give the answer of each source an item_id of its own"
    )
    said = problem(read_scores, write([{**JUDGED, "group": 1}, {**JUDGED, "metric": "coherency", "group": 2}]))
    assert said == "record 2: item 'i1' has group '2' here and '1' before; put an item in one group"


@pytest.mark.parametrize("chance", ["0", "1.01", "-0.1", "", "often"])
def test_an_inclusion_probability_that_is_none(write, chance: str):
    text = f"item_id,source,metric,annotator,score,inclusion_probability\na,s,m,x,4,1\nb,s,m,x,4,{chance}\n"
    said = problem(read_ratings, write(text))
    assert said == f"record 2: inclusion_probability {chance!r} is not in (0, 1]; give the chance it was drawn with"


@pytest.mark.parametrize("levels", [("0.3", "0.702"), ("0.3", "0.698"), ("-0.5", "1.5"), ("1", "x"), ("1", "")])
def test_a_distribution_that_is_none(write, levels: tuple[str, str]):
    text = f"item_id,source,metric,score,p1,p2\na,s,m,4,0.5,0.5\nb,s,m,4,{','.join(levels)}\n"
    said = problem(read_scores, write(text))
    assert said == f"record 2: p1..p2 are {levels[0]}, {levels[1] or 'nothing'}; give probabilities that sum to 1"


@pytest.mark.parametrize(("score", "levels"), [("", "1,"), ("4", ",")])
def test_a_distribution_is_missing_only_as_a_whole_and_with_its_score(write, score: str, levels: str):
    text = f"item_id,source,metric,score,p1,p2\nb,s,m,{score},{levels}\n"
    assert "give probabilities that sum to 1" in problem(read_scores, write(text))


def test_all_problems_of_a_file_are_told_at_once_in_the_order_of_its_records(write):
    rows = ratings({"score": 9}, {}, {"annotator": ""}, {"item_id": "i2", "score": 2}, {"inclusion_probability": 2})
    rows = [{"inclusion_probability": 1, **row} for row in rows]
    said = problem(read_ratings, write(rows)).splitlines()
    assert said[0] == "4 problems:"
    assert [line.split(":")[0] for line in said[1:]] == [f"  record {record}" for record in (1, 3, 4, 5)]


def test_the_first_20_of_many_problems_are_told_and_how_many_more_there_are(write):
    said = problem(read_ratings, write(ratings(*[{"score": 9}] * 23, *[{}] * 300))).splitlines()
    assert said[0] == "23 problems:"
    assert said[20].startswith("  record 20: ")
    assert said[21:] == ["  and 3 more"]
    assert len(problem(read_ratings, write(ratings(*[{"score": 9}] * 20, *[{}] * 300))).splitlines()) == 21


def test_a_table_error_is_a_value_error():
    assert issubclass(TableError, ValueError)


# Real tables, and what the package may know


@pytest.mark.parametrize(("name", "people", "judgments"), [("empathy", 4200, 3150), ("hanna", 19008, 31680)])
def test_published_tables_are_read_whole(shared_data: Path, name: str, people: int, judgments: int):
    folder = shared_data / "human" / name
    assert len(read_ratings(folder / "human.csv", None)) == people
    assert len(read_scores(folder / "judge.csv", None)) == judgments


def test_llm_rubrics_repeated_ratings_are_found_and_may_be_kept(shared_data: Path):
    path = shared_data / "human" / "llm_rubric" / "human.csv"
    notes: list[str] = []
    assert problem(read_ratings, path, (1, 4), notes=notes).startswith("28 problems:\n")
    assert notes == ["Ratings that are exact copies of another row and left out: 45."]
    assert len(read_ratings(path, (1, 4), repeats="keep")) == 5946


def test_llm_rubrics_distributions_are_read_whole(shared_data: Path):
    table = read_scores(shared_data / "human" / "llm_rubric" / "judge.csv", (1, 4), source="synth")
    assert len(table) == 2025
    expected = table["p1"] + 2 * table["p2"] + 3 * table["p3"] + 4 * table["p4"]
    assert table["score"].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-4)


def test_hannas_judges_leave_the_scale_and_are_told(shared_data: Path):
    said = problem(read_scores, shared_data / "human" / "hanna" / "judge.csv", (1, 5))
    assert said.startswith("346 problems:\n")


def test_calibration_knows_nothing_of_judge():
    code = "import sys, calibration; sys.exit(any(name.split('.')[0] == 'judge' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_parquet_text_that_is_not_utf_8_is_told(tmp_path):
    texts = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    columns = {"source": texts, "item_id": pa.array(["1"]), "metric": pa.array(["m"]), "annotator": pa.array(["a"])}
    pq.write_table(pa.table({**columns, "score": pa.array([3.0])}), tmp_path / "ratings.parquet")
    with pytest.raises(TableError, match=r"ratings\.parquet: cannot be read .*UTF"):
        read_ratings(tmp_path / "ratings.parquet")
