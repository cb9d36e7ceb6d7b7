"""Text as its own characters, for servers that take messages and not token ids: a tokenizer whose ids are code points.

So prompts for such a server are written by the same code as all others. Where one message ends and the next begins is
marked by characters of the private use area, which no text of a dialogue can bring in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from judge.errors import InputError, one_line
from judge.types import LEVELS, digest

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""How a vocabulary writes the token of a single byte."""


PROBE = "你好世界"
"""A text that every tokenizer which reads Chinese gives back as it was."""


USER_SLOT = "\ue000user\ue001"
"""Stands for the user's message while the chat template is rendered."""


ANSWER_SLOT, THOUGHT_SLOT = "\ue000answer\ue001", "\ue000thought\ue001"
"""Stand for a finished answer, and for the thought before it."""


class JudgeTokenizer:
    """The tokenizer of a judge.

    Raises:
        InputError: the folder has no tokenizer, or one (or a chat template) that cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fast = _load(folder)
        self.trusted = self._fast.backend_tokenizer
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
        self._beginning = self._fast.bos_token if adds and self._fast.bos_token else ""
        self._bytes = {i: token for token, i in self.trusted.get_vocab().items() if _BYTE.fullmatch(token)}
        self._encode = lru_cache(maxsize=4096)(
            lambda text: tuple(self.trusted.encode(text, add_special_tokens=False).ids)
        )

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the project's own text; control tokens in it are control tokens."""
        return self._encode(text)

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        """Ids of somebody else's text, none of them a control token, whatever it says.

        Where the vocabulary itself holds a control token, the text is cut inside it; a single character that is one
        cannot be written otherwise and is left out. So is text cut that spells a byte token (``<0x0A>``), which some
        tokenizers would take for the byte, here a line break.
        """
        ids: list[int] = []
        pieces = [text]
        normaliser = self.untrusted.normalizer
        while pieces:
            encoding = self.untrusted.encode(piece := pieces.pop(), add_special_tokens=False)
            offences = []
            for token, span in zip(encoding.ids, encoding.offsets, strict=True):
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
                ids += encoding.ids
        return tuple(ids)

    def text(self, ids: Sequence[int]) -> str:
        """What ids write, control tokens included."""
        return str(self.trusted.decode(list(ids), skip_special_tokens=False))

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template; one without (a base model) is asked in plain paragraphs."""
        return bool(self._fast.chat_template)

    def chat(self, system: str) -> tuple[str, str]:
        """What stands around the user's message: the text before it (system message included) and after.

        The text after it ends where the words of an answer begin: behind an empty thought, or inside the channel of
        final answers, where the model has such. A template that knows no system message gets it at the head of the
        user's. Without a template there is a paragraph for each, behind the token that begins every text.
        """
        if not self.has_template:
            return f"{self._beginning}{system}\n\n", "\n\n"
        messages = [{"role": "system", "content": system}, {"role": "user", "content": USER_SLOT}]
        try:
            self._render(messages)
        except InputError:
            messages = [{"role": "user", "content": f"{system}\n\n{USER_SLOT}"}]
        rendered = self._render(messages)
        head, slot, tail = rendered.partition(USER_SLOT)
        if not slot or USER_SLOT in tail:
            raise InputError(
                f"{self.folder}: its chat template does not print the user's message once; use another judge"
            )
        bos = self._fast.bos_token
        if bos and head.startswith(bos + bos):
            head = head.removeprefix(bos)
        return head, self._answer_opened(messages, tail)

    def _answer_opened(self, messages: list[dict[str, str]], begun: str) -> str:
        """What stands between the user's message and the first word of the answer.

        A finished answer, rendered by the template, shows it; ``begun`` is what the template gives to a model that is
        to answer. The longer of the two is right: the first also opens a channel that the model would open itself, and
        the second holds an empty thought that some templates leave out of finished answers.
        """
        finished = self._between(messages, {"content": ANSWER_SLOT}, ANSWER_SLOT)
        if finished is not None and len(finished) >= len(begun):
            return finished
        # A thought that `begun` has opened is closed as the template closes one.
        thought = {"content": ANSWER_SLOT, "reasoning_content": THOUGHT_SLOT}
        opened = self._between(messages, thought, THOUGHT_SLOT)
        closed = self._between(messages, thought, ANSWER_SLOT)
        if opened and closed and begun.strip() and opened.rstrip() == begun.rstrip():
            return opened + closed.partition(THOUGHT_SLOT)[2]
        return f"{begun}\n\n</think>\n\n" if begun.rstrip().endswith("<think>") else begun

    def _between(self, messages: list[dict[str, str]], answer: dict[str, str], mark: str) -> str | None:
        """What is rendered between the user's message and a mark in an answer; None where it is not there once."""
        try:
            text = self._render([*messages, {"role": "assistant", **answer}], is_finished=True)
        except InputError:
            return None
        after = text.partition(USER_SLOT)[2]
        return after.partition(mark)[0] if after.count(mark) == 1 else None

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
            raise InputError(
                f"{self.folder}: its chat template fails ({one_line(error)}); use another judge"
            ) from error
        return str(rendered)

    def before_level(self, text: str) -> tuple[int, ...]:
        """Ids of the project's own text as they are where the digit of a level follows it.

        A tokenizer may encode the end of a text in another way where it stands alone (a line break and a blank, say).
        """
        spellings = {self.encode(f"{text}{level}")[:-1] for level in LEVELS}
        return spellings.pop() if len(spellings) == 1 else self.encode(text)

    def level_ids(self, context: str) -> tuple[tuple[int, ...], ...]:
        """For each level 1..5 the single tokens that write it right after ``context`` (``4``, ``４``, `` 4``).

        Raises:
            InputError: a level has no token of its own there.
        """
        before, found = self.before_level(context), []
        for level in LEVELS:
            single = set()
            for text in (str(level), chr(ord("０") + level), f" {level}"):
                *start, last = self.encode(context + text)
                # Never the token for what is unknown, which decodes to something else.
                if tuple(start) == before and self.text([last]).strip() == text.strip():
                    single.add(last)
            found.append(tuple(sorted(single)))
        flat = [token for tokens in found for token in tokens]
        if not all(found) or len(flat) != len(set(flat)):
            raise InputError(
                f"{self.folder}: its tokenizer has no single token of its own for each level 1 to 5 after "
                f"{context[-12:]!r}, so one digit cannot be read off; use a judge that writes a digit as one token"
            )
        return tuple(found)

    @property
    def digest(self) -> str:
        """Hash of the tokenizer and its chat template (32 hexadecimal digits)."""
        template = self._fast.get_chat_template() if self.has_template else self._beginning
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
        if (folder / "tokenizer.json").is_file() and PROBE not in fast.decode(fast.encode(PROBE)):
            # A class of the library's may build its own steps in place of the file's: Llama's, which DeepSeek-V3 names,
            # drops every Chinese character.
            fast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a broken file fails in many ways inside the library
        raise InputError(
            f"{folder}: its tokenizer cannot be read ({one_line(error)}); fetch the folder again"
        ) from error
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


