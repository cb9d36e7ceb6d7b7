"""The tokenizer in a model's folder, by which no text from outside becomes a control token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from judge.errors import InputError, one_line
from judge.prompting.chat_tokenizer import ChatTokenizer
from judge.types import digest

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""How a vocabulary writes the token of a single byte."""


PROBE = "你好世界"
"""A text that every tokenizer which reads Chinese gives back as it was."""


class JudgeTokenizer(ChatTokenizer):
    """The tokenizer of a judge whose files are here.

    Raises:
        InputError: the folder has no tokenizer, or one (or a chat template) that cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self._fast = _load(folder)
        self.trusted = self._fast.backend_tokenizer
        # A file may hold the length to which texts were cut or filled up in training.
        self.trusted.no_truncation()
        self.trusted.no_padding()
        # The tokenizer with nothing added: no tokens, and no blank before a text, which stands in the midst of ours.
        serialized = self.trusted.to_str()
        from tokenizers import Tokenizer

        description = json.loads(serialized)
        description["added_tokens"] = []
        description["post_processor"] = None
        for name in ("normalizer", "pre_tokenizer"):
            description[name] = _without_prefix(description[name])
        self.untrusted = Tokenizer.from_str(json.dumps(description))
        # Some models (Gemma) add runs of blanks and line breaks: those steer nothing, and people write them.
        added = {i for i, token in self._fast.added_tokens_decoder.items() if token.content.strip()}
        self.control_ids = frozenset(added) - {self._fast.unk_token_id}
        # Asked without a template, a model needs the token by which every text began in its training, if it has one.
        # That is in the configuration; some classes of transformers do not read it there.
        adds = _configuration(folder).get("add_bos_token") or self._fast.bos_token_id in self._fast("a").input_ids[:1]
        self.bos = self._fast.bos_token or ""
        self.beginning = self.bos if adds else ""
        self._bytes = {i: token for token, i in self.trusted.get_vocab().items() if _BYTE.fullmatch(token)}
        self._refused = self.control_ids | self._bytes.keys()
        self._encode = lru_cache(maxsize=4096)(
            lambda text: tuple(self.trusted.encode(text, add_special_tokens=False).ids)
        )
        # Many dialogues have the same profile, and those of all systems the same first question.
        self._encode_untrusted = lru_cache(maxsize=4096)(self._without_control)

    def encode(self, text: str) -> tuple[int, ...]:
        """See ``Tokenizer.encode``."""
        return self._encode(text)

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        """Ids of somebody else's text, none of them a control token, whatever it says.

        Where the vocabulary itself holds a control token, the text is cut inside it; a single character that is one
        cannot be written otherwise and is left out. So is text cut that spells a byte token (``<0x0A>``), which some
        tokenizers would take for the byte, here a line break.
        """
        return self._encode_untrusted(text)

    def _without_control(self, text: str) -> tuple[int, ...]:
        """See ``encode_untrusted``."""
        ids: list[int] = []
        pieces = [text]
        normaliser = self.untrusted.normalizer
        while pieces:
            encoding = self.untrusted.encode(piece := pieces.pop(), add_special_tokens=False)
            if self._refused.isdisjoint(own := encoding.ids):
                ids += own
                continue
            offences = []
            for token, span in zip(own, encoding.offsets, strict=True):
                if token in self.control_ids:
                    offences.append(span)
                elif token in self._bytes:
                    # The token of a byte is right for a character that has no token, and wrong for its own spelling.
                    said = piece[slice(*span)]
                    if self._bytes[token] == (normaliser.normalize_str(said) if normaliser else said):
                        offences.append(span)
            if offences:
                pieces += reversed(_cut(piece, offences))
            else:
                ids += own
        return tuple(ids)

    def text(self, ids: Sequence[int]) -> str:
        """See ``Tokenizer.text``."""
        return str(self.trusted.decode(list(ids), skip_special_tokens=False))

    @property
    def has_template(self) -> bool:
        """See ``Tokenizer.has_template``."""
        return bool(self._fast.chat_template)

    def _render(self, messages: list[dict[str, str]], is_finished: bool = False) -> str:
        try:
            rendered = self._fast.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not is_finished,
                enable_thinking=False,
                strftime_now=datetime(2025, 1, 1).strftime,  # a template that tells the date tells always the same
            )
        except Exception as error:
            raise InputError(f"{self.place}: its chat template fails ({one_line(error)}); use another judge") from error
        return str(rendered)

    @property
    def digest(self) -> str:
        """See ``Tokenizer.digest``."""
        template = self._fast.get_chat_template() if self.has_template else self.beginning
        return digest([self.trusted.to_str(), template])


def _configuration(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json`` as it stands, as some of the library's classes forget a part of it; empty without."""
    try:
        return dict(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _load(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise InputError(
            f"{folder}: no tokenizer there (tokenizer.json); a judge is a folder with weights and tokenizer"
        )
    try:
        fast = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if (folder / "tokenizer.json").is_file() and PROBE not in fast.decode(
            fast.encode(PROBE), clean_up_tokenization_spaces=False
        ):
            # A class of the library's may build its own steps in place of the file's: Llama's, which DeepSeek-V3 names,
            # drops every Chinese character.
            fast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a broken file fails in many ways inside the library
        own = (folder / "tokenizer.json").is_file()
        remedy = "fetch the folder again" if own else "install what it asks for, or use a judge with a tokenizer.json"
        raise InputError(f"{folder}: its tokenizer cannot be read ({one_line(error)}); {remedy}") from error
    if not fast.is_fast:
        raise InputError(f"{folder}: its tokenizer has no tokenizer.json form; use another judge")
    return fast


def _cut(text: str, spans: Iterable[tuple[int, int]]) -> list[str]:
    """A text cut after the first character of each span; a span of one character is left out."""
    pieces, begin = [], 0
    for start, end in spans:
        if start >= begin:  # several tokens may be read from the same characters
            pieces.append(text[begin : start + (end - start > 1)])
            begin = start + 1
    return [*pieces, text[begin:]]


def _without_prefix(step: Any) -> Any:
    """A step of a tokenizer's description that puts no blank before the text; None for one that does only that."""
    if step is None or step["type"] == "Prepend":
        return None
    changed = {"prepend_scheme": "never", "add_prefix_space": False}
    step = {key: changed.get(key, value) for key, value in step.items()}
    for key in ("normalizers", "pretokenizers"):
        if key in step:
            step[key] = [kept for kept in map(_without_prefix, step[key]) if kept is not None]
    return step
