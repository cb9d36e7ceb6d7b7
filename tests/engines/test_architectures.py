"""Packed and forked scoring equal one plain call per leaf on tiny random models of many architectures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from judge.engines.packed import tree_attention, tree_layers, tree_recurrence
from judge.engines.packed.engine import PackedEngine
from judge.engines.packed.tree_pass import Computed, Row, TreePass
from judge.prompting.prompt_tree import PromptTree

EQUAL = 1e-4
"""Largest difference of a probability."""

VOCABULARY = 300
PREFIX, DIALOGUE, WHOLE = 57, 50, 120
"""Tokens: of root and character; a dialogue with its opening has fewer, and a prompt has fewer."""

TINY: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 32,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 4096, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1, "shared_expert_intermediate_size": 32,
    "decoder_sparse_step": 1, "q_lora_rank": 24, "kv_lora_rank": 24, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16,
    "v_head_dim": 24, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 24, "full_attention_interval": 2, "num_kv_shared_layers": 1,
    "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16, "mamba_n_heads": 4,
    "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_num_heads": 4, "mamba_head_dim": 32,
    "n_groups": 1, "ssm_state_size": 16, "mamba_d_ssm": 128, "n_layer": 4, "n_head": 4, "n_embd": 64,
    "logit_scale": 1.0, "ffn_hidden_size": 64, "expert_ffn_hidden_size": 32,
}  # fmt: skip
"""What is set of a configuration, where it has such a field."""

LATENT = {"num_key_value_heads": 4}
HALF = ["sliding_attention", "full_attention"] * 2
CONVOLUTIONS = {"layer_types": ["conv", "full_attention"] * 2}
GEMMA4 = {"layer_types": HALF, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32, "rope_parameters": None}

FULL = [
    "apertus", "arcee", "cohere", "dots1", "ernie4_5", "ernie4_5_moe", "gemma", "glm", "glm4", "glm4_moe", "gpt2",
    "granite", "granitemoe", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "llama", "minimax_m2",
    "ministral3", "mistral", "mixtral", "nemotron", "olmo2", "olmoe", "phi", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "seed_oss", "smollm3", "stablelm",
]  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "axk1": LATENT, "deepseek_v2": LATENT, "deepseek_v3": LATENT, "glm4_moe_lite": LATENT,
    "longcat_flash": {**LATENT, "num_layers": 2}, "minicpm3": LATENT, "youtu": LATENT,
    "qwen3_5_text": {}, "qwen3_5_moe_text": {}, "qwen3_next": {}, "olmo_hybrid": {},
    "lfm2": CONVOLUTIONS, "lfm2_moe": CONVOLUTIONS,
}  # fmt: skip
"""Latent attention; gated delta nets; short convolutions."""
WINDOWED: dict[str, dict[str, Any]] = {
    "afmoe": {}, "cohere2": {}, "cohere2_moe": {}, "exaone4": {}, "exaone_moe": {}, "gemma2": {}, "gemma3_text": {},
    "gemma3n_text": {"head_dim": 16, "num_kv_shared_layers": 2, "layer_types": HALF}, "gemma4_text": GEMMA4,
    "gpt_oss": {}, "laguna": {}, "llama4_text": {}, "mimo_v2_flash": {}, "ministral": {}, "mistral": {}, "olmo3": {},
    "phi3": {}, "starcoder2": {}, "vaultgemma": {},
}  # fmt: skip
"""Windows, chunks, caps and sinks."""
WINDOWS = (8, 53, 500)
"""Shorter than a dialogue, between a dialogue and the prefix, longer than all."""
FORKED: dict[str, dict[str, Any]] = {
    "bloom": {}, "deepseek_v32": LATENT, "diffllama": {}, "doge": {}, "falcon_h1": {}, "glm_moe_dsa": LATENT,
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2}, "hy_v4": {}, "mamba2": {"num_heads": 8}, "mpt": {},
    "nemotron_h": {},
}  # fmt: skip
"""Biases by distance, sparse and differential attention, Mamba 2."""
SOME = ("gemma3_text", "qwen3_5_text", "lfm2", "deepseek_v3", "falcon_h1")
"""One of each kind of layers, and one that is forked."""
PLAIN = ("falcon_mamba", "mamba")
"""Their state is not gone on from in the library where more than one token follows."""


def fields_of(config: Any) -> dict[str, Any]:
    """What is set of a configuration."""
    return {name: value for name, value in TINY.items() if name in config.to_dict() or name in config.attribute_map}


def tiny(architecture: str, **more: Any) -> PackedEngine:
    """The engine of a random model."""
    fields = fields_of(AutoConfig.for_model(architecture))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **{**fields, **more}))
    assert model.num_parameters() < 2e7
    return PackedEngine(model.float().eval())


@pytest.fixture(scope="module")
def trees() -> list[PromptTree]:
    """Dialogues of two characters and two openings, and one without an opening; leaves of unlike lengths."""
    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())

    root, character, openings = ids(50), ids(PREFIX - 50), (ids(9), ids(12))
    leaves = [tuple(ids(2 + leaf % 3) for leaf in range(4)) for _ in range(4)]
    found = [PromptTree(root, character, openings[i % 2], ids(25 + 3 * i), leaves[i]) for i in range(4)]
    found.append(PromptTree(root, ids(5), (), ids(18), (ids(1), ids(6))))
    assert max(len(tree.opening) + tree.own - sum(map(len, tree.leaves[1:])) for tree in found) < DIALOGUE < PREFIX
    assert max(max(tree.lengths) for tree in found) < WHOLE
    return found


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().softmax(dim=-1)


Score = Callable[[Sequence[PromptTree], Any], list[np.ndarray]]


def difference(engine: PackedEngine, score: Score, trees: Sequence[PromptTree]) -> float:
    """How far the probabilities of a method are from those of plain calls, at most."""
    plain, found = (np.concatenate(method(trees, probabilities)) for method in (engine._plain, score))
    assert found.shape == plain.shape and np.ptp(plain, axis=0).max() > 0.01  # leaves differ, so that a mix-up shows
    return float(np.abs(found - plain).max())


@pytest.mark.parametrize("architecture", [*FULL, *OTHERS])
def test_packed_and_forked_equal_plain(architecture: str, trees: list[PromptTree]) -> None:
    engine = tiny(architecture, **OTHERS.get(architecture, {}))
    engine.verify(trees[0])
    assert engine.name == "packed"
    assert difference(engine, engine._packed, trees) < EQUAL
    assert difference(engine, engine._forked, trees) < EQUAL


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("architecture", WINDOWED)
def test_windows_of_any_length(architecture: str, window: int, trees: list[PromptTree]) -> None:
    name = "attention_chunk_size" if architecture == "llama4_text" else "sliding_window"
    engine = tiny(architecture, **WINDOWED[architecture], **{name: window})
    engine.verify(trees[0])
    assert engine.name == "packed"
    assert difference(engine, engine._packed, trees) < EQUAL
    assert difference(engine, engine._forked, trees) < EQUAL


@pytest.mark.parametrize("architecture", ["gemma3", "gemma4", "llama4", "qwen3_5"])
def test_models_that_can_also_see_are_packed_where_they_read(architecture: str, trees: list[PromptTree]) -> None:
    """As the checkpoints of these families are: a decoder of text inside a model of text and images."""
    text = f"{architecture}_text"
    more = {"gemma4": GEMMA4, "gemma3": {"sliding_window": 20}}.get(architecture, {})
    eyes = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14, "projector_input_dim": 32, "projector_output_dim": 32, "vision_output_dim": 32,
    }  # fmt: skip
    inner = {**fields_of(AutoConfig.for_model(text)), **more, "model_type": text}
    outer = {"gemma3": {"vision_config": eyes, "mm_tokens_per_image": 4}, "llama4": {"vision_config": eyes}}
    kind = type(AutoConfig.for_model(architecture))
    torch.manual_seed(0)
    config = kind(text_config=inner, **outer.get(architecture, {}))
    engine = PackedEngine(AutoModelForCausalLM.from_config(config).float().eval())
    engine.verify(trees[0])
    assert engine.name == "packed"
    assert difference(engine, engine._packed, trees) < EQUAL
    assert difference(engine, engine._forked, trees) < EQUAL


@pytest.mark.parametrize("architecture", FORKED)
def test_what_packed_does_not_know_is_forked(architecture: str, trees: list[PromptTree]) -> None:
    engine = tiny(architecture, **FORKED[architecture])
    engine.verify(trees[0])
    assert engine.name.startswith("forked (packed: it ")
    assert difference(engine, engine._forked, trees) < EQUAL


def test_a_layer_that_hardly_shows_is_found_all_the_same(trees: list[PromptTree]) -> None:
    """Mamba 2 beside attention, with weights so small that packed, which leaves its state out, equals plain."""
    engine = tiny("falcon_h1", initializer_range=0.001)
    engine.verify(trees[0])
    assert engine.name == "forked (packed: it does not know what layer 0 keeps)"


@pytest.mark.parametrize("architecture", PLAIN)
def test_what_the_librarys_cache_gets_wrong_is_plain(architecture: str, trees: list[PromptTree]) -> None:
    engine = tiny(architecture)
    engine.verify(trees[0])
    assert engine.name.startswith("plain (packed: it differs") and "forked: it differs" in engine.name
    levels = [(level,) for level in range(10, 15)]
    (found,) = engine.level_logprobs(trees[:1], levels)
    plain = engine._plain(trees[:1], probabilities)[0][:, 10:15]
    assert np.abs(np.exp(found) - plain).max() < 1e-6


@pytest.mark.parametrize("batch_tokens", [1, 70, 5000])
@pytest.mark.parametrize("architecture", SOME)
def test_the_batch_makes_no_difference(architecture: str, batch_tokens: int, trees: list[PromptTree]) -> None:
    engine = tiny(architecture, **OTHERS.get(architecture, {"sliding_window": 20}))
    engine.verify(trees[0])
    engine.batch_tokens = batch_tokens
    assert difference(engine, engine._packed if engine.method == "packed" else engine._forked, trees) < EQUAL


@pytest.mark.parametrize("architecture", SOME)
def test_a_batch_gives_the_same_bytes_whatever_was_judged_before(architecture: str, trees: list[PromptTree]) -> None:
    engine = tiny(architecture, **OTHERS.get(architecture, {}))
    engine.verify(trees[0])
    levels = [(level,) for level in range(10, 15)]
    first = engine.level_logprobs(trees[:2], levels)
    engine.level_logprobs(trees[2:], levels)
    again = engine.level_logprobs(trees[:2], levels)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("architecture", SOME)
def test_memory_that_runs_out_halves_the_batch(architecture: str, trees: list[PromptTree]) -> None:
    engine = tiny(architecture, **OTHERS.get(architecture, {}))
    engine.verify(trees[0])
    levels, many = [(level,) for level in range(10, 15)], trees[:4] * 8
    expected = engine.level_logprobs(many, levels)
    engine.batch_tokens = 1024

    def fail(module: object, args: object, inputs: dict[str, torch.Tensor]) -> None:
        leaves, tokens = inputs["input_ids"].shape
        if leaves > 3 or tokens > 300:
            raise torch.OutOfMemoryError("the card is full")

    engine.model.register_forward_pre_hook(fail, with_kwargs=True)
    found = engine.level_logprobs(many, levels)
    assert engine.report["batch_tokens"] < 1024 and engine.report["out_of_memory"] > 0
    assert max(np.abs(np.exp(a) - np.exp(b)).max() for a, b in zip(found, expected, strict=True)) < EQUAL


@pytest.mark.parametrize("architecture", [*SOME, "gpt_oss", "mamba"])
def test_what_is_written_goes_on_from_what_is_kept(architecture: str, trees: list[PromptTree]) -> None:
    """And is what the model writes after the whole prompt."""
    engine = tiny(architecture, **OTHERS.get(architecture, {"sliding_window": 20}))
    engine.verify(trees[0])
    written = engine.generate(trees[3:], 6)
    for tree, found in zip(trees[3:], written, strict=True):
        for prompt, ids in zip(tree.prompts, found, strict=True):
            whole = list(prompt)
            for _ in ids:
                whole.append(int(engine.model(input_ids=torch.tensor([whole]), use_cache=False).logits[0, -1].argmax()))
            assert tuple(whole[len(prompt) :]) == ids and len(ids) > 0


def _positions(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TreePass.positions.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(TreePass, "positions", property(lambda tree: right(tree) + (tree.prefix.tokens > 0)))


def _window(monkeypatch: pytest.MonkeyPatch) -> None:
    def shorter(*args: Any, mask_function: Any, **more: Any) -> Any:
        return right(*args, mask_function=lambda b, h, q, k: mask_function(b, h, q + 1, k), **more)

    right = tree_layers._mask
    monkeypatch.setitem(tree_layers.AttentionMaskInterface._global_mapping, tree_layers.NAME, shorter)


def _mask(monkeypatch: pytest.MonkeyPatch) -> None:
    right = tree_attention._visible

    def without_the_token_before(segments: np.ndarray, real: np.ndarray, above: int) -> np.ndarray:
        visible = right(segments, real, above)
        tokens = np.arange(segments.shape[1] - 1)
        visible[:, tokens + 1, above + tokens] = False
        return visible

    monkeypatch.setattr(tree_attention, "_visible", without_the_token_before)


def _state(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TreePass.__init__

    def shifted(tree: TreePass, rows: Sequence[Row], prefix: Computed, above: Computed, *others: Any) -> None:
        if above.rows:
            rows = [replace(row, above=replace(row.above, number=row.above.number % above.rows + 1)) for row in rows]
        right(tree, rows, prefix, above, *others)

    monkeypatch.setattr(TreePass, "__init__", shifted)


def _convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    right = tree_recurrence._ancestors

    def shifted(tree: TreePass, reach: int) -> Any:
        ancestors, ends = right(tree, reach)
        return ancestors.roll(1, dims=0), ends

    monkeypatch.setattr(tree_recurrence, "_ancestors", shifted)


@pytest.mark.parametrize(
    ("architecture", "wrong"),
    [
        ("llama", _positions), ("llama", _mask),
        ("gemma3_text", _positions), ("gemma3_text", _mask), ("gemma3_text", _window),
        ("gemma2", _window), ("gpt_oss", _window), ("mistral", _window),
        ("deepseek_v3", _positions), ("deepseek_v3", _mask),
        ("qwen3_5_text", _positions), ("qwen3_5_text", _mask), ("qwen3_5_text", _state),
        ("qwen3_5_text", _convolution), ("lfm2", _state), ("lfm2", _convolution),
    ],
)  # fmt: skip
def test_what_is_shifted_by_one_is_noticed(
    architecture: str,
    wrong: Callable[[pytest.MonkeyPatch], None],
    trees: list[PromptTree],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = tiny(architecture, **OTHERS.get(architecture, {"sliding_window": 53 if wrong is _positions else 8}))
    assert difference(engine, engine._packed, trees) < EQUAL
    engine.forget()
    wrong(monkeypatch)
    assert difference(engine, engine._packed, trees) > 2 * EQUAL


def test_a_cap_is_not_left_out(trees: list[PromptTree]) -> None:
    """The library's default attention takes a cap and does nothing with it."""
    capped, free = (tiny("gemma2", attn_logit_softcapping=cap) for cap in (0.5, None))
    found, other = (np.concatenate(engine._plain(trees, probabilities)) for engine in (capped, free))
    assert np.abs(found - other).max() > 0.01
    assert difference(capped, capped._packed, trees) < EQUAL
