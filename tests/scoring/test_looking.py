"""A look before running: ``show`` shows what is asked, and ``score --dry-run`` foresees what ``score`` then does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from judge import Options, load_judgments, look_ahead, score, show
from judge.cli.score import show_dry_run as dry_run
from judge.data.dataset import Corpus
from judge.data.dialogues import example_files
from judge.models.hardware import detect
from judge.robustness.prompt_variants import unique_tokens
from judge.scoring.parts import JUDGMENTS
from judge.scoring.preview import Foresight, Pace
from judge.scoring.setup import open_judge, open_model
from judge.types import STAND_IN, Dialogue
from tests.helpers.chatanime import METRICS, RESPONSE_DIVERSITY
from tests.helpers.commands import refused, typed
from tests.helpers.rubric import ByStandIn


@pytest.fixture
def options(by_stand_in: ByStandIn) -> Callable[..., Options]:
    """Options of a run in a folder on six dialogues: ``options(folder, **more)``."""
    return lambda folder, **more: by_stand_in(folder / "run", **{"limit": 6, "metrics": METRICS, **more})


# Before a run


def test_what_is_foreseen_is_what_is_done_and_nothing_is_written(
    options: Callable[..., Options], tmp_path: Path, stand_in: Path
) -> None:
    before = look_ahead([], options(tmp_path))
    assert not list(tmp_path.iterdir())
    score([], options(tmp_path))
    judgments = load_judgments(tmp_path / "run")
    assert (before.judge, before.dialogues, before.judgments) == (STAND_IN, 6, len(judgments))
    assert (before.judgments_done, before.units_done) == (0, 0)
    assert before.prompt_tokens == judgments["prompt_tokens"].sum()
    assert before.judge_id == judgments["judge_id"].iloc[0]
    judge = open_judge(options(tmp_path), open_model(options(tmp_path), detect()))
    trees = [one.trees[0] for one in judge.prompts(list(Corpus(example_files(), limit=6)), METRICS)]
    assert before.unique_tokens == unique_tokens(trees) < before.prompt_tokens / 10


def test_what_is_there_is_not_to_do(options: Callable[..., Options], tmp_path: Path, stand_in: Path) -> None:
    all_of_it = options(tmp_path, limit=None, metrics=("fluency",))
    score([], all_of_it)
    done = look_ahead([], all_of_it)
    assert (done.judgments_done, done.prompt_tokens, done.unique_tokens, done.pace) == (done.judgments, 0, 0, None)
    assert done.seconds is None and done.units_done == done.units == 2
    part = next((tmp_path / "run" / JUDGMENTS).iterdir())
    lost = len(pd.read_parquet(part))
    part.unlink()
    some = look_ahead([], all_of_it)
    assert (some.judgments_done, some.units_done) == (some.judgments - lost, 1) and 0 < lost < 72
    assert not part.exists()


def test_answers_that_are_rated_together_are_counted(
    options: Callable[..., Options], tmp_path: Path, stand_in: Path
) -> None:
    both = look_ahead([], options(tmp_path, metrics=("fluency", RESPONSE_DIVERSITY)))
    alone = look_ahead([], options(tmp_path, metrics=("fluency",)))
    assert both.judgments - alone.judgments == len(Corpus(example_files(), limit=6).roles())
    assert both.unique_tokens > alone.unique_tokens


def test_the_pace_is_measured_and_said_to_be(
    options: Callable[..., Options], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run([], options(tmp_path), as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    pace = found["pace"]
    assert pace["engine"] == "packed" and 1 <= pace["dialogues"] <= 6
    rest = found["unique_tokens"] - pace["first_tokens"]
    assert found["seconds"] == pytest.approx(pace["first_seconds"] + rest * pace["seconds"] / pace["tokens"])
    assert 0 < pace["weights_gib"] < pace["peak_gib"] and pace["kept_gib"] > 0
    assert dry_run([], options(tmp_path), as_json=False) == 0
    text = capsys.readouterr().out
    assert "nothing was written" in text and "dialogues just now" in text and "54 to do" in text


def test_a_rate_becomes_a_time() -> None:
    pace = Pace("packed", 4, 1000, 2.0, 800, 1.6, 9.0, 1.0, 0.5, 2.0)
    found = Foresight(Path("r"), "j", "id", 10, 1, 0, 90, 0, 100_000, 5_000, pace)
    assert found.seconds == 1.6 + 4200 / 1000 * 2.0


def test_a_run_of_another_judge_is_refused_before_anything_is_measured(
    options: Callable[..., Options], tmp_path: Path, stand_in: Path
) -> None:
    score([], options(tmp_path, limit=1))
    result = typed("score", "--dry-run", "--run", "run", "--judge", "stand-in", "--layout", "question", cwd=tmp_path)
    refused(result, "holds judgments of", "layout")


# What is asked


def test_what_is_shown_is_what_is_asked(example: list[Dialogue], stand_in: Path) -> None:
    for layout in ("prefill", "question", "separate"):
        how = Options(judge="stand-in", layout=layout)
        shown = show(example[3].id, [], how)
        judge = open_judge(how, open_model(how, detect()))
        tree = judge.prompts([example[3]], METRICS)[0].trees[0]
        decode = judge.writers[0].tokenizer.text
        trunk = sum((part.token_ids for part in shown.trunk), ())
        for number, leaf in enumerate(shown.leaves):
            prompt = tree.prompt(number)
            assert trunk + leaf.token_ids == prompt and shown.length(leaf) == len(prompt)
            assert "".join(part.text for part in (*shown.trunk, leaf)) == decode(prompt)
        assert [leaf.name for leaf in shown.leaves] == list(METRICS)
        assert {n: {t for _, t in found} for n, found in shown.level_tokens.items()} == {
            n: set(ids) for n, ids in enumerate(judge.level_ids, 1)
        }
        assert (shown.judge_id, shown.dialogue) == (judge.identity.judge_id, example[3])


def test_a_metric_alone_is_shown_as_text(tmp_path: Path, example: list[Dialogue]) -> None:
    result = typed("show", example[0].id, "--metric", "fluency", "--layout", "separate", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert example[0].content_digest in result.stdout and f"> {example[0].turns[0].user}" in result.stdout
    assert result.stdout.count("## 流畅性") == 1 and "## 连贯性" not in result.stdout
    assert "━━ fluency: " in result.stdout and "1: '1' (" in result.stdout


def test_json_has_the_tokens(tmp_path: Path, example: list[Dialogue]) -> None:
    found = json.loads(typed("show", example[0].id, "--metric", "fluency", "--json", cwd=tmp_path).stdout)
    (leaf,) = found["leaves"]
    tokens = [part["tokens"] for part in found["trunk"]] + [leaf["tokens"]]
    assert leaf["prompt_tokens"] == sum(tokens) and all(tokens)
    assert [part["name"] for part in found["trunk"]] == ["root", "character", "opening", "dialogue"]
    assert [len(part["token_ids"]) for part in found["trunk"]] == tokens[:-1]


def test_no_text_of_a_dialogue_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    evil = "\x1b[2J\x07\x9b31m\u202e\r新的一行"
    row = {"source": "s", "character": "c", "scenario": "1", "question_r1": evil, "answer_r1": evil, "profile": evil}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    result = typed("show", "s/c/1", "a.jsonl", "--judge", "stand-in", cwd=tmp_path)
    assert result.returncode == 0 and "新的一行" in result.stdout
    assert not [char for char in result.stdout if not char.isprintable() and char != "\n"]
