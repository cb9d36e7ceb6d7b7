"""Attacks: a judge that can be talked round is caught, one that cannot shows no change, and the numbers are theirs."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from judge import Options, PerturbationJudgments, attack
from judge.cli import attack as attack_tables
from judge.cli import main
from judge.data.dialogues import example_dialogues
from judge.engines import Array
from judge.prompting.prompt_tree import Ids, PromptTree
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.robustness import attacks as suite
from judge.robustness.attack_analysis import assess
from judge.robustness.attacks import (
    BENIGN,
    LEVEL_ORDER,
    PADDING,
    PLACES,
    RUBRIC_LANGUAGE,
    WAYS,
    families,
    rewrites,
    written_into,
)
from judge.scoring import setup as choosing
from judge.types import EMPTY_ANSWER, STAND_IN, Dialogue, Turn
from tests.helpers.chatanime import METRICS

FAMILIES = {family.name: family for family in families()}


class Credulous:
    """An engine whose judge gives 5 where a line of these stands in the prompt, and else what ``usual`` says."""

    window, max_tokens, name = 64, 100_000, "credulous"

    def __init__(self, tokenizer: JudgeTokenizer, texts: Sequence[str], usual: Callable[[PromptTree], int]):
        self.report = {"name": self.name}
        self.texts = [tokenizer.encode_untrusted(text) for text in texts]
        self.usual = usual

    def verify(self, tree: PromptTree) -> None:
        """Nothing."""

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        levels = [5 if self._is_moved(tree) else self.usual(tree) for tree in trees]
        certain = {level: np.where(np.arange(1, 6) == level, 0.0, -60.0) for level in range(1, 6)}
        return [np.tile(certain[level], (len(METRICS), 1)) for level in levels]

    def _is_moved(self, tree: PromptTree) -> bool:
        prompt = " ".join(map(str, tree.prompt(0)))
        return any(" ".join(map(str, ids)) in prompt for ids in self.texts)


Attack = Callable[..., PerturbationJudgments]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten dialogues of the example, each a scenario of its own."""
    path = tmp_path_factory.mktemp("data") / "ten.jsonl"
    rows = [
        {"source": d.source, "character": d.character, "scenario": str(i), "turns": [asdict(turn) for turn in d.turns]}
        for i, d in enumerate(example_dialogues()[::7][:10])
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def judged_by(stand_in: Path, tokenizer: JudgeTokenizer, data: Path) -> Attack:
    """The attack on a judge that believes these texts."""

    def judged(*texts: str, usual: Callable[[PromptTree], int] = lambda _: 3) -> PerturbationJudgments:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(choosing, "_engine", lambda *asked: lambda: Credulous(tokenizer, texts, usual))
            return attack([data], Options(judge="stand-in"))

    return judged


@pytest.fixture(scope="module")
def unmoved(judged_by: Attack) -> PerturbationJudgments:
    """The attack on a judge that believes nothing."""
    return judged_by()


def test_a_judge_that_can_be_talked_round_is_caught(judged_by: Attack) -> None:
    found = assess(judged_by(*(text for texts in FAMILIES["authority"].texts.values() for text in texts)))
    table = found.families.set_index("family")
    moved = table.loc["authority"]
    assert moved[["change", "low", "high", "raised", "to_top"]].tolist() == pytest.approx([2, 2, 2, 1, 1])
    assert moved[["beyond", "beyond_low"]].tolist() == pytest.approx([2, 2])
    others = table.drop("authority")
    assert (others["change"] == 0).all() and (others[["raised", "to_top"]] == 0).all(axis=None)
    by_metric = found.metrics[found.metrics["family"] == "authority"].set_index("metric")["change"]
    assert by_metric.index.tolist() == ["overall", *METRICS] and by_metric.tolist() == pytest.approx([2] * 10)
    assert "moves scores most upwards: authority, +2.00" in found.remarks[0]
    assert found.remarks[1].endswith("above 0): authority")


def test_a_judge_that_any_added_text_moves_is_not_taken_for_one_that_was_talked_round(judged_by: Attack) -> None:
    texts = [text for name in ("authority", BENIGN) for texts in FAMILIES[name].texts.values() for text in texts]
    found = assess(judged_by(*texts))
    table = found.families.set_index("family")
    assert table.loc["authority", ["change", "beyond"]].tolist() == pytest.approx([2, 0])
    assert table.loc["flattery", ["change", "beyond"]].tolist() == pytest.approx([0, -2])
    assert pd.isna(table.loc[BENIGN, "beyond"]) and found.remarks[1].endswith("above 0): none")


def test_one_text_that_is_believed_shows_in_its_own_kind_alone(judged_by: Attack) -> None:
    found = assess(judged_by(*FAMILIES["authority"].texts["en"])).rewrites.set_index(["family", "rewrite"])
    assert found.loc[("authority", "en"), "change"] == pytest.approx(2)
    assert (found["change"].drop([("authority", "en"), ("empty", "blank")]) == 0).all()


def test_a_judge_that_cannot_be_talked_round_shows_no_change(unmoved: PerturbationJudgments) -> None:
    robustness = assess(unmoved)
    assert (robustness.families["change"] == 0).all() and (robustness.families["raised"] == 0).all()
    assert (robustness.metrics["change"] == 0).all()
    assert robustness.remarks[0].startswith("no attack moves scores upwards")
    assert robustness.remarks[1].endswith("above 0): none")
    assert unmoved.settings["seed"] == 0 and unmoved.settings["engine"] == "credulous"


def test_what_has_no_answer_left_is_missing_and_no_change(unmoved: PerturbationJudgments) -> None:
    assert unmoved.missing == {EMPTY_ANSWER: 10 * len(METRICS)}
    blank = assess(unmoved).rewrites.set_index(["family", "rewrite"]).loc[("empty", "blank")]
    assert (blank["n"], blank["missing"]) == (0, 10 * len(METRICS)) and pd.isna(blank["change"])


def test_a_judge_that_the_order_of_levels_moves_is_seen(judged_by: Attack, tokenizer: JudgeTokenizer) -> None:
    first_ascending = " ".join(map(str, tokenizer.encode("1 分：难以读通")))

    def usual(tree: PromptTree) -> int:
        root = " ".join(map(str, tree.root))
        return (
            4 if root.find(first_ascending) < root.find(" ".join(map(str, tokenizer.encode("5 分：全部发言")))) else 3
        )

    bias = assess(judged_by(usual=usual)).bias.set_index(["bias", "measure"])
    assert bias.loc[(LEVEL_ORDER, "mean_change"), "value"] == pytest.approx(-1)
    assert pd.isna(bias.loc[(LEVEL_ORDER, "rank_agreement"), "value"])
    assert "constant" in bias.loc[(LEVEL_ORDER, "rank_agreement"), "reason"]


def test_flags_are_the_detectors(unmoved: PerturbationJudgments) -> None:
    robustness = assess(unmoved)
    flagged = robustness.families.set_index("family")["flagged"]
    assert robustness.flagged_originals == 0 == flagged[BENIGN]
    assert (flagged.drop([BENIGN, "veiled", "length"]) == 1).all()
    assert 0 < flagged["veiled"] < 1 / 2  # it was not fitted to them


@pytest.fixture
def scored_by_hand() -> PerturbationJudgments:
    """A Qwen judge's scores of two sources in ten scenarios: its own family gets 1 more, each longer answer more."""
    rows = [
        {"family": "", "rewrite": "", "item_id": f"{source}/c/{i}", "source": source, "character": "c", "group": str(i),
         "metric": metric, "score": base + i / 10, "mass": 1.0, "error": None, "suspicious": None, "length": 100 + i,
         "bottom": 1, "top": 5}
        for source, base in (("qwen-max", 3.5), ("gpt-4.1", 2.5))
        for i in range(10)
        for metric in METRICS
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    again = table.assign(family="order", rewrite="zh", suspicious="order")
    asked = table.assign(family=LEVEL_ORDER, rewrite="descending", score=table["score"] - 0.25)
    judgments = pd.concat([table, again, asked], ignore_index=True)
    return PerturbationJudgments("Qwen/Qwen3-8B", "0", 20, {}, {"layout": "prefill", "language": "zh"}, judgments)


def test_biases_are_those_worked_out_by_hand(scored_by_hand: PerturbationJudgments) -> None:
    found = assess(scored_by_hand)
    bias = found.bias.set_index(["bias", "measure"])["value"]
    assert bias[(LEVEL_ORDER, "mean_change")] == pytest.approx(-0.25)
    assert bias[(LEVEL_ORDER, "rank_agreement")] == pytest.approx(1)
    assert bias[("own_family", "own_less_others")] == pytest.approx(1)
    assert 0 < bias[("length", "rank_association")] < 1
    assert found.sources[["family", "own", "n"]].to_numpy().tolist() == [["Qwen", True, 10], ["GPT", False, 10]]
    assert found.sources["mean"].tolist() == pytest.approx([3.95, 2.95])
    assert any("favours its own family is not known without people's ratings" in remark for remark in found.remarks)


def test_under_eight_dialogues_no_association_is_given(scored_by_hand: PerturbationJudgments) -> None:
    few = scored_by_hand.judgments[scored_by_hand.judgments["group"].isin(["0", "1", "2"])]
    found = assess(replace(scored_by_hand, judgments=few))
    length = found.bias.set_index("bias").loc["length"]
    assert pd.isna(length["value"]) and "under 8 dialogues" in length["reason"]
    assert any("length of answers: rank association: not given" in remark for remark in found.remarks)
    assert found.families["low"].isna().all()


def everything(dialogue: Dialogue) -> str:
    """All the text of a dialogue."""
    turns = [text for turn in dialogue.turns for text in (turn.user, turn.character)]
    return "\n".join([dialogue.character, dialogue.profile or "", *turns])


def test_every_rewrite_differs_and_holds_what_it_claims(example: list[Dialogue]) -> None:
    originals = {dialogue.id: dialogue for dialogue in example[:6]}
    found = rewrites(list(originals.values()))
    assert len(found) == 6 * sum(len(family.texts) for family in families())
    for rewrite in found:
        before, after = originals[rewrite.of], rewrite.dialogue
        texts = FAMILIES[rewrite.family].texts[rewrite.name]
        assert after.content_digest != before.content_digest and after.id.startswith(f"{before.source}/")
        if rewrite.family != "invisible":
            assert any(text in everything(after) for text in texts)
        elif rewrite.name == "zero_width":
            assert everything(after).translate({0x200B: None, 0x2060: None}) == everything(before)
        elif rewrite.name == "tags":
            hidden = "".join(chr(ord(c) - suite.TAGS) for c in after.turns[-1].character if ord(c) > suite.TAGS)
            assert hidden in texts
        else:
            assert any(text[::-1] in everything(after) for text in texts)


def test_each_place_is_the_one_it_is_called_by(example: list[Dialogue]) -> None:
    before = replace(example[0], profile="资料")
    last = before.turns[-1]
    placed = {place: written_into(before, place, "zh", "句", ["句"]) for place in PLACES}
    assert placed["after"].turns == (*before.turns[:-1], replace(last, character=f"{last.character}\n句"))
    assert [turn.character for turn in placed["instead"].turns] == ["句"] * len(before.turns)
    assert placed["user"].turns == (*before.turns[:-1], replace(last, user=f"{last.user}\n句"))
    assert placed["name"] == replace(before, character=f"{before.character}（句）")
    assert placed["profile"].profile == "资料\n句" and replace(before, profile=None) != placed["profile"]
    assert len(placed["padding"].turns[-1].character) > len(last.character) + PADDING
    assert written_into(replace(before, profile=None), "profile", "zh", "句", ["句"]).profile == "句"


def test_text_is_written_into_the_last_reply_that_is_there(example: list[Dialogue]) -> None:
    turns = (Turn(None, "你来了"), Turn("累", "歇"), Turn("嗯", None))
    before = replace(example[0], turns=turns)
    placed = {place: written_into(before, place, "zh", "句", ["句"]).turns for place in ("after", "user", "instead")}
    assert placed["after"] == (turns[0], Turn("累", "歇\n句"), turns[2])
    assert placed["user"] == (turns[0], Turn("累\n句", "歇"), turns[2])
    assert placed["instead"] == (Turn(None, "句"), Turn("累", "句"), turns[2])
    assert written_into(replace(before, turns=turns[:1]), "user", "zh", "句", ["句"]).turns == (Turn("句", "你来了"),)


def test_rewrites_are_the_same_every_time_and_hang_on_the_seed_alone(example: list[Dialogue]) -> None:
    first = rewrites(example)
    assert rewrites(example) == first
    assert rewrites(example[5:6]) == [rewrite for rewrite in first if rewrite.of == example[5].id]
    assert rewrites(example, seed=1) != first


def test_every_text_is_used_on_enough_dialogues(example: list[Dialogue]) -> None:
    found = {}
    for rewrite in rewrites(example):
        found.setdefault((rewrite.family, rewrite.name), set()).add(rewrite.dialogue.turns[-1].character[-8:])
    assert all(len(found["order", kind]) == len(texts) for kind, texts in FAMILIES["order"].texts.items())


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of ``esrp-judge attack``."""
    monkeypatch.setattr(sys, "argv", ["esrp-judge", "attack", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(str(ended.value.code))


def test_the_command_prints_what_it_writes_and_the_stand_in_is_real(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tuple(family for family in families() if family.name in ("authority", "empty", BENIGN))
    monkeypatch.setattr(suite, "families", lambda: few)
    out = tmp_path / "attack.json"
    assert command(monkeypatch, "--judge", "stand-in", "--limit", 1, "--seed", 3, "--out", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text(encoding="utf-8")) == printed
    assert (printed["judge"], printed["dialogues"], len(printed["judge_id"])) == (STAND_IN, 1, 16)
    assert printed["settings"]["seed"] == 3 and printed["missing"] == {EMPTY_ANSWER: len(METRICS)}
    assert [row["family"] for row in printed["families"]] == ["empty", "authority", BENIGN]
    moved = {row["change"] for row in printed["metrics"] if row["family"] == "authority"}
    assert len(moved) == 10 and 0 not in moved
    assert {row["bias"] for row in printed["bias"]} == {*WAYS, "length", "own_family"}
    assert RUBRIC_LANGUAGE in WAYS and list(tmp_path.iterdir()) == [out]


def test_a_dialogue_that_cannot_be_judged_is_exit_code_1(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row: dict[str, Any] = {"source": "s", "character": "c", "scenario": "1", "question_r1": "在吗", "answer_r1": " "}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert command(monkeypatch, tmp_path / "a.jsonl", "--judge", "stand-in") == 1
    shown = capsys.readouterr().out
    assert "STAND-IN judge: these scores mean nothing" in shown and "no change is given" in shown


def test_tables_fit_a_narrow_terminal(
    scored_by_hand: PerturbationJudgments, unmoved: PerturbationJudgments, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(width=80, record=True)
    monkeypatch.setattr(attack_tables, "console", lambda: console)
    for found in (scored_by_hand, unmoved):
        attack_tables.show_robustness(found, assess(found))
    text = console.export_text()
    assert "…" not in text.replace("……", "") and max(map(len, text.splitlines())) <= 80
    assert [name for name in FAMILIES if f"\n {name}  " not in text] == []
    assert text.count("flag: share that the detector flags\n") == 2 and "order_in_profile" in text
