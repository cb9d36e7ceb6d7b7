"""The slot guard on texts by the hundred thousand, for tokenizers of several kinds.

A prompt with a text in one slot must be what it is with the slot empty, and between the same ids on either side ids
that are no control token and that read as the text, line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from judge.errors import plain
from judge.prompting.prompt_tree import QUOTE, Ids, PromptTree, PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import Dialogue, Turn
from tests.torture.hostile import texts
from tests.torture.tokenizers import FORMS, folders

MOST_FAILURES = 20
REAL = Dialogue("源", "甲", "1", (Turn("问", "答"), Turn("再问", "再答")), "资料")

Fill = Callable[[str], Ids]
"""A prompt's ids with a text in a slot."""


def _tree_slots(writer: PromptWriter) -> dict[str, Callable[[str], PromptTree]]:
    turns = REAL.turns
    return {
        "character": lambda text: writer.dialogue(replace(REAL, character=text), ["fluency"]),
        "profile": lambda text: writer.dialogue(replace(REAL, profile=text), ["fluency"]),
        "question": lambda text: writer.dialogue(
            replace(REAL, turns=(replace(turns[0], user=text), turns[1])), ["fluency"]
        ),
        "answer": lambda text: writer.dialogue(
            replace(REAL, turns=(turns[0], replace(turns[1], character=text))), ["fluency"]
        ),
        "sampled answer": lambda text: writer.answers("甲", None, ["答", text, "再答"]),
    }


def guarded(tokenizer: JudgeTokenizer) -> dict[str, Fill]:
    """The slots of the prompts as they are written."""
    trees = _tree_slots(PromptWriter(load_rubric("zh"), tokenizer, "question"))
    return {name: lambda text, fill=fill: fill(text).prompt(0) for name, fill in trees.items()}


class _Naive:
    """Writes every text as its own code points, so that a whole prompt can be put together as one string."""

    def __init__(self, tokenizer: JudgeTokenizer) -> None:
        self.chat = tokenizer.chat

    def encode(self, text: str) -> Ids:
        return tuple(map(ord, text))

    encode_untrusted = encode

    def text(self, ids: Ids) -> str:
        return "".join(map(chr, ids))

    def before_level(self, text: str, levels: Sequence[int]) -> Ids:
        return self.encode(text)

    def level_ids(self, context: str, levels: Sequence[int]) -> tuple[Ids, ...]:
        return tuple((ord(str(level)),) for level in range(1, 6))


def naive(tokenizer: JudgeTokenizer, whole: Callable[[str], Sequence[int]]) -> dict[str, Fill]:
    """The same prompts put together as a string, which is encoded at once: what must not hold."""
    writer = PromptWriter(load_rubric("zh"), _Naive(tokenizer), "question")  # type: ignore[arg-type]
    return {
        name: lambda text, fill=fill: tuple(whole("".join(map(chr, fill(text).prompt(0)))))
        for name, fill in _tree_slots(writer).items()
    }


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot, the ids on either side of it, which no text may change, and how what is in it is read."""

    name: str
    fill: Fill
    before: Ids
    after: Ids
    tokenizer: JudgeTokenizer
    form: Callable[[str], str]

    @classmethod
    def of(cls, name: str, fill: Fill, tokenizer: JudgeTokenizer, form: Callable[[str], str]) -> Slot:
        """The ids on either side are what prompts with two short texts have in common."""
        one, other = fill("天"), fill("心")
        start = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        end = next(i for i, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b)
        return cls(name, fill, one[:start], one[len(one) - end :], tokenizer, form)

    def wrong(self, text: str) -> str | None:
        """What is wrong with the prompt that has this text in the slot."""
        ids = self.fill(text)
        inside = ids[len(self.before) : len(ids) - len(self.after)]
        if self.before + inside + self.after != ids:
            return "ids of the template changed"
        if self.tokenizer.control_ids.intersection(inside):
            return "a control token"
        lines = [self.form(line) for line in text.splitlines() or [""]]
        if self._read(inside) != self._read(self.tokenizer.encode(f"\n{QUOTE}")).join(lines):
            return f"reads {self._read(inside)!r}"
        return None

    def _read(self, ids: Ids) -> str:
        """What ids say after others: some decoders drop a blank at the very beginning."""
        anchor = self.tokenizer.encode("天")
        said = self.tokenizer.trusted.decode([*anchor, *ids], skip_special_tokens=False)
        return str(said).removeprefix("天")


def slots(fills: dict[str, Fill], tokenizer: JudgeTokenizer, form: Callable[[str], str]) -> list[Slot]:
    """The slots of a way to write prompts."""
    return [Slot.of(name, fill, tokenizer, form) for name, fill in fills.items()]


def failures(places: Sequence[Slot], count: int, seed: int) -> Iterator[str]:
    """Each text that fools the guard, in the slot that is its turn."""
    for number, text in enumerate(texts(count, seed)):
        slot = places[number % len(places)]
        if wrong := slot.wrong(text):
            yield plain(f"{slot.name}: {text!r}: {wrong}")


def run(count: int, seed: int, folder: Path) -> list[str]:
    """The failures on so many texts for each tokenizer; none where the guard held."""
    found: list[str] = []
    for name, model in folders(folder).items():
        tokenizer = JudgeTokenizer(model)
        own = [f"{name}: {one}" for one in failures(slots(guarded(tokenizer), tokenizer, FORMS[name]), count, seed)]
        print(f"guard, {name}: {count:,} texts, {len(own):,} failures", flush=True)
        found += own[:MOST_FAILURES]
    return found
