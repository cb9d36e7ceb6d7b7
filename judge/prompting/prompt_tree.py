"""A dialogue as a tree of token ids: rules and rubrics, then the character, then the dialogue, then a leaf per metric.

Everything above a branch is shared by what is below it, so an engine computes it once. Text of a dialogue stands in
fixed slots, quoted line by line, and is encoded apart from the template (``JudgeTokenizer.encode_untrusted``).
Knows nothing of models or engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from judge.errors import plain
from judge.prompting.message_tokenizer import LEVEL
from judge.prompting.prompt_guard import PromptGuard
from judge.types import Dialogue, Metric

if TYPE_CHECKING:
    from judge.prompting.chat_tokenizer import Tokenizer
    from judge.prompting.rubric import Rubric


Ids = tuple[int, ...]


QUOTE = "> "
"""Begins every line of text that is not ours."""


BLANKS = {"none": "", "space": " ", "newline": "\n"}
"""The answer forms that are no word of the rubric."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rubric of a metric stands, and where it is asked for."""

    rubrics_first: bool
    """The guides of all metrics at the root; otherwise only the metric's own, at its leaf."""
    answer_begun: bool
    """The answer is begun for the judge (``流畅性：``); otherwise each leaf asks in the user's turn."""
    levels_apart: bool = False
    """Each leaf is a definition and the anchors, marked off; the server that answers writes the prompt from them."""


LAYOUTS = {
    "prefill": Layout(rubrics_first=True, answer_begun=True),
    "question": Layout(rubrics_first=True, answer_begun=False),
    "separate": Layout(rubrics_first=False, answer_begun=False),
}


DECISION = "decision"
"""The layout for a server of decisions, which makes a prompt of its own."""


ALL_LAYOUTS = LAYOUTS | {DECISION: Layout(rubrics_first=False, answer_begun=False, levels_apart=True)}


