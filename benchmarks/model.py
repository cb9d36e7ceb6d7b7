"""The models that contestants get: fixed random ones with the stand-in judge's tokenizer, and a small real one.

Random weights are drawn from a fixed seed, so their scores mean nothing and their speed is that of any model of their
shape. One dimension is the same for every token, and the digits' rows of the output head read it: so a digit is what
the model writes next, whatever it is asked, and a score can be read off however a contestant asks for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from judge.models.checkpoint import resolve
from judge.models.presets import PACKAGED
from judge.models.stand_in import stand_in_folder
from judge.prompting.prompt_tree import PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer

ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 32768}
RANDOM: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, **ATTENTION}),
    "qwen3.5": (
        "qwen3_5_text",
        {
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 64,
            "linear_value_head_dim": 64,
            **ATTENTION,
        },
    ),
    "falcon-h1": (
        "falcon_h1",
        {
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "mamba_d_ssm": 256,
            "mamba_n_heads": 8,
            "mamba_d_head": 32,
            "mamba_d_state": 64,
            "mamba_n_groups": 1,
            **ATTENTION,
        },
    ),
}
"""Architecture and shape by name. Of Qwen3.5's layers every fourth is full attention, the others gated delta nets;
Falcon H1 has Mamba 2 beside attention in each, which packed does not know."""
REAL = PACKAGED
"""Gemma 3 270M, with sliding windows, as the extra ``small`` has it."""
MODELS = (*RANDOM, REAL)
SEED = 0
BIAS = 12.0
"""About by how much the logit of a digit is above any other token's."""
SPREAD = 0.06
"""Standard deviation of the digits' output rows: with states of norm 16, that of their logits is about 1."""


def build(name: str, folder: Path) -> tuple[Path, int]:
    """The folder of a model, written into an existing one where it is random, and how many parameters it has."""
    if name == REAL:
        real = resolve(name).folder
        with torch.device("meta"):
            return real, int(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(real)).num_parameters())
    source = stand_in_folder()
    for file in source.iterdir():
        if file.name not in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copyfile(file, folder / file.name)
    tokenizer = JudgeTokenizer(source)
    level_ids = PromptWriter(load_rubric(), tokenizer).level_ids
    architecture, shape = RANDOM[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        config = AutoConfig.for_model(
            architecture, vocab_size=len(tokenizer.trusted.get_vocab()), tie_word_embeddings=False, **shape
        )
        model = _random_model(config, [token for ids in level_ids for token in ids])
    model.save_pretrained(folder)
    return folder, int(model.num_parameters())


def _random_model(config: Any, digits: list[int]) -> Any:
    """A random model that writes one of the digits (their token ids) next, whatever it is asked."""
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        for layer in model.model.layers:
            for name, part in layer.named_modules():
                if name.endswith(("o_proj", "out_proj", "down_proj")):  # what is added to each token's state
                    part.weight[0] = 0.0
        model.lm_head.weight[digits] = SPREAD * torch.randn(len(digits), config.hidden_size)
        # What the constant dimension has become before the output head, on average over some random tokens.
        tokens = torch.randint(0, config.vocab_size, (1, 256))
        constant = float(model.model(tokens).last_hidden_state[0, :, 0].mean())
        model.lm_head.weight[digits, 0] = BIAS / constant
    return model
