"""Three real tokenizers that treat text in different ways, as the model folders they come in.

chatml    byte-level BPE, NFC, ``<|im_end|>`` and ``<think>`` added: the stand-in's own
llama     BPE that falls back to bytes and puts a blank before a text, ``[INST]``; its merges can spell ``</s>``
unigram   Unigram with NFKC whose vocabulary itself holds ``<think>``, ``<tool_call>`` and bytes, not marked special
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from judge.data.dialogues import example_dialogues
from judge.models.stand_in import CHAT_TEMPLATE, stand_in_folder
from judge.prompting.rubric import load_rubric

INST_TEMPLATE = "<s>[INST] <<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n{{ messages[1].content }} [/INST]"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
THINKING = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
TURNS = ["<|im_start|>", "<|im_end|>"]


def folders(home: Path) -> dict[str, Path]:
    """A model folder for each, by name, written below ``home``; they hold no weights."""
    return {
        "chatml": stand_in_folder(),
        "llama": _saved(home / "llama", _llama(), INST_TEMPLATE),
        "unigram": _saved(home / "unigram", _unigram(), CHAT_TEMPLATE),
    }


FORMS: dict[str, Callable[[str], str]] = {
    "chatml": normalizers.NFC().normalize_str,
    "llama": lambda text: text.replace("▁", " "),
    "unigram": normalizers.NFKC().normalize_str,
}
"""What each normaliser makes of a text: the library's forms, as its table of Unicode is older than Python's."""


def _saved(folder: Path, tokenizer: Tokenizer, template: str) -> Path:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def _texts() -> list[str]:
    rubric = load_rubric("zh")
    said = [turn.character for dialogue in example_dialogues() for turn in dialogue.turns]
    return [rubric.section(metric) for metric in rubric.metrics.values()] + said


def _characters() -> list[str]:
    return sorted({*"".join(_texts()), *map(chr, range(32, 127)), "▁"} - {" ", "\n"})


def _llama() -> Tokenizer:
    pairs = Counter(text[i : i + 2] for text in _texts() for i in range(len(text) - 1))
    common = [(pair[0], pair[1]) for pair, _ in pairs.most_common(500) if not {" ", "\n"} & set(pair)]
    merges = [*common, ("▁", "你"), ("<", "/"), ("s", ">"), ("</", "s>"), ("<", "s>")]
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *_characters(), *(a + b for a, b in merges)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    tokenizer.add_special_tokens([AddedToken("<|end|>", rstrip=True), AddedToken("<|user|>", lstrip=True)])
    return tokenizer


def _unigram() -> Tokenizer:
    bytes_ = [(token, -20.0) for token in BYTES]
    characters = [(char, -5.0) for char in [*_characters(), " "]]
    held = [(token, -3.0) for token in (*THINKING, *TURNS)]
    model = models.Unigram([("<unk>", 0.0), *bytes_, *characters, *held], unk_id=0, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", *TURNS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=True) for text in THINKING])
    return tokenizer
