"""Two small real models: what random weights cannot show, as whether answers are read in the right place.

SmolLM2-135M has a chat template and plain attention, Gemma 3 270M is a base model with sliding windows.
"""

from pathlib import Path

import numpy as np
import pytest

from judge import Options, load_judgments, score
from judge.data.dialogues import example_dialogues
from judge.engines.packed import PackedEngine
from judge.models.gguf import converted
from judge.models.hardware import detect
from judge.prompting.prompt_tree import PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.scoring.judge import Judge
from judge.scoring.setup import open_judge, open_model
from judge.types import METRICS
from tests.helpers import real_models

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


def test_packed_equals_plain_on_real_weights(smollm2: Path) -> None:
    folder = converted(smollm2)
    writer = PromptWriter(load_rubric("en"), JudgeTokenizer(folder), answer_form="space")
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in example_dialogues()[:20]]
    packed, plain = PackedEngine.load(folder), PackedEngine.load(folder)
    packed.verify(trees[0])
    assert packed.name == "packed"
    plain.fallback = "the comparison"
    found = [np.exp(np.stack(engine.level_logprobs(trees, writer.level_ids))) for engine in (packed, plain)]
    assert found[0].sum(axis=-1).mean() > 0.5 and found[0].std(axis=0).max() > 0.005
    assert np.abs(found[0] - found[1]).max() < 1e-4


@pytest.mark.parametrize("layout", ["prefill", "question"])
def test_a_level_is_found_where_the_model_writes_one(smollm2: Path, layout: str) -> None:
    form = judge_of(smollm2, language="en", layout=layout).answer_form
    assert form.masses[form.name] > max(0.8, 3 * form.masses["none"])


def test_a_base_model_with_windows_is_scored_plainly_and_answers(gemma3: Path, short_rubric: Path) -> None:
    judge = judge_of(gemma3, prompts=short_rubric, min_mass=0.5)
    assert not judge.model.tokenizer.has_template  # type: ignore[union-attr]
    assert judge.model.tokenizer.chat("rules")[0] == "<bos>rules\n\n"
    (judged,) = judge.judge(judge.prompts(example_dialogues()[:1], METRICS), METRICS)
    assert judge.engine.name.startswith("plain (")
    assert all(one.mass and one.mass > 0.5 for one in judged.judgments)


def test_a_file_and_the_folder_made_of_it_are_the_same_judge(smollm2: Path, short_rubric: Path) -> None:
    from_file, from_folder = (judge_of(one, prompts=short_rubric) for one in (smollm2, converted(smollm2)))
    assert from_file.identity == from_folder.identity


def test_a_run_with_reasons_is_made_and_goes_on(smollm2: Path, short_rubric: Path, tmp_path: Path) -> None:
    asked = Options(
        judge=str(smollm2),
        prompts=short_rubric,
        language="en",
        run=tmp_path / "run",
        limit=3,
        min_mass=0.5,
        rationales=1,
    )
    result = score([], asked)
    before = load_judgments(tmp_path / "run")
    assert result.missing == {} and before["mass"].median() > 0.5 and result.explained == 1
    written = (tmp_path / "run" / "rationales.jsonl").read_text(encoding="utf-8")
    assert all(len(line.split()) > 5 for line in written.splitlines())
    next((tmp_path / "run" / "judgments").iterdir()).unlink()
    score([], asked)
    after = load_judgments(tmp_path / "run")
    assert np.allclose(after["score"], before["score"], atol=1e-4)
