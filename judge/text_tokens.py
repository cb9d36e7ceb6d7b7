"""Text as its own characters, for servers that take messages and not token ids: a tokenizer whose ids are code points.

So prompts for such a server are written by the same code as all others. Where one message ends and the next begins is
marked by characters of the private use area, which no text of a dialogue can bring in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from judge.types import LEVELS, digest

SYSTEM, USER, ANSWER = "\ue010", "\ue011", "\ue012"
"""Begin the system message, the user's message, and the answer."""
_MARKS = str.maketrans("", "", SYSTEM + USER + ANSWER)
_CONTROL = re.compile(r"<(?=[\w|/\\!])|\[(?=/?[A-Z_]+\])")
"""Where text could begin what a tokenizer may read as a control token: ``<|im_end|>``, ``</s>``, ``[INST]``."""


class TextTokenizer:
    """Stands where a ``JudgeTokenizer`` stands; its ids are code points."""

    digest = digest("text")

    def encode(self, text: str) -> tuple[int, ...]:
        """Code points of the project's own text."""
        return tuple(map(ord, text))

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        """Code points of somebody else's text, with what may begin a control token written in full width."""
        safe = _CONTROL.sub(lambda found: chr(ord(found[0]) + 0xFEE0), text.translate(_MARKS))
        return self.encode(safe)

    def text(self, ids: Sequence[int]) -> str:
        """What code points write; the marks of messages by their names."""
        names = {ord(SYSTEM): "<system>", ord(USER): "<user>", ord(ANSWER): "<answer>"}
        return "".join(map(chr, ids)).translate(names)

    def chat(self, system: str) -> tuple[str, str]:
        """What stands before the user's message, and what after it."""
        return f"{SYSTEM}{system}{USER}", ANSWER

    def level_ids(self, context: str) -> tuple[tuple[int, ...], ...]:
        """For each level its digit, plain and in full width."""
        return tuple((ord(str(level)), ord("０") + level) for level in LEVELS)


def messages(prompt: tuple[int, ...]) -> list[dict[str, str]]:
    """The messages of a prompt in code points, as an OpenAI-compatible server takes them."""
    system, _, rest = "".join(map(chr, prompt)).removeprefix(SYSTEM).partition(USER)
    return [{"role": "system", "content": system}, {"role": "user", "content": rest.removesuffix(ANSWER)}]
