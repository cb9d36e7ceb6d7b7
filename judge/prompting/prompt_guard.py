"""Reads prompts back from their tokens, and refuses one that does not hold the rubric and the dialogue whole and once.

A chat template may drop a system message, a tokenizer may cut long texts or lack the letters of a language. The judge
would answer all the same, about something else. White space is not compared: templates and tokenizers change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from unicodedata import normalize

from judge.errors import InputError
from judge.prompting.chat_tokenizer import bare
from judge.prompting.message_tokenizer import MARKS, without_brackets

if TYPE_CHECKING:
    from judge.prompting.chat_tokenizer import Tokenizer

MOST_UNKNOWN = 0.1
"""Share of a dialogue's characters that a tokenizer may lack: for a few rare signs it is judged all the same."""


METASPACE = "\u2581"
"""What SentencePiece writes for a blank, and reads as one."""


LONGEST_SHOWN = 24
"""Characters of a prompt that a message shows, from where it goes wrong."""


class UnknownLetters(InputError):
    """A tokenizer cannot write too many characters of a text: the text or the judge is the wrong one for the other."""


class PromptGuard:
    """Compares what tokens write with what they were to write."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._written: dict[str, str] = {}

    def refuse_other_rubric(self, text: str, ids: Sequence[int]) -> None:
        """InputError where ids do not write our own ``text``, every character of it."""
        self._compare("the rubric", text.translate(MARKS), ids, 0.0)

    def refuse_other_dialogue(self, what: str, text: str, ids: Sequence[int]) -> None:
        """InputError where ids do not write ``text``, which holds that of a dialogue, but for a few unknown characters.

        It is UnknownLetters where there are more of these. What a tokenizer keeps out on purpose is not missed: a
        character that is a control token, or looks like one.

        Args:
            what: what the text is of, for messages.
            text: as it is quoted.
            ids: the tokens that stand for it.
        """
        self._compare(what, text, ids, MOST_UNKNOWN)

    def _compare(self, what: str, text: str, ids: Sequence[int], most_unknown: float) -> None:
        wanted, written = bare(text), bare(self._tokenizer.text(ids))
        if wanted == written:
            return
        # The tokenizer's own spelling of each character (another width, another bracket, nothing) is no fault of the
        # prompt's, so the text is compared once more in that spelling.
        for char in set(wanted) - self._written.keys():
            self._written[char] = self._tokenizer.text(self._tokenizer.encode_untrusted(char))
        spelled, written = map(alike, ("".join(map(self._written.__getitem__, wanted)), written))
        unknown = sum(map(self._is_unknown, wanted))
        if spelled == written and unknown <= most_unknown * len(wanted):
            return
        begin, end = f"{self._tokenizer.place}: its tokenizer", "; use another judge"
        if unknown > most_unknown * len(wanted):
            raise UnknownLetters(f"{begin} cannot write {unknown:,} of the {len(wanted):,} characters of {what}{end}")
        same = next((n for n, pair in enumerate(zip(spelled, written, strict=False)) if len(set(pair)) > 1), None)
        place = min(len(spelled), len(written)) if same is None else same
        raise InputError(
            f"{begin} does not write {what} as it stands: {spelled[place : place + LONGEST_SHOWN]!r} became "
            f"{written[place : place + LONGEST_SHOWN]!r}{end}"
        )

    def _is_unknown(self, char: str) -> bool:
        """Whether the tokenizer writes something else for a character, but for its width, case and kind of bracket."""
        return alike(self._written[char]).casefold() != alike(char).casefold()


def alike(text: str) -> str:
    """A text without white space, its width, its kind of bracket and the marks of a server's messages."""
    return bare(without_brackets(normalize("NFKD", text.replace(METASPACE, " "))))
