"""What every tokenizer of a judge does: it opens an answer as the chat template does, and finds the tokens of levels.

Where the tokenizer is (in a folder, or on a server) its kinds say: ``judge.prompting.safe_tokenizer`` and
``judge.engines.llama_cpp``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from judge.errors import InputError

USER_SLOT = "\ue000user\ue001"
"""Stands for the user's message while the chat template is rendered."""


ANSWER_SLOT, THOUGHT_SLOT = "\ue000answer\ue001", "\ue000thought\ue001"
"""Stand for a finished answer, and for the thought before it."""


FULL_WIDTH = {ord("0") + digit: ord("０") + digit for digit in range(10)}
"""Digits as Chinese text may write them."""


def bare(text: str) -> str:
    """A text without white space, which templates and tokenizers change."""
    return "".join(text.split())


class Tokenizer(Protocol):
    """What writes prompts: a tokenizer of a model's, or what stands in its place (``message_tokenizer``)."""

    @property
    def place(self) -> str:
        """Where it comes from, for messages to people."""
        ...

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that steer a model, which text from outside never becomes."""
        ...

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template; one without (a base model) is asked in plain paragraphs."""
        ...

    @property
    def digest(self) -> str:
        """Hash of the tokenizer and its chat template (32 hexadecimal digits)."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the project's own text; control tokens in it are control tokens."""
        ...

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        """Ids of somebody else's text, none of them a control token, whatever it says."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """What ids write, control tokens included."""
        ...

    def chat(self, system: str) -> tuple[str, str]:
        """What stands around the user's message: the text before it (system message included) and after."""
        ...

    def before_level(self, text: str, levels: Sequence[int]) -> tuple[int, ...]:
        """Ids of the project's own text as they are where one of ``levels`` follows it."""
        ...

    def level_ids(self, context: str, levels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """For each of ``levels`` the single tokens that write it right after ``context``; InputError without any."""
        ...


class ChatTokenizer(ABC):
    """Turns texts into ids, and a system message into what stands around the user's.

    ``place`` is where it comes from, for messages to people; ``bos`` the token (as text) that begins texts, if there is
    one, and ``beginning`` the same where every text began by it in the model's training, or nothing.
    """

    place: str
    bos: str
    beginning: str
    control_ids: frozenset[int]

    @abstractmethod
    def encode(self, text: str) -> tuple[int, ...]:
        """See ``Tokenizer.encode``."""

    @abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """See ``Tokenizer.text``."""

    @property
    @abstractmethod
    def has_template(self) -> bool:
        """See ``Tokenizer.has_template``."""

    @abstractmethod
    def _render(self, messages: list[dict[str, str]], is_finished: bool = False) -> str:
        """The chat template filled in, up to where an answer is to begin; InputError where it fails."""

    def chat(self, system: str) -> tuple[str, str]:
        """What stands around the user's message: the text before it (system message included) and after.

        The text after it ends where the words of an answer begin: behind an empty thought, or inside the channel of
        final answers, where the model has such. A template that knows no system message, or leaves it out, gets it at
        the head of the user's. Without a template there is a paragraph for each, behind the token that begins every
        text.

        Raises:
            InputError: the template prints the user's message, or the system message before it, not once and whole.
        """
        if not self.has_template:
            return f"{self.beginning}{system}\n\n", "\n\n"
        messages = self._understood(
            [{"role": "system", "content": system}, {"role": "user", "content": USER_SLOT}], bare(system)
        )
        head, slot, tail = self._render(messages).partition(USER_SLOT)
        if not slot or USER_SLOT in tail:
            raise InputError(
                f"{self.place}: its chat template does not print the user's message once; use another judge"
            )
        if self.bos and head.startswith(self.bos * 2):
            head = head.removeprefix(self.bos)
        tail = self._answer_opened(messages, tail)
        before, after = bare(head), bare(tail)
        if system and (before.count(bare(system)) != 1 or bare(system) in after):
            twice = "more than once" if bare(system) in before else "not, or not as it stands"
            raise InputError(
                f"{self.place}: its chat template prints the rubric {twice}; use another judge, or correct the template"
            )
        return head, tail

    def _understood(self, messages: list[dict[str, str]], system: str) -> list[dict[str, str]]:
        """The messages as a template takes them that fails on a system message or leaves it out: at the user's head.

        ``system`` is what is to be found of it, without white space, before the user's message.
        """
        try:
            if system in bare(self._render(messages).partition(messages[1]["content"])[0]):
                return messages
        except InputError:
            pass  # what is wrong with it is said of the other form, should that fail too
        first, second, *more = messages
        return [{"role": "user", "content": f"{first['content']}\n\n{second['content']}"}, *more]

    def conversation(self, roles: Sequence[str]) -> list[str]:
        """What stands around the messages of a conversation: the text before each, and that after the last.

        The text after the last ends where the words of an answer begin, as that of ``chat``. A template that knows no
        system message gets it at the head of the first user's; without a template there is a paragraph for each.

        Args:
            roles: ``system``, ``user`` or ``assistant`` of each message; the first may be the system's, the last is the
                user's.

        Raises:
            InputError: the template does not print every message once, in order.
        """
        if not self.has_template:
            return [self.beginning, *["\n\n"] * len(roles)]
        slots = [f"\ue000{number}\ue001" for number in range(len(roles) - 1)] + [USER_SLOT]
        asked = [{"role": role, "content": slot} for role, slot in zip(roles, slots, strict=True)]
        if roles[0] == "system":
            asked = self._understood(asked, slots[0])
        rest, pieces = self._render(asked), []
        for slot in slots:
            before, found, rest = rest.partition(slot)
            if not found or slot in rest:
                raise InputError(
                    f"{self.place}: its chat template does not print each message of a conversation once, in order; "
                    "use another model"
                )
            pieces.append(before)
        if self.bos and pieces[0].startswith(self.bos * 2):
            pieces[0] = pieces[0].removeprefix(self.bos)
        return [*pieces, self._answer_opened(asked, rest)]

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

    def before_level(self, text: str, levels: Sequence[int]) -> tuple[int, ...]:
        """Ids of the project's own text as they are where one of ``levels`` follows it.

        A tokenizer may encode the end of a text in another way where it stands alone (a line break and a blank, say).
        """
        spellings = {self.encode(f"{text}{level}")[:-1] for level in levels}
        return spellings.pop() if len(spellings) == 1 else self.encode(text)

    def level_ids(self, context: str, levels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """For each of ``levels`` the single tokens that write it right after ``context`` (``4``, ``４``, `` 4``).

        Raises:
            InputError: a level has no token of its own there.
        """
        before, found = self.before_level(context, levels), []
        for level in levels:
            single = set()
            for text in (str(level), str(level).translate(FULL_WIDTH), f" {level}"):
                *start, last = self.encode(context + text)
                # Never the token for what is unknown, which decodes to something else.
                if tuple(start) == before and self.text([last]).strip() == text.strip():
                    single.add(last)
            found.append(tuple(sorted(single)))
        flat = [token for tokens in found for token in tokens]
        if not all(found) or len(flat) != len(set(flat)):
            lacking = [str(level) for level, own in zip(levels, found, strict=True) if not own] or map(str, levels)
            raise InputError(
                f"{self.place}: its tokenizer has no single token of its own for level {', '.join(lacking)} after "
                f"{context[-12:]!r}, so the answer cannot be read off one token; use a judge that writes each level as "
                "one token, or a rubric with levels of one digit (0 to 9)"
            )
        return tuple(found)
