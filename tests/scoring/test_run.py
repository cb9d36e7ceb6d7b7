"""A run: complete, resumable to the byte, and never mistaken for another."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from judge import load_judgments, score
from judge.data import dataset
from judge.data.dialogues import example_dialogues
from judge.engines import Array
from judge.engines.packed.engine import PackedEngine
from judge.errors import EngineError, InputError, Interrupted, UnfitJudge
from judge.progress import Silent
from judge.prompting.prompt_tree import Ids, PromptTree
from judge.scoring.judge import Judge
from judge.scoring.parts import JUDGMENTS, schema
from judge.scoring.run_folder import Store, read_manifest
from tests.helpers.chatanime import LEVELS, METRICS, RESPONSE_DIVERSITY
from tests.helpers.rubric import ByStandIn


def test_what_cannot_be_a_run_is_an_input_error(tmp_path: Path) -> None:
    for name in ("nowhere", "x" * 300, "a\0b"):
        with pytest.raises(InputError):
            load_judgments(tmp_path / name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sources made of the example's two, with texts cut short: 144 dialogues in 5 batches."""
    path = tmp_path_factory.mktemp("data") / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows(4)), encoding="utf-8")
    return path


def rows(sources: int) -> list[dict[str, str]]:
    return [
        {
            "source": f"{dialogue.source}-{copy}",
            "character": dialogue.character,
            "scenario": dialogue.scenario,
            **{f"question_r{i}": turn.user[:8] for i, turn in enumerate(dialogue.turns, 1)},
            **{f"answer_r{i}": turn.character[:16] + "。" * copy for i, turn in enumerate(dialogue.turns, 1)},
        }
        for copy in range(sources // 2)
        for dialogue in example_dialogues()
    ]


StandInRun = Callable[..., Path]


@pytest.fixture(scope="module")
def stand_in_run(by_stand_in: ByStandIn) -> StandInRun:
    """Scores data into a run: ``stand_in_run(data, run, **options)``."""
    return lambda data, run, **more: score([data], by_stand_in(run, **more)).run


@pytest.fixture(scope="module")
def unbroken(stand_in_run: StandInRun, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in_run(data, tmp_path_factory.mktemp("runs") / "unbroken")


TABLES = ("scores.csv", "leaderboard.csv", "diversity.csv")


def assert_same(run: Path, unbroken: Path) -> None:
    for name in TABLES:
        assert (run / name).read_bytes() == (unbroken / name).read_bytes()
    parts = sorted(path.relative_to(unbroken) for path in unbroken.rglob("part-*.parquet"))
    assert parts == sorted(path.relative_to(run) for path in run.rglob("part-*.parquet"))
    for part in parts:
        assert (run / part).read_bytes() == (unbroken / part).read_bytes()


def test_every_dialogue_has_every_judgment(unbroken: Path) -> None:
    judgments = load_judgments(unbroken)
    assert list(judgments.columns) == schema(JUDGMENTS, LEVELS).names
    assert len(judgments) == 144 * 9 == len(judgments.drop_duplicates(["source", "character", "scenario", "metric"]))
    levels = judgments[[f"p{level}" for level in range(1, 6)]]
    assert np.allclose(levels.sum(axis=1), 1)
    assert np.allclose(levels @ np.arange(1, 6), judgments["score"])
    assert judgments["error"].isna().all()
    assert set(judgments["judge"]) == {"STAND-IN"}
    assert judgments["prompt_tokens"].between(300, 600).all()


def test_tables_say_what_they_hold(unbroken: Path) -> None:
    scores = pd.read_csv(unbroken / "scores.csv")
    board = pd.read_csv(unbroken / "leaderboard.csv")
    diversity = pd.read_csv(unbroken / "diversity.csv")
    assert len(scores) == 144 and list(scores.columns[4:13]) == list(METRICS)
    assert len(board) == 4 * 13 and set(board["target"]) == {"judge mean"}
    assert ((board["low"] < board["mean"]) & (board["mean"] < board["high"])).all()
    assert list(diversity["level"]) == ["character"] * 12 + ["source"] * 4
    assert diversity[RESPONSE_DIVERSITY].between(1, 5).all()
    assert {*scores["judge"], *board["judge"], *diversity["judge"]} == {"STAND-IN"}


def test_the_manifest_says_what_was_judged_by_what(unbroken: Path) -> None:
    manifest = json.loads((unbroken / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["judge"]["name"] == "STAND-IN"
    assert manifest["data"]["dialogues"] == 144
    assert manifest["judgments"] == 144 * 9 + 12 and manifest["missing"] == {}
    assert manifest["engines"] == [{"name": "packed", "batch_tokens": 4096, "out_of_memory": 0}]
    assert manifest["finished"] and manifest["seconds"] > 0


def test_the_same_call_again_judges_nothing_and_changes_nothing(
    stand_in_run: StandInRun, data: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "engine", property(lambda self: pytest.fail("the model was loaded")))
    before = {path: path.read_bytes() for path in unbroken.rglob("*") if path.is_file()}
    stand_in_run(data, unbroken)
    after = {path: path.read_bytes() for path in unbroken.rglob("*") if path.is_file()}
    assert after == before


class StopAfter(Silent):
    """Asks the run to stop, as Ctrl-C does, once so many judgments were written."""

    def __init__(self, judgments: int, number: signal.Signals) -> None:
        self.left, self.number = judgments, number

    def advance(self, judgments: int, tokens: int) -> None:
        self.left -= judgments
        if self.left <= 0:
            self.left = 10**9
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("judgments", "number"), [(1, signal.SIGINT), (700, signal.SIGTERM), (144 * 9, signal.SIGINT)])
def test_a_run_stopped_politely_saves_its_unit_and_goes_on_to_the_same_bytes(
    by_stand_in: ByStandIn,
    stand_in_run: StandInRun,
    data: Path,
    unbroken: Path,
    tmp_path: Path,
    judgments: int,
    number: signal.Signals,
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="run the same command again to go on"):
        score([data], by_stand_in(run), StopAfter(judgments, number))
    there = len(load_judgments(run))
    assert judgments <= there <= max(judgments + 64 * 9, 144 * 9)
    assert not (run / "scores.csv").exists()
    stand_in_run(data, run)
    assert_same(run, unbroken)


def test_a_run_whose_data_grow_keeps_the_size_of_its_batches(
    stand_in_run: StandInRun, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MOST_BATCHES", 2)
    data, run = tmp_path / "mine.jsonl", tmp_path / "run"
    for sources in (2, 4):
        data.write_text("\n".join(json.dumps(row) for row in rows(sources)), encoding="utf-8")
        stand_in_run(data, run)
    assert dataset.batch_size(len(rows(4))) == 128  # in a run that begins now
    assert read_manifest(run)["data"]["batch_dialogues"] == 64
    assert read_manifest(run)["units"] == read_manifest(unbroken)["units"]


def test_an_edited_answer_is_judged_anew_and_the_old_judgment_kept_apart(
    stand_in_run: StandInRun, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    edited = tmp_path / "mine.jsonl"
    first, *others = rows(4)
    edited.write_text(
        "\n".join(json.dumps(row) for row in [{**first, "answer_r1": "改了。"}, *others]), encoding="utf-8"
    )
    stand_in_run(edited, run)
    now, before = load_judgments(run), load_judgments(unbroken)
    assert len(now) == len(before)
    changed = set(now["content_digest"]) - set(before["content_digest"])
    assert len(changed) == 1
    on_disk = pd.concat([pq.read_table(path).to_pandas() for path in run.glob("judgments/part-*.parquet")])
    assert set(before["content_digest"]) | changed == set(on_disk["content_digest"])


def test_another_judge_in_the_folder_is_refused_with_the_difference(
    stand_in_run: StandInRun, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    before = sorted(unbroken.rglob("*"))
    with pytest.raises(InputError, match="differs from STAND-IN in layout; choose another --run"):
        stand_in_run(data, unbroken, layout="question")
    with pytest.raises(InputError, match="differs from STAND-IN in rubric, language"):
        stand_in_run(data, unbroken, language="en")
    assert sorted(unbroken.rglob("*")) == before


def test_other_metrics_in_the_folder_are_refused(stand_in_run: StandInRun, data: Path, unbroken: Path) -> None:
    with pytest.raises(InputError, match=r"holds judgments on fluency, .* and not on fluency; choose another --run"):
        stand_in_run(data, unbroken, metrics=("fluency",))


def test_the_same_model_under_another_name_goes_on_under_the_first(
    by_stand_in: ByStandIn, data: Path, unbroken: Path, stand_in: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    next(run.glob("judgments/part-*.parquet")).unlink()
    copy = shutil.copytree(stand_in, tmp_path / "other-name")
    assert score([data], by_stand_in(run, judge=str(copy))).judge == "STAND-IN"
    assert_same(run, unbroken)


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"judge": 1}', "{"])
def test_a_manifest_that_is_none_is_refused(
    stand_in_run: StandInRun, data: Path, unbroken: Path, tmp_path: Path, content: str
) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (run / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest.json: .*restore it or choose another --run"):
        stand_in_run(data, run)


def test_a_damaged_part_is_told_set_aside_and_judged_again(
    by_stand_in: ByStandIn, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    first, second, third, *_ = sorted(run.glob("judgments/part-*.parquet"))
    first.write_bytes(first.read_bytes()[:500])
    second.write_bytes(b"")
    table = pq.read_table(third)
    place = table.schema.get_field_index("score")
    pq.write_table(
        table.set_column(place, table.schema.field(place), table["score"].take(list(range(len(table)))[::-1])), third
    )
    listener = Noting()
    score([data], by_stand_in(run), listener)
    assert sum("a part was damaged since it was written" in note for note in listener.notes) == 3
    assert {path.stat().st_size for path in (run / "damaged").iterdir()} >= {500, 0}
    assert_same(run, unbroken)


class Noting(Silent):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_what_killed_writers_left_a_day_ago_is_removed_and_nothing_younger(
    stand_in_run: StandInRun, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    old, young = run / "judgments" / ".part-0.parquet-old", run / ".scores.csv-young"
    for path in (old, young):
        path.write_text("half", encoding="utf-8")
    os.utime(old, (time.time() - 90_000,) * 2)
    os.utime(young, (time.time() - 82_800,) * 2)
    stand_in_run(data, run)
    assert not old.exists() and young.exists()


def test_sources_that_share_few_scenarios_are_remarked_on(by_stand_in: ByStandIn, data: Path, tmp_path: Path) -> None:
    some = [row for row in rows(2) if (row["source"], row["scenario"]) != ("plain-0", "1")]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in some), encoding="utf-8")
    listener = Noting()
    score([path], by_stand_in(tmp_path / "run", metrics=("fluency",)), listener)
    assert any("only 33 of 36 pairs" in note for note in listener.notes)


def test_two_orderings_are_averaged(stand_in_run: StandInRun, data: Path, tmp_path: Path, unbroken: Path) -> None:
    judgments = load_judgments(stand_in_run(data, tmp_path / "run", orderings=2, limit=5))
    one = load_judgments(unbroken).merge(judgments, on=["source", "character", "scenario", "metric"])
    assert len(one) == 45
    assert (one["score_x"] - one["score_y"]).abs().max() > 1e-3
    assert set(one["judge_id_x"]).isdisjoint(one["judge_id_y"])


def test_metrics_may_be_chosen(stand_in_run: StandInRun, data: Path, tmp_path: Path, unbroken: Path) -> None:
    run = stand_in_run(data, tmp_path / "run", metrics=("speech_style", "fluency"), limit=4)
    judgments = load_judgments(run)
    assert sorted(set(judgments["metric"])) == ["fluency", "speech_style"]
    assert not (run / "diversity.csv").exists()
    same = load_judgments(unbroken).merge(judgments, on=["source", "character", "scenario", "metric"])
    assert len(same) == 8 and np.allclose(same["score_x"], same["score_y"], atol=1e-5)


def test_an_empty_answer_and_a_prompt_that_is_too_long_are_typed_and_the_rest_is_done(
    by_stand_in: ByStandIn, tmp_path: Path
) -> None:
    some = rows(2)[:6]
    some[1]["answer_r2"] = " \n"
    some[2]["answer_r1"] = "长" * 40_000
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in some), encoding="utf-8")
    result = score([path], by_stand_in(tmp_path / "run"))
    assert {name: result.missing[name] for name in ("empty_answer", "too_long")} == {
        "empty_answer": 9,
        "too_long": 10,
    }  # the nine, and the role's diversity
    judgments = load_judgments(tmp_path / "run").set_index("error")
    assert judgments.loc[["empty_answer", "too_long"], ["p1", "mass", "score"]].isna().all().all()
    assert judgments["score"].notna().sum() == 4 * 9
    board = pd.read_csv(tmp_path / "run" / "leaderboard.csv")
    assert set(board["missing"]) == {2}


class Answering:
    """An engine that answers from a function of the tree, to drive what a real one rarely does."""

    window, max_tokens, name, report = 1, 10**6, "fake", {"name": "fake"}

    def __init__(self, answer: Callable[[int], Array]) -> None:
        self.answer = answer

    def verify(self, tree: PromptTree) -> None:
        """Right by definition."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        return [self.answer(len(tree.leaves)) for tree in trees]


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], Array]) -> None:
    monkeypatch.setattr("judge.scoring.setup._engine", lambda *asked: lambda: Answering(answer))


def test_a_judge_that_does_not_answer_with_a_level_is_stopped(
    stand_in_run: StandInRun, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, lambda leaves: np.log(np.full((leaves, 5), 0.15)))
    for _ in range(2):  # trying again does not make it fit
        with pytest.raises(UnfitJudge, match=r"does not answer with a level: .* is 0\.750, under 0\.8") as error:
            stand_in_run(data, tmp_path / "run")
        assert "run the same command" not in str(error.value)
    assert not (tmp_path / "run" / "scores.csv").exists()


@pytest.mark.parametrize("options", [{"limit": 3}, {"metrics": (RESPONSE_DIVERSITY,)}])
@pytest.mark.parametrize("share", [0.15, np.nan])
def test_a_judge_that_does_not_understand_is_stopped_on_little_data_too_and_on_every_try(
    stand_in_run: StandInRun,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    share: float,
) -> None:
    answer_with(monkeypatch, lambda leaves: np.log(np.full((leaves, 5), share)))
    for _ in range(2):
        with pytest.raises(UnfitJudge):
            stand_in_run(data, tmp_path / "run", **options)


def test_numbers_that_are_not_finite_are_missing_judgments(
    by_stand_in: ByStandIn, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10**6))
    bad, good = np.full((1, 5), np.nan), np.log(np.full((1, 5), 0.2))
    answer_with(monkeypatch, lambda leaves: bad if next(calls) % 4 == 0 else good)
    result = score([data], by_stand_in(tmp_path / "run", metrics=("fluency",)))
    assert result.missing == {"not_finite": 144 // 4}
    assert load_judgments(result.run)["score"].isna().sum() == 144 // 4


def test_an_engine_that_dies_leaves_what_was_judged_and_says_how_to_go_on(
    stand_in_run: StandInRun, data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(3))
    real = PackedEngine.level_logprobs

    def dying(self: PackedEngine, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        if next(calls, None) is None:
            raise EngineError("the GPU fell off the bus")
        return real(self, trees, level_ids)

    monkeypatch.setattr(PackedEngine, "level_logprobs", dying)
    with pytest.raises(EngineError, match=r"off the bus; 972 of 1,308 judgments are saved in .*run the same command"):
        stand_in_run(data, tmp_path / "run")
    assert len(list((tmp_path / "run").glob("judgments/part-*.parquet"))) == 3
    monkeypatch.undo()
    stand_in_run(data, tmp_path / "run")
    assert_same(tmp_path / "run", unbroken)


def test_a_unit_with_a_transient_error_is_tried_again(
    stand_in_run: StandInRun, data: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(unbroken, tmp_path / "run"))
    part = next(run.glob("judgments/part-*.parquet"))
    table = pq.read_table(part).to_pylist()
    table[0] |= {"score": None, "error": "engine_failed"}
    Store(run).write_part(JUDGMENTS, part.stem.removeprefix("part-"), table)
    stand_in_run(data, run)
    assert_same(run, unbroken)


def test_no_temporary_file_is_left(unbroken: Path) -> None:
    assert not [path for path in unbroken.rglob("*") if path.name.startswith(".")]