@dataclass(frozen=True, slots=True)
class PromptTree:
    """Token ids of one dialogue's prompts; that of leaf ``i`` is root + character + opening + dialogue + leaves[i].

    The opening is the user's first question, which every source that plays the scenario answers; only a heading where
    the character speaks first.
    """

    root: Ids
    character: Ids
    opening: Ids
    dialogue: Ids
    leaves: tuple[Ids, ...]

    def prompt(self, leaf: int) -> Ids:
        """The whole prompt that ends at a leaf."""
        return self.root + self.character + self.opening + self.dialogue + self.leaves[leaf]

    @property
    def prompts(self) -> list[Ids]:
        """The whole prompts, one a leaf."""
        return [self.prompt(leaf) for leaf in range(len(self.leaves))]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each leaf's whole prompt."""
        shared = len(self.root) + len(self.character) + len(self.opening) + len(self.dialogue)
        return tuple(shared + len(leaf) for leaf in self.leaves)

    @property
    def shared(self) -> tuple[tuple[Ids, ...], ...]:
        """What other trees may have too: its root, that with its character, and that with its opening."""
        return (self.root,), (self.root, self.character), (self.root, self.character, self.opening)

    @property
    def own(self) -> int:
        """Tokens of the dialogue, its opening left out, and of all leaves."""
        return len(self.dialogue) + sum(map(len, self.leaves))


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the template for text that is not ours, which is quoted line by line.

    So no line of it can pass for a heading or for a speaker of ours: those begin a line, and it never does.
    """

    text: str

    @property
    def lines(self) -> list[str]:
        """Its lines, at least one."""
        return self.text.splitlines() or [""]

    def __str__(self) -> str:
        """The text as it is quoted."""
        return "\n".join(f"{QUOTE}{line}" for line in self.lines)


class PromptWriter:
    """Writes the prompt trees of one rubric, layout, order of levels and answer form for one tokenizer.

    ``levels`` are those of all metrics together, and ``level_ids`` the tokens that stand for each in the answer slot.
    Each prompt is read back from its tokens before it is given away (``prompt_guard``): each method that writes one
    raises UnknownLetters where the tokenizer lacks too many of the letters, and InputError where it cuts or doubles.

    Raises:
        InputError: the tokenizer has no token of its own for each level there; or the chat template or the tokenizer
            drops, doubles or cuts the rubric.
    """

    def __init__(
        self,
        rubric: Rubric,
        tokenizer: Tokenizer,
        layout: str = "prefill",
        ascending: bool = True,
        answer_form: str = "none",
    ):
        self.rubric, self.tokenizer, self.ascending = rubric, tokenizer, ascending
        self.layout, self._form = ALL_LAYOUTS[layout], BLANKS.get(answer_form, rubric.texts.before_level)
        self._head, self._tail = tokenizer.chat(self._system(tuple(rubric.metrics.values())))
        self._set_head = tokenizer.chat(self._system((rubric.set_metric,)))[0] if rubric.set_metric else ""
        self.levels = rubric.scheme.all_levels
        # The level tokens common to every leaf: what writes a level after one metric writes it after all.
        found = [self.tokenizer.level_ids(self._leaf(metric), self.levels) for metric in rubric.all_metrics]
        self.level_ids = tuple(
            tuple(sorted(set.intersection(*map(set, tokens)))) for tokens in zip(*found, strict=True)
        )
        self._guard = PromptGuard(tokenizer)
        for text in (self._head, self._set_head, self._tail, *map(self._leaf, rubric.all_metrics)):
            self._guard.refuse_other_rubric(text, tokenizer.encode(text))

    @property
    def root_tokens(self) -> int:
        """Tokens that every prompt about a dialogue begins with."""
        return len(self.tokenizer.encode(self._head))

    def dialogue(self, dialogue: Dialogue, metrics: Iterable[str]) -> PromptTree:
        """The tree of one dialogue, with a leaf for each of ``metrics``."""
        leaves = (self._leaf(self.rubric.metrics[metric]) for metric in metrics)
        return self._about(dialogue, [self.tokenizer.before_level(leaf, self.levels) for leaf in leaves])

    def questions(self, dialogue: Dialogue, questions: Iterable[str]) -> PromptTree:
        """The tree of one dialogue, with a leaf for each question of ours; of a layout whose answer is not begun."""
        return self._about(dialogue, [self.tokenizer.encode(question + self._tail) for question in questions])

    def _about(self, dialogue: Dialogue, leaves: Iterable[Ids]) -> PromptTree:
        parts: list[str | Slot] = [f"\n\n# {self.rubric.texts.dialogue}"]
        for number, turn in enumerate(dialogue.turns, start=1):
            sides = (self.rubric.texts.user, turn.user), (self.rubric.texts.reply, turn.character)
            heading = f"\n\n## {self.rubric.texts.turn.format(number=number)}"
            for speaker, text in sides:
                if text is not None:
                    parts += [f"{heading}\n{speaker}\n", Slot(text)]
                    heading = ""
        # Where the character opens the dialogue there is no first question to share.
        opening = 3 if dialogue.turns[0].user is not None else 1
        what = f"the dialogue {plain(dialogue.id)}" if dialogue.source else "the dialogue"
        who = self._who(dialogue.character, dialogue.profile)
        return self._tree(what, self._head, who, parts[:opening], parts[opening:], leaves)

    def answers(self, character: str, profile: str | None, texts: Sequence[str]) -> PromptTree:
        """The tree that asks for the rubric's set metric of several answers of one source as one character."""
        assert self.rubric.set_metric, "the rubric has no set metric"
        parts: list[str | Slot] = [f"\n\n# {self.rubric.texts.answers}"]
        for number, text in enumerate(texts, start=1):
            parts += [f"\n\n## {self.rubric.texts.answer.format(number=number)}\n", Slot(text)]
        leaf = self.tokenizer.before_level(self._leaf(self.rubric.set_metric), self.levels)
        what = f"the dialogues' answers as {plain(character)}"
        return self._tree(what, self._set_head, self._who(character, profile), [], parts, [leaf])

    def _who(self, character: str, profile: str | None) -> list[str | Slot]:
        if profile is None:
            return [Slot(character)]
        return [Slot(character), f"\n\n# {self.rubric.texts.profile}\n", Slot(profile)]

    def _tree(
        self,
        what: str,
        head: str,
        who: list[str | Slot],
        opening: list[str | Slot],
        parts: list[str | Slot],
        leaves: Iterable[Ids],
    ) -> PromptTree:
        texts = self.rubric.texts
        closing = f"\n\n{texts.closing}\n\n"
        if self.layout.answer_begun:
            closing += texts.instruction + self._tail
        said = [*parts, closing]
        tree = PromptTree(
            root=self.tokenizer.encode(f"{head}# {texts.character}\n"),
            character=self._ids(who),
            opening=self._ids(opening),
            dialogue=self._ids(said),
            leaves=tuple(leaves),
        )
        text = "".join(map(str, [*who, *opening, *said]))
        self._guard.refuse_other_dialogue(what, text, tree.character + tree.opening + tree.dialogue)
        return tree

    def _ids(self, parts: Iterable[str | Slot]) -> Ids:
        ids: list[int] = []
        for part in parts:
            if isinstance(part, str):
                ids += self.tokenizer.encode(part)
                continue
            for number, line in enumerate(part.lines):
                ids += self.tokenizer.encode(f"\n{QUOTE}" if number else QUOTE)
                ids += self.tokenizer.encode_untrusted(line)
        return tuple(ids)

    def _leaf(self, metric: Metric) -> str:
        if self.layout.answer_begun:
            return metric.answer + self._form
        if self.layout.levels_apart:
            levels = sorted(metric.levels, reverse=not self.ascending)
            anchors = (f"{LEVEL}{level}{metric.levels[level]}" for level in levels)
            return "".join([self.rubric.heading(metric), *anchors, self._tail])
        question = f"{metric.question}\n{self.rubric.texts.single}{self._tail}{self._form}"
        if self.layout.rubrics_first:
            return question
        return f"{self.rubric.section(metric, self.ascending)}\n\n{question}"

    def _system(self, metrics: Sequence[Metric]) -> str:
        texts = self.rubric.texts
        if self.layout.levels_apart:
            return ""  # the rules speak of the levels by their numbers, and such servers count them from 0
        if not self.layout.rubrics_first:
            return texts.rules
        sections = (self.rubric.section(metric, self.ascending) for metric in metrics)
        return "\n\n".join([texts.rules, f"# {texts.rubrics}", *sections])
