"""Builds the stand-in judge: a very small Qwen3-architecture checkpoint whose scores mean nothing.

It lets every command be tried, tested and timed on any machine: it has a real tokenizer with a chat template and
control tokens, real safetensors and a real forward pass. Its weights are random, from a fixed seed. With random weights
alone every dialogue would get the same score, and a test of equal scores would prove nothing. So the rows of the output
head that write the digits are set: scores spread along directions in which the packaged example's dialogues, and the
metrics, differ.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.utils.logging import disable_progress_bar

from judge.data.dialogues import example_dialogues
from judge.errors import EngineError, InputError, one_line
from judge.files import cache_folder, made_folder
from judge.prompting.prompt_tree import LAYOUTS, PromptWriter
from judge.prompting.rubric import Rubric, languages, load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import STAND_IN_MARK, digest

RECIPE = 2
"""Part of the cached folder's name; raise it whenever the code below builds other weights from the same texts."""


WIDTH, HEADS, KEY_HEADS, HEAD_WIDTH = 128, 2, 1, 32


SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "head_dim": HEAD_WIDTH,
    "max_position_embeddings": 32768,
    "initializer_range": 0.09,
}


VOCABULARY = 6000


CONSTANT = 2.0
"""What every token's first dimension is set to, so that the output head can have a bias."""


GAIN = 2.0
"""How much the log-odds of neighbouring levels follow the direction in which dialogues differ."""


BIAS = 14.0
"""Log-odds of a digit over any other token, so that nearly all the mass lies on the levels."""


SHARPNESS = 2.5
"""How sharply attention picks among tokens: the larger, the more two dialogues differ."""


CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


THINKING = ("<think>", "</think>")


CHAT_TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""


def stand_in_folder(levels: tuple[int, ...] | None = None) -> Path:
    """The stand-in judge's model folder, built on first use (some seconds) and cached.

    ``levels`` are what it answers with; None for those of the packaged rubric. InputError where one has two digits.
    """
    if two := [str(level) for level in levels or () if level > 9]:
        raise InputError(
            f"--judge stand-in: its tokenizer has no single token of its own for level {', '.join(two)}; use a rubric "
            "with levels of one digit (0 to 9), or another judge"
        )
    rubrics = [load_rubric(language) for language in languages()]
    own = rubrics[0].scheme.all_levels
    recipe = [RECIPE, [rubric.digest for rubric in rubrics], *([levels] if levels and levels != own else [])]
    folder = cache_folder() / f"stand-in-{digest(recipe, 12)}"
    try:
        return made_folder(folder, lambda beside: build(beside, rubrics, levels or own))
    except OSError as error:
        raise EngineError(
            f"the stand-in cannot be put into {folder.parent} ({error.strerror or one_line(error)}); set ESRP_CACHE to "
            "a folder that is yours, with 30 MB of room"
        ) from error


def build(folder: Path, rubrics: list[Rubric], levels: Sequence[int]) -> None:
    """Write the checkpoint: tokenizer, chat template, configuration and weights."""
    disable_progress_bar()
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained(rubrics), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _random_model(len(tokenizer))
        _spread_levels(model, folder, rubrics, levels)
    model.save_pretrained(folder)


def _trained(rubrics: list[Rubric]) -> Any:
    """Byte-level BPE with NFC, as Qwen's, trained on the rubrics and the 3,755 commonest Chinese characters."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(r"\p{N}| ?\p{L}+|\s+| ?[^\s\p{L}\p{N}]+"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(CONTROL),
        show_progress=False,
    )
    # The 3,755 characters of GB 2312's first level, in its order.
    codes = ((row, cell) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    common_characters = [bytes(code).decode("gb2312") for code in codes if code <= (0xD7, 0xF9)]
    texts = ["\n".join(common_characters)] * 3
    for rubric in rubrics:
        texts += [text for text in rubric.texts.of_every_form.values() if isinstance(text, str)]
        for metric in rubric.all_metrics:
            texts.append(f"{rubric.section(metric)}\n{metric.question}\n{metric.answer}")
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in THINKING])
    return tokenizer


def _random_model(vocabulary: int) -> Any:
    """A model with random weights, except for a first dimension that is constant: no layer writes to it."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(
        Qwen3Config(vocab_size=vocabulary, tie_word_embeddings=False, **SHAPE, **{STAND_IN_MARK: True})
    ).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = CONSTANT
        for layer in model.model.layers:
            layer.self_attn.q_norm.weight.fill_(SHARPNESS)
            layer.self_attn.k_norm.weight.fill_(SHARPNESS)
            # The two writers into the stream leave its first dimension alone.
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        _look_near(model.model.layers[0].self_attn, frequencies=slice(2, 8))
        _look_near(model.model.layers[1].self_attn, frequencies=slice(8, 14))
        model.lm_head.weight.zero_()
    return model


