"""Two small real models: what random weights cannot show, as whether answers are read in the right place.

SmolLM2-135M has a chat template and full attention, Gemma 3 270M is a base model with sliding windows.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from judge import Options, load_judgments, score
from judge.data.dialogues import example_dialogues
from judge.engines.packed.engine import PackedEngine
from judge.models.gguf import converted
from judge.models.hardware import detect
from judge.prompting.prompt_tree import PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.robustness.attack_analysis import assess
from judge.robustness.attacks import attack, families
from judge.robustness.degradations import STRENGTHS
from judge.robustness.probe_analysis import assess_probes
from judge.robustness.probes import probe
from judge.robustness.prompt_variants import compare_layouts
from judge.scoring.judge import Judge
from judge.scoring.rationales import RATIONALES
from judge.scoring.setup import open_judge, open_model
from tests.helpers import real_models
from tests.helpers.chatanime import METRICS
from tests.helpers.commands import esrp_judge, refused

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return real_models.smollm2()


@pytest.fixture(scope="module")
def gemma3() -> Path:
    return real_models.gemma3()


def judge_of(model: Path, **options: object) -> Judge:
    asked = Options(judge=str(model), **options)  # type: ignore[arg-type]
    return open_judge(asked, open_model(asked, detect()))


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_packed_equals_forked_and_plain_on_real_weights(name: str, request: pytest.FixtureRequest) -> None:
    """On every metric of four dialogues forked; plain, which is slow, on one metric of each."""
    folder = converted(request.getfixturevalue(name))
    writer = PromptWriter(load_rubric("en"), JudgeTokenizer(folder), answer_form="level")
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in example_dialogues()[:4]]
    engine = PackedEngine.load(folder)
    engine.verify(trees[0])
    assert engine.name == "packed"
    packed = np.exp(np.stack(engine.level_logprobs(trees, writer.level_ids)))
    assert packed.sum(axis=-1).mean() > 0.5 and packed.std(axis=0).max() > 0.005
    engine.refused = {"packed": "the comparison"}
    assert np.abs(np.exp(np.stack(engine.level_logprobs(trees, writer.level_ids))) - packed).max() < 1e-4
    engine.refused["forked"] = "the comparison"
    for i, tree in enumerate(trees):
        leaf = replace(tree, leaves=(tree.leaves[2 * i],))
        (plain,) = engine.level_logprobs([leaf], writer.level_ids)
        assert np.abs(np.exp(plain[0]) - packed[i, 2 * i]).max() < 1e-4


@pytest.mark.parametrize("layout", ["prefill", "question"])
def test_a_level_is_found_where_the_model_writes_one(smollm2: Path, layout: str) -> None:
    form = judge_of(smollm2, language="en", layout=layout).answer_form
    assert form.masses[form.name] > max(0.8, 3 * form.masses["none"])


def test_a_base_model_with_windows_answers(gemma3: Path, short_rubric: Path) -> None:
    judge = judge_of(gemma3, rubric=short_rubric, min_mass=0.5)
    assert not judge.model.tokenizer.has_template  # type: ignore[union-attr]
    assert judge.model.tokenizer.chat("rules")[0] == "<bos>rules\n\n"
    (judged,) = judge.judge(judge.prompts(example_dialogues()[:1], METRICS), METRICS)
    assert judge.engine.name == "packed"
    assert all(one.mass and one.mass > 0.5 for one in judged.judgments)


def test_a_file_and_the_folder_made_of_it_are_the_same_judge(smollm2: Path, short_rubric: Path) -> None:
    from_file, from_folder = (judge_of(one, rubric=short_rubric, min_mass=0.5) for one in (smollm2, converted(smollm2)))
    assert from_file.identity == from_folder.identity


def test_reasons_are_written_in_words_and_a_run_goes_on(asked: Options, tmp_path: Path) -> None:
    options = replace(asked, run=tmp_path / "run", limit=3, rationales=1)
    result = score([], options)
    before = load_judgments(tmp_path / "run")
    assert result.missing == {} and before["mass"].median() > 0.5 and result.explained == 1
    written = (tmp_path / "run" / RATIONALES).read_text(encoding="utf-8").splitlines()
    reasons = [json.loads(line)["rationale"] for line in written]
    # So small a model does not write a sentence about every dimension, and soon says one thing again and again.
    assert len(reasons) == 3 and any(
        len(set(reason.split())) > 10 and sum(c.isalpha() or c == " " for c in reason) > 0.8 * len(reason)
        for reason in reasons
    )
    next((tmp_path / "run" / "judgments").iterdir()).unlink()
    score([], options)
    after = load_judgments(tmp_path / "run")
    assert np.allclose(after["score"], before["score"], atol=1e-4)


@pytest.fixture(scope="module")
def asked(smollm2: Path, short_rubric: Path) -> Options:
    """Two dialogues of the example by the real model with a short rubric."""
    return Options(judge=str(smollm2), rubric=short_rubric, language="en", limit=2, min_mass=0.5)


def test_attacks_move_its_scores_and_none_is_left_out(asked: Options) -> None:
    found = attack([], asked)
    robust = assess(found)
    judged = found.judgments[found.judgments["error"].isna()]
    assert set(judged["family"]) >= {family.name for family in families() if family.name != "empty"}
    assert judged["mass"].median() > 0.5 and judged["score"].between(1, 5).all()
    assert robust.families["change"].abs().max() > 0.02


def test_probes_are_judged_in_every_strength(asked: Options) -> None:
    probed = probe([], asked)
    rows = assess_probes(probed.judgments, probed.texts, probed.aims, STRENGTHS).rows
    assert probed.missing == {} and set(rows["strength"]) == set(STRENGTHS)
    there = rows[rows["n"] > 0]
    assert there["auc"].between(0, 1).all() and there["drop"].abs().max() > 0.02


def test_all_twelve_variants_are_answered_each_in_a_form_of_its_own(asked: Options) -> None:
    found = compare_layouts([], asked)
    overall = found.overall
    assert found.missing == {} and len(overall) == 12
    assert overall["mass"].min() > 0.5


def test_without_a_hub_auto_is_the_model_of_the_extra_and_not_for_own_data(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(real_models.small_extra()), "CUDA_VISIBLE_DEVICES": ""}
    asked = ["score", "--limit", 2, "--metrics", "fluency", "--run", "run"]
    done = esrp_judge(*asked, cwd=tmp_path, **environment)
    assert done.returncode == 0 and "gemma-3-270m: no GPU here, and no Hub" in done.stdout, done.stderr
    assert load_judgments(tmp_path / "run")["mass"].min() > 0.5
    (tmp_path / "own.csv").write_text("source,character,scenario,question_r1,answer_r1\na,b,c,问,答\n", "utf-8")
    refused(esrp_judge("score", "own.csv", cwd=tmp_path, **environment), "no judge is chosen for your data")