SYSTEM, USER, ANSWER = "\ue010", "\ue011", "\ue012"
"""Begin the system message, the user's message, and the answer."""


BRACKETS = {
    "<\uff1c\ufe64": "\u3008",
    ">\uff1e\ufe65": "\u3009",
    "[\uff3b\ufe47": "\u3014",
    "]\uff3d\ufe48": "\u3015",
}
"""What begins and ends a control token in every family of models (``<|im_end|>``, ``</s>``, ``[INST]``, ``]~b]``) and
what a tokenizer's normaliser may make the same of, and the bracket that a text from outside has in its place."""


_SAFE = {ord(mark): None for mark in SYSTEM + USER + ANSWER} | {
    ord(bracket): other for brackets, other in BRACKETS.items() for bracket in brackets
}


class TextTokenizer:
    """Stands where a ``JudgeTokenizer`` stands; its ids are code points."""

    digest = digest("text, brackets changed")
    has_template = True
    control_ids: frozenset[int] = frozenset()
    """No id steers a model: what a server reads are messages."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Code points of the project's own text."""
        return tuple(map(ord, text))

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        """Code points of somebody else's text, with Chinese brackets where a control token has others."""
        return self.encode(text.translate(_SAFE))

    def text(self, ids: Sequence[int]) -> str:
        """What code points write; the marks of messages by their names."""
        names = {ord(SYSTEM): "<system>", ord(USER): "<user>", ord(ANSWER): "<answer>"}
        return "".join(map(chr, ids)).translate(names)

    def chat(self, system: str) -> tuple[str, str]:
        """What stands before the user's message, and what after it."""
        return f"{SYSTEM}{system}{USER}", ANSWER

    def before_level(self, text: str) -> tuple[int, ...]:
        """Code points of a text; what follows it changes none."""
        return self.encode(text)

    def level_ids(self, context: str) -> tuple[tuple[int, ...], ...]:
        """For each level its digit, plain and in full width."""
        return tuple((ord(str(level)), ord("０") + level) for level in LEVELS)


def messages(prompt: tuple[int, ...]) -> list[dict[str, str]]:
    """The messages of a prompt in code points, as an OpenAI-compatible server takes them."""
    system, _, rest = "".join(map(chr, prompt)).removeprefix(SYSTEM).partition(USER)
    return [{"role": "system", "content": system}, {"role": "user", "content": rest.removesuffix(ANSWER)}]
