"""The corpus: sorted, without duplicates, cut into batches that depend on the dialogues alone."""

import json
from pathlib import Path

import pytest

from judge.data import dataset
from judge.data.dataset import BATCH_CHARACTERS, Corpus, batch_size
from judge.errors import InputError
from judge.types import Dialogue


def write(path: Path, sources: list[str], characters: int = 2, scenarios: int = 40, text: str = "嗯") -> Path:
    rows = [
        {"source": s, "character": f"c{c}", "scenario": n, "question_r1": f"q{n}", "answer_r1": f"{s}{c}{n}{text}"}
        for n in range(scenarios, 0, -1)
        for c in range(characters)
        for s in sources
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_dialogues_come_by_character_source_and_scenario_in_number_order(tmp_path: Path) -> None:
    dialogues = list(Corpus([write(tmp_path / "a.jsonl", ["b", "a"], scenarios=11)]))
    keys = [(d.character, d.source, int(d.scenario)) for d in dialogues]
    assert keys == sorted(keys)
    assert len(keys) == 44


def test_a_new_source_adds_units_and_changes_none(tmp_path: Path) -> None:
    before = Corpus([write(tmp_path / "a.jsonl", ["a", "c"])])
    after = Corpus([write(tmp_path / "b.jsonl", ["a", "b", "c"])])
    assert set(before.batch_digests) < set(after.batch_digests)
    assert before.digest != after.digest


def test_an_edited_answer_changes_one_unit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["a", "b"])
    before = Corpus([path])
    path.write_text(path.read_text(encoding="utf-8").replace("a17", "a17!"), encoding="utf-8")
    assert len(set(Corpus([path]).batch_digests) - set(before.batch_digests)) == 1


def test_the_order_of_files_and_records_changes_nothing(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.jsonl", ["a"]), write(tmp_path / "b.jsonl", ["b"])
    both = write(tmp_path / "c.jsonl", ["b", "a"])
    assert Corpus([one, two]).digest == Corpus([two, one]).digest == Corpus([both]).digest


def test_long_dialogues_make_small_units(tmp_path: Path) -> None:
    corpus = Corpus([write(tmp_path / "a.jsonl", ["a"], characters=1, text="长" * (BATCH_CHARACTERS // 4))])
    assert max(corpus.batch_sizes) == 3


def test_a_duplicate_names_both_places(tmp_path: Path) -> None:
    path, copy = write(tmp_path / "a.jsonl", ["a"], characters=1, scenarios=2), tmp_path / "b.jsonl"
    copy.write_text(path.read_text(encoding="utf-8").splitlines()[1], encoding="utf-8")
    with pytest.raises(
        InputError, match=r"b\.jsonl: record 1: dialogue a/c0/1 stands already at .*a\.jsonl: record 2;"
    ):
        Corpus([path, copy])


def test_sources_characters_and_limit_choose(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["a", "b"])
    chosen = list(Corpus([path], sources=["b"], characters=["c1"]))
    assert {(d.source, d.character) for d in chosen} == {("b", "c1")}
    few, more = ({d.id for d in Corpus([path], limit=limit)} for limit in (10, 30))
    assert (len(few), len(more)) == (10, 30)
    assert few < more


def test_a_limit_takes_the_same_scenarios_of_every_source(tmp_path: Path) -> None:
    corpus = Corpus([write(tmp_path / "a.jsonl", ["a", "b", "c"])], limit=30)
    assert len(corpus) == 30
    assert corpus.shared() == (10, 10)


def test_sources_of_unlike_scenarios_are_counted(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.jsonl", ["a"], scenarios=5), write(tmp_path / "b.jsonl", ["b"], scenarios=8)]
    assert Corpus(paths).shared() == (10, 16)


def test_an_unknown_source_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sources z: not in the data, which has a, b"):
        Corpus([write(tmp_path / "a.jsonl", ["a", "b"])], sources=["z"])


def test_a_sample_of_a_role_is_always_the_same(tmp_path: Path) -> None:
    def sample(path: Path) -> list[Dialogue]:
        return Corpus([path]).sample("a", "c1", 5)

    first = sample(write(tmp_path / "a.jsonl", ["a"]))
    assert first == sample(write(tmp_path / "b.jsonl", ["b", "a"]))
    assert len(first) == 5
    assert {(d.source, d.character) for d in first} == {("a", "c1")}


def test_a_limit_draws_among_what_was_rated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["a", "b"])
    rated = {f"{source}/c1/{n}" for source in ("a", "b") for n in range(1, 11)} | {"z/c1/1"}
    assert {d.id for d in Corpus([path], rated=rated)} == rated - {"z/c1/1"}
    drawn = {d.id for d in Corpus([path], rated=rated, limit=6)}
    assert len(drawn) == 6 and drawn < rated
    with pytest.raises(InputError, match=r"none of its 1 items .* like a/c0/1 .*, not a-c0-1"):
        Corpus([path], rated={"a-c0-1"})


def test_batches_grow_with_the_dialogues_and_a_run_keeps_the_size_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [batch_size(dialogues) for dialogues in (1, 131_072, 131_073, 10**6, 10**9)] == [64, 64, 128, 512, 1024]
    path = write(tmp_path / "a.jsonl", ["a"], characters=1, scenarios=200)
    before = Corpus([path])
    monkeypatch.setattr(dataset, "MOST_BATCHES", 2)
    after = Corpus([path])
    assert (before.batch_sizes, after.batch_sizes) == ([64, 64, 64, 8], [128, 72])
    after.cut(before.batch_dialogues)
    assert (after.batch_digests, after.digest) == (before.batch_digests, before.digest)
