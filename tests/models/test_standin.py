"""The stand-in judge: the same from the same texts, and scores spread enough for tests on them to mean something."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from judge.engines.packed.engine import PackedEngine
from judge.models.stand_in import stand_in_folder
from judge.prompting.prompt_tree import LAYOUTS, PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import Dialogue
from tests.helpers.chatanime import METRICS


def scores(
    stand_in: Path, tokenizer: JudgeTokenizer, dialogues: list[Dialogue], layout: str
) -> tuple[np.ndarray, float]:
    """Shape (dialogues, metrics), and the median level mass."""
    writer = PromptWriter(load_rubric("zh"), tokenizer, layout)
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in dialogues]
    p = np.exp(np.stack(PackedEngine.load(stand_in).level_logprobs(trees, writer.level_ids)))
    mass = p.sum(-1)
    return (p / mass[..., None]) @ np.arange(1, 6), float(np.median(mass))


@pytest.mark.long
def test_scores_spread_over_dialogues_and_over_metrics(
    stand_in: Path, tokenizer: JudgeTokenizer, chatanime: dict[str, dict[str, list[Dialogue]]]
) -> None:
    some = [dialogues[i] for i, d in enumerate(chatanime.values()) for dialogues in d.values()]
    found, mass = scores(stand_in, tokenizer, some, "prefill")
    assert found.std(axis=0).min() >= 0.5
    assert found.mean(axis=0).std() >= 0.2
    assert mass >= 0.8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_tells_dialogues_and_metrics_apart(
    stand_in: Path, tokenizer: JudgeTokenizer, example: list[Dialogue], layout: str
) -> None:
    found, mass = scores(stand_in, tokenizer, example[::9], layout)
    assert found.std(axis=0).min() >= 0.2
    assert found.mean(axis=0).std() >= 1e-3
    assert mass >= 0.8


@pytest.mark.long
def test_it_is_built_the_same_again_by_another_process(stand_in: Path, tmp_path: Path) -> None:
    code = "from judge.models.stand_in import stand_in_folder; print(stand_in_folder())"
    command = [sys.executable, "-c", code]
    again = subprocess.run(
        command,
        env={**__import__("os").environ, "ESRP_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    other = Path(again.stdout.strip())
    assert other.parent == tmp_path
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        assert (
            hashlib.sha256((other / name).read_bytes()).digest()
            == hashlib.sha256((stand_in / name).read_bytes()).digest()
        )


def test_it_is_built_once(stand_in: Path) -> None:
    before = (stand_in / "model.safetensors").stat().st_mtime_ns
    assert stand_in_folder() == stand_in
    assert (stand_in / "model.safetensors").stat().st_mtime_ns == before
