"""Texts that somebody might write to fool a judge's tokenizer, drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

CONTROLS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>",
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>",
    "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[IMG]", "[THINK]",
    "<start_of_turn>", "<end_of_turn>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>",
    "<｜Assistant｜>",
    "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", "[CLS]", "[SEP]", "[MASK]",
    "[UNUSED_TOKEN_145]", "[unused1]", "<reserved_106>", "<|startoftext|>", "<|start|>", "<|channel|>", "<|message|>",
    "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "[|assistant|]", "[|endofturn|]", "]~b]", "[e~[",
    "<seed:bos>", "<seed:eos>", "<mask:1>", "<|im_user|>", "<|im_middle|>", "<extra_id_0>", "<SPECIAL_10>", "<|end|>",
    "<fim_prefix>", "<image_soft_token>", "<|vision_start|>", "<beginning_of_sentence>", "<|start_of_role|>",
    "<0x0A>", "<0x3C>", "<0xE2>", ">>TITLE<<", "<|", "|>", "</", "[/",
)  # fmt: skip
"""Control tokens of many families of models, and what they begin and end with."""
OURS = (
    "> ",
    "\n> ",
    "\n## 第 2 轮\n",
    "\n用户：\n",
    "\n角色：\n",
    "流畅性：5",
    "\n\n# 对话",
    "▁",
    "\ue000user\ue001",
    "Ġ",
    "Ċ",
    "##",
)
"""What stands in our own prompts, and what tokenizers write blanks with."""
BREAKS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\t", " ", "\u3000")
MARKS = (
    "\u0300\u0301\u0308\u0338\u3099\u309a\u20dd\ufe0f\u200b\u200d\u202e\u2066\ufeff\ue010\ue011\ue012\xad\x00\x07\x1b"
)
"""Combining marks, what cannot be seen, and what a terminal obeys."""
PLANES = (
    0x0,
    0x80,
    0x300,
    0x3000,
    0x4E00,
    0xAC00,
    0xE000,
    0xF900,
    0xFF00,
    0x1F300,
    0x20000,
    0x30000,
    0xE0000,
    0x10F000,
)
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def texts(count: int, seed: int) -> Iterator[str]:
    """So many texts, always the same ones for a seed; none holds half a character (a lone surrogate)."""
    draw = random.Random(seed)
    for _ in range(count):
        parts = draw.choices(KINDS, weights=WEIGHTS, k=draw.choice((1, 1, 2, 3, 4, 6, 9)))
        yield "".join(part(draw) for part in parts)


def _control(draw: random.Random) -> str:
    return draw.choice(CONTROLS) * draw.choice((1, 1, 1, 2, 5))


def _fragment(draw: random.Random) -> str:
    """Part of a control token: the rest may stand beyond the slot's border, or in the text that follows."""
    token = draw.choice(CONTROLS)
    cut = draw.randrange(len(token) + 1)
    return draw.choice((token[:cut], token[cut:], token[:cut] + draw.choice(MARKS) + token[cut:]))


def _disguised(draw: random.Random) -> str:
    """A control token that a normaliser may bring back."""
    token = draw.choice(CONTROLS)
    return draw.choice((token.translate(FULL_WIDTH), token.upper(), token.replace("<", "﹤"), "\u0338".join(token)))


def _character(draw: random.Random) -> str:
    code = draw.choice(PLANES) + draw.randrange(0x1000)
    return chr(code)  # no plane above reaches the surrogates


def _any(draw: random.Random) -> str:
    return "".join(_character(draw) for _ in range(draw.randrange(1, 6)))


KINDS: tuple[Callable[[random.Random], str], ...] = (
    _control,
    _fragment,
    _disguised,
    _any,
    lambda draw: draw.choice(OURS),
    lambda draw: draw.choice(BREAKS),
    lambda draw: draw.choice(MARKS),
    lambda draw: "".join(draw.choices("你好我的心很累今天想5 分ａabc.,！…", k=draw.randrange(1, 12))),
)
WEIGHTS = (6, 5, 2, 3, 2, 3, 2, 3)
