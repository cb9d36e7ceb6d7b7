"""``probe`` with the stand-in: what is judged are the degraded forms, and what is printed is what was found."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from judge import Options, assess_probes, probe
from judge.cli import main
from judge.cli import probe as probe_tables
from judge.models.hardware import detect
from judge.robustness import degradations
from judge.robustness import probes as probing
from judge.robustness.degradations import DEGRADATIONS, STRENGTHS, degrade
from judge.robustness.probes import Probed
from judge.scoring.setup import open_judge, open_model
from judge.types import STAND_IN, Dialogue
from tests.helpers.chatanime import METRICS
from tests.helpers.rubric import ByStandIn

TWO = ("shuffled", "cold")


@pytest.fixture(scope="module")
def three(by_stand_in: ByStandIn) -> Options:
    """Three dialogues of the example, by the stand-in."""
    return by_stand_in(sources=("plain",), limit=3)


@pytest.fixture(scope="module")
def probed(three: Options) -> Probed:
    with pytest.MonkeyPatch.context() as patch:
        for module in (degradations, probing):
            patch.setattr(module, "DEGRADATIONS", {name: DEGRADATIONS[name] for name in TWO})
        return probe([], three, seed=4)


def test_there_is_a_judgment_of_every_form_and_metric_and_a_text_of_every_form(probed: Probed) -> None:
    forms = {("", ""), *((name, strength) for name in TWO for strength in STRENGTHS)}
    counts = probed.judgments.groupby(["degradation", "strength"]).size().to_dict()
    assert counts == dict.fromkeys(forms, 3 * len(METRICS))
    assert probed.texts.groupby(["degradation", "strength"]).size().to_dict() == dict.fromkeys(forms, 3)
    assert (probed.judge, probed.dialogues, probed.missing) == (STAND_IN, 3, {})
    assert probed.applied == dict.fromkeys(TWO, 3) and probed.settings["seed"] == 4
    assert probed.aims == {"shuffled": "fluency", "cold": "emotional_value"}


def test_what_is_judged_is_the_degraded_dialogue(probed: Probed, three: Options, example: list[Dialogue]) -> None:
    known = {dialogue.id: dialogue for dialogue in example}
    one = known[str(probed.texts["item_id"].iloc[-1])]
    form = degrade(one, "cold", probing.Others((), ()), seed=4)[2]
    names = ["degradation", "strength", "item_id"]
    text = probed.texts.set_index(names)["text"][("cold", "strong", one.id)]
    assert text == "\n".join(turn.character for turn in form.turns)
    judge = open_judge(three, open_model(three, detect()))
    alone = [judgment.score for judgment in judge.judge(judge.prompts([form], METRICS), METRICS)[0].judgments]
    rows = probed.judgments.set_index([*names, "metric"])["score"]
    assert [rows[("cold", "strong", one.id, metric)] for metric in METRICS] == pytest.approx(alone, abs=1e-5)
    assert probed.judge_id == judge.identity.judge_id


@pytest.mark.parametrize(("width", "all_columns"), [(80, False), (120, True)])
def test_tables_fit_the_terminal(
    probed: Probed,
    width: int,
    all_columns: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(probe_tables, "console", lambda: Console(width=width, highlight=False))
    probe_tables.show_probes(probed, assess_probes(probed.judgments, probed.texts, probed.aims, STRENGTHS))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert all(f"{name} {strength}" in printed for name in TWO for strength in STRENGTHS)
    assert ("lower" in printed) == all_columns
    assert "STAND-IN judge: these scores mean nothing" in printed
    assert "fluency: nothing can be said: under 8 groups." in printed


def test_the_command_prints_and_writes_what_was_found(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probes.json"
    monkeypatch.setattr(sys, "argv", ["esrp-judge", "probe", "--judge", "stand-in", "--limit", "1", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed, found = capsys.readouterr().out, json.loads(out.read_text(encoding="utf-8"))
    assert ended.value.code == 0
    assert (found["judge"], found["dialogues"], found["settings"]["limit"]) == (STAND_IN, 1, 1)
    assert set(found["aims"]) == set(DEGRADATIONS) and found["strengths"] == list(STRENGTHS)
    assert {row["degradation"] for row in found["rows"]} == {name for name, n in found["applied"].items() if n}
    assert len(found["matrix"]) == len(METRICS) * len(found["rows"])
    assert all(sentence.split(":")[0] in printed for sentence in found["sentences"])
    assert len(found["sentences"]) == len(METRICS)
