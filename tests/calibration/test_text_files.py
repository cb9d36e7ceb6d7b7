"""Opening files as people have them: kinds by suffix, packing, encodings, and the cells of tables."""

import csv
import gzip
import zipfile
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from openpyxl import Workbook

from calibration.errors import TableError
from calibration.text_files import ROOM, DataFile, content, data_file, data_files, encoding, tables, text

SENTENCE = "今天有点累，想早些睡。你呢？😀"


def one(path: Path) -> DataFile:
    (file,), _ = data_files(path)
    return file


def cells(path: Path) -> list[tuple[str | None, list[str], list[tuple[int, list[str]]]]]:
    with tables(one(path)) as found:
        return [(table.sheet, table.header, list(table.rows)) for table in found]


@pytest.mark.parametrize(
    ("name", "kind", "stem", "gzipped"),
    [
        ("a.jsonl", ".jsonl", "a", False),
        ("a.JSONL", ".jsonl", "a", False),
        ("gpt-4.1.json", ".json", "gpt-4.1", False),
        ("gpt-4.1.Json.GZ", ".json", "gpt-4.1", True),
        ("x.ndjson.gz", ".jsonl", "x", True),
        ("x.tsv", ".tsv", "x", False),
        ("x.XLSX", ".xlsx", "x", False),
    ],
)
def test_the_suffix_in_any_case_says_the_kind(name: str, kind: str, stem: str, gzipped: bool) -> None:
    found = data_file(name)
    assert found is not None
    assert (found.kind, found.stem, found.gzipped) == (kind, stem, gzipped)


@pytest.mark.parametrize("name", ["notes.txt", "a.xls", "a.gz", "jsonl", "a.docx"])
def test_other_suffixes_are_refused_with_those_that_are_known(tmp_path: Path, name: str) -> None:
    assert data_file(name) is None
    (tmp_path / name).write_text("x", encoding="utf-8")
    with pytest.raises(TableError, match=r"cannot tell its format .* \.jsonl, .*\.xlsx, any of them also as \.gz"):
        data_files(tmp_path / name)


