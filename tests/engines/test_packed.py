"""Packed scoring equals one plain forward call per judgment, whatever the batch, or is not used."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from judge.engines.packed.engine import METHODS, PackedEngine
from judge.errors import EngineError
from judge.models.presets import PRESETS
from judge.prompting.prompt_tree import LAYOUTS, PromptTree, PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import Dialogue
from tests.helpers.chatanime import METRICS

EQUAL = 2e-5
"""Largest difference of many dialogues from plain calls: either is within 6e-6 of double precision."""


@pytest.fixture(scope="module")
def engine(stand_in: Path) -> PackedEngine:
    return PackedEngine.load(stand_in)


def probabilities(engine: PackedEngine, trees: list[PromptTree], writer: PromptWriter) -> np.ndarray:
    return np.exp(np.stack(engine.level_logprobs(trees, writer.level_ids)))


def plainly(engine: PackedEngine, tree: PromptTree, writer: PromptWriter, leaves: Sequence[int]) -> np.ndarray:
    """One forward call per judgment, by the model itself."""
    found = []
    for leaf in leaves:
        with torch.inference_mode():
            logits = engine.model(torch.tensor([tree.prompt(leaf)])).logits[0, -1]
        found.append([logits.softmax(-1)[list(ids)].sum().item() for ids in writer.level_ids])
    return np.array(found)


def farthest(engine: PackedEngine, trees: list[PromptTree], writer: PromptWriter, each: int = 9) -> float:
    """How far packed probabilities are from those of plain calls, on so many metrics of each tree, in turn."""
    differences = []
    for i, (tree, packed) in enumerate(zip(trees, probabilities(engine, trees, writer), strict=True)):
        assert packed.shape == (len(tree.leaves), 5)
        leaves = sorted({(i + n) % len(tree.leaves) for n in range(each)})
        differences.append(np.abs(packed[leaves] - plainly(engine, tree, writer, leaves)).max())
    return float(max(differences))


@pytest.fixture(scope="module")
def fifty(chatanime: dict[str, dict[str, list[Dialogue]]]) -> list[Dialogue]:
    """Fifty real dialogues of every source and character, in the order of characters."""
    every = [d for characters in chatanime.values() for dialogues in characters.values() for d in dialogues]
    return sorted(every[:: len(every) // 50][:50], key=lambda d: d.character)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_equals_one_call_per_judgment(
    engine: PackedEngine, tokenizer: JudgeTokenizer, example: list[Dialogue], layout: str
) -> None:
    writer = PromptWriter(load_rubric("zh"), tokenizer, layout)
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in example[::13]]
    assert farthest(engine, trees, writer, each=2) < EQUAL


@pytest.mark.long
@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_equals_one_call_per_judgment_on_fifty_real_dialogues(
    engine: PackedEngine, tokenizer: JudgeTokenizer, fifty: list[Dialogue], layout: str
) -> None:
    writer = PromptWriter(load_rubric("zh"), tokenizer, layout)
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in fifty]
    assert farthest(engine, trees, writer, each=2) < EQUAL


@pytest.mark.parametrize("batch_tokens", [1, 1500, 20_000])
def test_the_batch_makes_no_difference(
    stand_in: Path, engine: PackedEngine, tokenizer: JudgeTokenizer, example: list[Dialogue], batch_tokens: int
) -> None:
    writer = PromptWriter(load_rubric("zh"), tokenizer)
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in example[:12]]
    other = PackedEngine.load(stand_in, batch_tokens)
    assert np.abs(probabilities(other, trees, writer) - probabilities(engine, trees, writer)).max() < 1e-5


def test_every_token_of_the_tree_is_computed_once(
    stand_in: Path, tokenizer: JudgeTokenizer, example: list[Dialogue]
) -> None:
    engine = PackedEngine.load(stand_in)
    writer = PromptWriter(load_rubric("zh"), tokenizer)
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in sorted(example, key=lambda d: d.character)]
    computed = []
    engine.model.register_forward_pre_hook(
        lambda m, a, inputs: computed.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    engine.level_logprobs(trees, writer.level_ids)
    openings = {(tree.root, tree.character, tree.opening) for tree in trees}
    assert len({tree.opening for tree in trees}) < len(trees)  # several sources answer the same question
    assert sum(computed) == (
        len(trees[0].root)
        + sum(len(tree.character) for tree in {t.character: t for t in trees}.values())
        + sum(len(opening) for _, _, opening in openings)
        + sum(tree.own for tree in trees)
    )


def test_the_last_layer_computes_what_is_read_and_no_more(
    stand_in: Path, tokenizer: JudgeTokenizer, example: list[Dialogue]
) -> None:
    engine = PackedEngine.load(stand_in)
    writer = PromptWriter(load_rubric("zh"), tokenizer)
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in example[:5]]
    computed = []
    engine.model.model.layers[-1].mlp.down_proj.register_forward_pre_hook(lambda m, a: computed.append(a[0].shape[1]))
    engine.level_logprobs(trees, writer.level_ids)
    assert sum(computed) == 5 * len(METRICS)


def test_out_of_memory_halves_the_batch_and_goes_on(
    stand_in: Path, engine: PackedEngine, tokenizer: JudgeTokenizer, example: list[Dialogue]
) -> None:
    def fail(module: object, args: object, inputs: dict[str, torch.Tensor]) -> None:
        if inputs["input_ids"].numel() > 2500:
            raise torch.OutOfMemoryError("the card is full")

    writer = PromptWriter(load_rubric("zh"), tokenizer)
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in example[:30]]
    small = PackedEngine.load(stand_in, batch_tokens=8192)
    small.model.register_forward_pre_hook(fail, with_kwargs=True)
    assert np.abs(probabilities(small, trees, writer) - probabilities(engine, trees, writer)).max() < 1e-5
    assert small.report == {"name": "packed", "batch_tokens": 2048, "out_of_memory": 2}


def test_memory_that_is_never_enough_is_an_engine_error(
    stand_in: Path, tokenizer: JudgeTokenizer, example: list[Dialogue]
) -> None:
    def fail(module: object, args: object, inputs: dict[str, torch.Tensor]) -> None:
        raise torch.OutOfMemoryError("the card is full")

    writer = PromptWriter(load_rubric("zh"), tokenizer)
    engine = PackedEngine.load(stand_in)
    engine.model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(EngineError, match="out of memory: the card is full; free some"):
        engine.level_logprobs([writer.dialogue(example[0], METRICS)], writer.level_ids)


def test_leaves_of_unlike_dialogues_and_metrics_may_stand_in_one_call(
    engine: PackedEngine, short_rubric: Path, tokenizer: JudgeTokenizer, example: list[Dialogue]
) -> None:
    writer = PromptWriter(load_rubric("zh", short_rubric), tokenizer)
    some = [replace(example[0], profile=None), example[40], replace(example[1], turns=example[1].turns * 4)]
    trees = [writer.dialogue(dialogue, METRICS[i:]) for i, dialogue in enumerate(some)]
    found = engine.level_logprobs(trees, writer.level_ids)
    for tree, packed in zip(trees, found, strict=True):
        plain = plainly(engine, tree, writer, range(len(tree.leaves)))
        assert np.abs(np.exp(packed) - plain).max() < EQUAL


def test_a_very_long_dialogue_is_scored_plainly_among_the_others(
    engine: PackedEngine, tokenizer: JudgeTokenizer, example: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = PromptWriter(load_rubric("zh"), tokenizer)
    long = replace(example[1], turns=example[1].turns * 9)
    trees = [writer.dialogue(dialogue, METRICS[:2]) for dialogue in (example[0], long, example[2])]
    monkeypatch.setattr("judge.engines.packed.engine.LONGEST_ROW", 1000)
    assert [len(tree.dialogue) > 1000 for tree in trees] == [False, True, False]
    assert farthest(engine, trees, writer) < 1e-5


def test_swapped_leaves_would_be_noticed(
    engine: PackedEngine, tokenizer: JudgeTokenizer, example: list[Dialogue]
) -> None:
    """The stand-in's metrics differ enough for the comparisons above to mean something."""
    writer = PromptWriter(load_rubric("zh"), tokenizer)
    found = probabilities(engine, [writer.dialogue(example[0], METRICS)], writer)[0]
    assert min(np.abs(found[i] - found[j]).max() for i in range(9) for j in range(i)) > 1e-3


