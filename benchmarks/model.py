"""The model that every contestant gets: a fixed random Qwen3 with the stand-in judge's tokenizer.

Weights are drawn from a fixed seed, so its scores mean nothing and its speed is that of any model of its shape. One
dimension is the same for every token, and the digits' rows of the output head read it: so a digit is what the model
writes next, whatever it is asked, and a score can be read off however a contestant asks for it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from judge.models.stand_in import stand_in_folder
from judge.prompting.prompt_tree import PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer

SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 32768,
}
SEED = 0
BIAS = 12.0
"""About by how much the logit of a digit is above any other token's."""
SPREAD = 0.06
"""Standard deviation of the digits' output rows: with states of norm 16, that of their logits is about 1."""


def build(folder: Path) -> int:
    """Write the model into an existing folder; how many parameters it has."""
    source = stand_in_folder()
    for file in source.iterdir():
        if file.name not in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copyfile(file, folder / file.name)
    tokenizer = JudgeTokenizer(source)
    level_ids = PromptWriter(load_rubric(), tokenizer).level_ids
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _random_model(len(tokenizer.trusted.get_vocab()), [token for ids in level_ids for token in ids])
    model.save_pretrained(folder)
    return int(model.num_parameters())


def _random_model(vocabulary: int, digits: list[int]) -> Any:
    """A random model that writes one of the digits (their token ids) next, whatever it is asked."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, tie_word_embeddings=False, **SHAPE)).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[digits] = SPREAD * torch.randn(len(digits), SHAPE["hidden_size"])
        # What the constant dimension has become before the output head, on average over some random tokens.
        tokens = torch.randint(0, vocabulary, (1, 256))
        constant = float(model.model(tokens).last_hidden_state[0, :, 0].mean())
        model.lm_head.weight[digits, 0] = BIAS / constant
    return model
