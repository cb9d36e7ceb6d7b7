"""Text as its own characters, for servers that take messages and not token ids: a tokenizer whose ids are code points.

So prompts for such a server are written by the same code as all others. Where one message ends and the next begins is
marked by characters of the private use area, which no text of a dialogue can bring in.
"""

from __future__ import annotations

from collections.abc import Sequence

from judge.errors import InputError
from judge.prompting.chat_tokenizer import FULL_WIDTH
from judge.types import digest

SYSTEM, USER, ANSWER, LEVEL = "\ue010", "\ue011", "\ue012", "\ue013"
"""Begin the system message, the user's message, the answer, and the anchor of a level (its digit, then its text)."""


MARKS = {ord(SYSTEM): "<system>", ord(USER): "<user>", ord(ANSWER): "<answer>", ord(LEVEL): "<level>"}
"""The names by which people read these."""


BRACKETS = {
    "<\uff1c\ufe64": "\u3008",
    ">\uff1e\ufe65": "\u3009",
    "[\uff3b\ufe47": "\u3014",
    "]\uff3d\ufe48": "\u3015",
}
"""What begins and ends a control token in every family of models (``<|im_end|>``, ``</s>``, ``[INST]``, ``]~b]``) and
what a tokenizer's normaliser may make the same of, and the bracket that a text from outside has in its place."""


_SAFE = {ord(mark): None for mark in SYSTEM + USER + ANSWER + LEVEL} | {
    ord(bracket): other for brackets, other in BRACKETS.items() for bracket in brackets
}


def without_brackets(text: str) -> str:
    """A text with Chinese brackets where a control token has others, and without the marks of messages."""
    return text.translate(_SAFE)


class TextTokenizer:
    """Stands where a ``JudgeTokenizer`` stands; its ids are code points."""

    place = "the server"
    digest = digest("text, brackets changed")
    has_template = True
    control_ids: frozenset[int] = frozenset()
    """No id steers a model: what a server reads are messages."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Code points of the project's own text."""
        return tuple(map(ord, text))

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        """Code points of somebody else's text, with Chinese brackets where a control token has others."""
        return self.encode(without_brackets(text))

    def text(self, ids: Sequence[int]) -> str:
        """What code points write; the marks of messages by their names."""
        return "".join(map(chr, ids)).translate(MARKS)

    def chat(self, system: str) -> tuple[str, str]:
        """What stands before the user's message, and what after it."""
        return f"{SYSTEM}{system}{USER}", ANSWER

    def before_level(self, text: str, levels: Sequence[int]) -> tuple[int, ...]:
        """Code points of a text; what follows it changes none."""
        return self.encode(text)

    def level_ids(self, context: str, levels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """For each of ``levels`` its digit, plain and in full width; InputError where a level has two digits."""
        if two := [str(level) for level in levels if level > 9]:
            raise InputError(
                f"level {', '.join(two)} is written by two tokens, and a server that takes messages is asked for one; "
                "use a rubric with levels of one digit (0 to 9)"
            )
        return tuple((ord(str(level)), FULL_WIDTH[ord(str(level))]) for level in levels)


def messages(prompt: tuple[int, ...]) -> list[dict[str, str]]:
    """The messages of a prompt in code points, as an OpenAI-compatible server takes them."""
    system, _, rest = "".join(map(chr, prompt)).removeprefix(SYSTEM).partition(USER)
    return [{"role": "system", "content": system}, {"role": "user", "content": rest.removesuffix(ANSWER)}]


def texts(ids: tuple[int, ...]) -> str:
    """The beginning of a prompt in code points as one text, without the marks of its messages."""
    return "".join(map(chr, ids)).removeprefix(SYSTEM).removeprefix(USER).replace(USER, "\n\n")


def question(leaf: tuple[int, ...]) -> tuple[str, list[tuple[str, str]]]:
    """A leaf of the layout ``decision``: what is asked, and the anchors of the levels, each with its digit."""
    asked, *anchors = "".join(map(chr, leaf)).removesuffix(ANSWER).split(LEVEL)
    return asked.strip(), [(anchor[0], anchor[1:].strip()) for anchor in anchors]