TINY = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.3, "max_position_embeddings": 8192,
}  # fmt: skip


LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 4096, "factor": 2.0,
    "short_factor": [1.0] * 16, "long_factor": [4.0] * 16,
}  # fmt: skip


def checkpoint(folder: Path, config: object) -> PackedEngine:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return PackedEngine.load(folder)


Two = tuple[list[PromptTree], PromptWriter]


@pytest.fixture(scope="module")
def two(tokenizer: JudgeTokenizer, short_rubric: Path, example: list[Dialogue]) -> Two:
    """Two dialogues of unlike roles with the short rubric, and what wrote them."""
    writer = PromptWriter(load_rubric("zh", short_rubric), tokenizer)
    return [writer.dialogue(dialogue, METRICS) for dialogue in (example[0], example[40])], writer


def verified(engine: PackedEngine, two: Two) -> tuple[str, float]:
    """How the engine means to score after its self-check, and how far that is from plain calls."""
    trees, writer = two
    engine.verify(trees[0])
    return engine.name, farthest(engine, trees, writer, each=3)


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_counted_as_they_come(stand_in: Path, two: Two, method: str) -> None:
    trees, writer = two
    engine, counted = PackedEngine.load(stand_in), []
    engine.refused, engine.on_progress = dict.fromkeys(METHODS[: METHODS.index(method)], "a test"), counted.append
    engine.level_logprobs(trees, writer.level_ids)
    assert counted == [len(tree.leaves) for tree in trees]