@pytest.mark.parametrize(
    ("written", "read"),
    [("utf-8", "utf-8-sig"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("gb18030", "gb18030")],
)
def test_an_encoding_is_found_and_the_text_comes_out_of_it(tmp_path: Path, written: str, read: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{SENTENCE}\r\nhello\n".encode(written))
    found = encoding(one(path))
    assert found == read
    with text(one(path), found) as stream:
        assert stream.read() == f"{SENTENCE}\r\nhello\n"


@pytest.mark.parametrize(
    "content_",
    [
        "Ich fürchte, es wird später".encode("latin-1"),
        "naïveté vécue à Noël".encode("cp1252"),
        "今天有點累，想早些睡。".encode("big5"),
        "今日はすこし疲れました".encode("shift-jis"),
        SENTENCE.encode()[:-1],
        bytes(range(128, 256)),
    ],
)
def test_what_is_neither_utf_8_nor_chinese_is_refused_by_its_line(tmp_path: Path, content_: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(b"hello\n" + content_)
    with pytest.raises(TableError, match=r"a\.csv: line 2 is not UTF-8, .*; save it as UTF-8"):
        encoding(one(tmp_path / "a.csv"))


def test_a_character_cut_by_the_end_of_a_piece_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for written, read in (("utf-8", "utf-8-sig"), ("gb18030", "gb18030")):
        path.write_bytes(b"x" * (2**20 - 1) + SENTENCE.encode(written) * 3)
        assert encoding(one(path)) == read


def test_a_zip_is_the_files_in_it_and_says_what_else_it_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("b/two.JSONL", "{}")
        archive.writestr("a/one.csv.gz", gzip.compress(b"a,b\n1,2\n"))
        archive.writestr("readme.txt", "x")
        archive.writestr("__MACOSX/a/._one.csv", "x")
    files, others = data_files(tmp_path / "all.zip")
    assert [(file.kind, file.stem) for file in files] == [(".csv", "one"), (".jsonl", "two")]
    assert str(files[0]) == f"{tmp_path / 'all.zip'}: a/one.csv.gz"
    assert others == ["readme.txt"]
    with tables(files[0]) as found:
        (table,) = found
        assert (table.header, list(table.rows)) == (["a", "b"], [(1, ["1", "2"])])


def test_parquet_comes_from_any_packing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["x"]})
    frame.to_parquet(tmp_path / "a.parquet")
    packed = tmp_path / "a.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    with content(one(packed)) as raw:
        assert pd.read_parquet(raw).equals(frame)


def test_a_small_file_that_holds_far_more_than_itself_is_refused(tmp_path: Path) -> None:
    zeros = b"0" * (ROOM + 2**24)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(zeros, 9))
    with pytest.raises(TableError, match=r"a\.jsonl\.gz: holds over .* MiB in so small a file; give it unpacked"):
        encoding(one(tmp_path / "a.jsonl.gz"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", zeros)
    with pytest.raises(TableError, match=r"a\.zip: holds over .* MiB in so small a file"):
        data_files(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["a.zip", "a.jsonl.gz", "a.xlsx", "a.csv.gz"])
def test_a_broken_packing_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    for rubbish in (b"hello", gzip.compress(b"hello" * 100)[:-9], b""):
        (tmp_path / name).write_bytes(rubbish)
        with pytest.raises(TableError) as error:
            file = one(tmp_path / name)
            if file.kind != ".xlsx" and encoding(file) and not rubbish:
                raise TableError(tmp_path / name, [(0, "an empty .gz is empty; fill it")])
            cells(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name)) and ";" in str(error.value)
        assert "\n" not in str(error.value)


def test_csv_takes_the_separator_of_its_header(tmp_path: Path) -> None:
    for name, between in (("a.csv", ","), ("b.csv", ";"), ("c.csv", "\t"), ("d.tsv", "\t"), ("e.tsv", ",")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=between).writerows([[" a ", "b"], ["x\ny", 'say "hi", you;']])
        assert cells(tmp_path / name) == [(None, ["a", "b"], [(1, ["x\ny", 'say "hi", you;'])])]


def test_blank_rows_and_empty_cells_beyond_the_header_are_dropped_and_others_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n,a,b,,\n0,1,2,,\n,,,,\n1,3,4,x,\n,,,,\n", encoding="utf-8")
    ((_, header, rows),) = cells(tmp_path / "a.csv")
    assert header == ["(column 1)", "a", "b"]
    assert rows == [(1, ["0", "1", "2"]), (3, ["1", "3", "4", "x"])]


def test_cells_of_a_workbook_are_texts_and_every_sheet_with_something_is_a_table(tmp_path: Path) -> None:
    book = Workbook()
    book.active.title = "first"
    book.active.append(["id", "said", "when", "extra"])
    book.active.append([1, "=1+1 is what I said", datetime(2024, 5, 6)])
    book.active.append([2.5, True, datetime(2024, 5, 6, 7, 8)])
    book.active.append([3.0, "x", None, ""])
    book.active["C900"] = " "
    book.create_sheet("nothing")
    book.create_sheet("second").append(["id"])
    book.save(tmp_path / "a.xlsx")
    first, second = cells(tmp_path / "a.xlsx")
    assert first == (
        "first",
        ["id", "said", "when", "extra"],
        [
            (1, ["1", "=1+1 is what I said", "2024-05-06", ""]),
            (2, ["2.5", "True", "2024-05-06T07:08:00", ""]),
            (3, ["3", "x", "", ""]),
        ],
    )
    assert second == ("second", ["id"], [])


def test_a_workbook_with_one_sheet_is_a_table_without_a_name(tmp_path: Path) -> None:
    pd.DataFrame({"a": ["x"], "b": [1.0]}).to_excel(tmp_path / "a.xlsx", index=False, sheet_name="Tabelle1")
    assert cells(tmp_path / "a.xlsx") == [(None, ["a", "b"], [(1, ["x", "1"])])]


def test_empty_lines_are_counted_so_that_a_record_is_found_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\na,b\n1,2\n\n , \n3,4\n", encoding="utf-8")
    assert cells(path) == [(None, ["a", "b"], [(1, ["1", "2"]), (4, ["3", "4"])])]