def _look_near(attention: Any, frequencies: slice) -> None:
    """Make the heads of the first key see the tokens just before: each leaf must read the name of its metric.

    Queries and keys become one constant vector, so that their product after rotary embedding is a function of the
    distance alone, largest at 0; the lower the frequencies, the farther it reaches.
    """
    shared = HEADS // KEY_HEADS
    constant = torch.zeros(HEAD_WIDTH, WIDTH)
    constant[frequencies, 0] = 1.0
    attention.q_proj.weight[: shared * HEAD_WIDTH] = constant.repeat(shared, 1)
    attention.k_proj.weight[:HEAD_WIDTH] = constant


def _spread_levels(model: Any, folder: Path, rubrics: list[Rubric], levels: Sequence[int]) -> None:
    """Set the output rows of the digits so that the level follows directions in which dialogues and metrics differ."""
    tokenizer = JudgeTokenizer(folder)
    writers = [PromptWriter(rubric, tokenizer, layout) for layout in LAYOUTS for rubric in rubrics]
    hidden = torch.stack([_answer_states(model, writer) for writer in writers])  # (writers, dialogues, metrics, width)
    means = hidden.mean(dim=(1, 2))
    # The direction is at right angles to `means`, so that the middle of all scores does not move with it. Along it the
    # standard deviation is about 1 over dialogues and over metrics.
    metrics = hidden.mean(dim=1)
    by_dialogue = (hidden - metrics[:, None]).flatten(0, 2)
    by_metric = (metrics - means[:, None])[:1].flatten(0, 1)
    main = torch.linalg.svd(by_dialogue, full_matrices=False).Vh[:8]
    direction = _main_axis(by_dialogue, means, scale=1.0) + _main_axis(by_metric, torch.cat([means, main]), scale=0.7)
    with torch.no_grad():
        # The digits stand after the answer of any metric as after that of the first.
        before = writers[0].rubric.metrics[writers[0].rubric.scheme.metrics[0]].answer
        middle = (levels[0] + levels[-1]) // 2
        for level, ids in zip(levels, tokenizer.level_ids(before, levels), strict=True):
            row = GAIN * (level - middle) * direction
            row[0] += (BIAS - (level - middle) ** 2) / means[0, 0]
            model.lm_head.weight[list(ids)] = row


@torch.inference_mode()
def _answer_states(model: Any, writer: PromptWriter) -> Tensor:
    """The hidden state in every answer slot of some example dialogues: shape (dialogues, metrics, width)."""
    states: list[Tensor] = []
    for dialogue in example_dialogues()[::9]:
        tree, cache = writer.dialogue(dialogue, writer.rubric.scheme.metrics), DynamicCache()
        trunk = tree.root + tree.character + tree.opening + tree.dialogue
        model.model(torch.tensor([trunk]), past_key_values=cache, use_cache=True)
        slots: list[Tensor] = []
        for leaf in tree.leaves:
            output = model.model(torch.tensor([leaf]), past_key_values=copy.deepcopy(cache), use_cache=True)
            slots.append(output.last_hidden_state[0, -1])
        states.append(torch.stack(slots))
    return torch.stack(states)


def _main_axis(deviations: Tensor, away: Tensor, scale: float) -> Tensor:
    """The main direction of some deviations at right angles to ``away``, with standard deviation ``scale`` along it.

    ``deviations`` has the shape (points, width), ``away`` (vectors, width); the direction has the shape (width,).
    """
    basis = torch.linalg.qr(away.T).Q
    across = deviations - deviations @ basis @ basis.T
    axis = torch.linalg.svd(across, full_matrices=False).Vh[0]
    axis = axis * torch.sign(axis[axis.abs().argmax()])  # an SVD leaves the sign open, and machines differ in it
    scaled: Tensor = axis * scale / (across @ axis).std()
    return scaled