@pytest.fixture(scope="module")
def vocabulary(stand_in: Path) -> int:
    return len(PreTrainedTokenizerFast.from_pretrained(stand_in))


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}


@pytest.mark.parametrize("family", sorted({"llama", *(preset.architecture for preset in PRESETS.values())}))
def test_every_presets_architecture_and_llama_are_packed(
    tmp_path: Path, two: Two, vocabulary: int, family: str
) -> None:
    more = EXPERTS if "moe" in family else {"pad_token_id": 0}
    engine = checkpoint(tmp_path, AutoConfig.for_model(family, vocab_size=vocabulary, **TINY, **more))
    name, difference = verified(engine, two)
    assert name == "packed"
    assert difference < 1e-5


def test_a_window_shorter_than_a_dialogue_is_packed(tmp_path: Path, two: Two, vocabulary: int) -> None:
    engine = checkpoint(tmp_path, MistralConfig(vocab_size=vocabulary, sliding_window=64, **TINY))
    name, difference = verified(engine, two)
    assert name == "packed" and difference < 1e-5


@pytest.mark.parametrize("more", [-1, 1], ids=["longer than some prompts", "longer than all"])
def test_prompts_beyond_which_the_rotary_embedding_changes_are_plain(
    tmp_path: Path, two: Two, vocabulary: int, more: int
) -> None:
    trees, _ = two
    until = max(max(tree.lengths) for tree in trees) + more
    rope = {**LONG_ROPE, "original_max_position_embeddings": until}
    engine = checkpoint(tmp_path, LlamaConfig(vocab_size=vocabulary, rope_parameters=rope, **TINY))
    name, difference = verified(engine, two)
    assert name == "packed" and difference < 1e-5
    assert [engine.is_steady(tree) for tree in trees].count(False) == (1 if more < 0 else 0)


def test_weights_that_cannot_be_read_are_an_engine_error(stand_in: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((stand_in / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((stand_in / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(EngineError, match="the model cannot be loaded") as error:
        PackedEngine.load(tmp_path)
    assert "\n" not in str(error.value)
