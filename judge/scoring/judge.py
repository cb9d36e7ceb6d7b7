"""A judge: a model, a rubric and a way of asking, which turn dialogues into judgments.

The model itself is loaded when the first judgment is asked for, so that a finished run costs no loading. Judges that
ask one model in several ways share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from statistics import median
from typing import Any

import numpy as np

from judge.data.dialogues import example_dialogues
from judge.engines import Array, Engine, Failure
from judge.engines.served_model import UNVERIFIED, Served
from judge.engines.server_protocols import ByIds
from judge.errors import InputError, UnfitJudge
from judge.models.checkpoint import Checkpoint
from judge.models.hardware import Hardware
from judge.prompting.chat_tokenizer import Tokenizer
from judge.prompting.prompt_guard import UnknownLetters
from judge.prompting.prompt_tree import ALL_LAYOUTS, LAYOUTS, Ids, PromptTree, PromptWriter
from judge.prompting.rubric import Rubric
from judge.scoring.summary import sample_answers
from judge.types import (
    EMPTY_ANSWER,
    MIN_MASS,
    NOT_FINITE,
    STAND_IN,
    TOO_FEW_ANSWERS,
    TOO_LONG,
    UNKNOWN_LETTERS,
    Dialogue,
    Judgment,
    Scheme,
    Turn,
    digest,
)


def judgment(logprobs: Array, levels: Sequence[int], knows_mass: bool = True) -> Judgment:
    """The judgment that the probabilities of the levels amount to.

    Args:
        logprobs: shape (orderings, levels): natural logarithms over the whole vocabulary of each level's probability in
            the answer slot, so that their exponentials sum to the label mass. Orderings are averaged.
        levels: the metric's.
        knows_mass: whether they are over the whole vocabulary; otherwise the mass is missing.

    Returns:
        The renormalised distribution with its mass; an error ``not_finite`` where there is none.
    """
    probabilities = np.exp(logprobs).mean(axis=0)
    mass = float(probabilities.sum())
    if not np.isfinite(mass) or mass <= 0.0:
        return Judgment(None, None, NOT_FINITE)
    chances = dict(zip(levels, (probabilities / mass).tolist(), strict=True))
    return Judgment(chances, min(mass, 1.0) if knows_mass else None)


CHECKED_DIALOGUES = 50
"""How many dialogues are looked at before a judge that does not understand the task is stopped."""


@dataclass(frozen=True, slots=True)
class Identity:
    """All that can change a score: two judges with the same identity give the same scores up to rounding."""

    weights: str
    config: str
    quantisation: str | None
    tokenizer: str
    prompt: str
    rubric: str
    language: str
    layout: str
    orderings: int
    level_tokens: tuple[Ids, ...]
    dtype: str
    answer_form: str = "none"

    @property
    def judge_id(self) -> str:
        """Hash of the identity (16 hexadecimal digits); one that rests on a server's word begins ``unverified:``."""
        mark = UNVERIFIED if self.weights.startswith(UNVERIFIED) else ""
        fields = asdict(self)
        if self.answer_form == "none":
            del fields["answer_form"]  # so that runs made before there were forms go on
        return mark + digest(fields, 16)

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """The names of the fields in which a recorded identity differs; the prompt only if it alone does."""
        own = asdict(self)
        own["level_tokens"] = [list(ids) for ids in self.level_tokens]
        recorded = {"answer_form": "none", **recorded}
        names = [name for name, value in own.items() if recorded.get(name) != value]
        return [name for name in names if name != "prompt"] or names


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is asked of one dialogue: a tree per order of the levels; none where nothing is, for the reason ``error``.

    Exactly one of the two is set.
    """

    trees: tuple[PromptTree, ...] = ()
    error: str | None = None


Answers = tuple[str, str | None, Sequence[str]]
"""A character, its profile where there is one, and answers of one source as this character."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Judgments of one dialogue, one a metric, with the tokens of each prompt (0 where none was written)."""

    judgments: tuple[Judgment, ...]
    prompt_tokens: tuple[int, ...]


class JudgeModel:
    """The model of one or more judges, loaded when the first of them needs it.

    Args:
        origin: a checkpoint here, or the model of a server.
        hardware: what it runs on.
        load: makes the engine that runs it.
    """

    def __init__(self, origin: Checkpoint | Served, hardware: Hardware, load: Callable[[], Engine]) -> None:
        self.origin, self.name = origin, origin.name
        self.is_verified = not isinstance(origin, Served)
        protocol = origin.protocol if isinstance(origin, Served) else None
        self.takes_ids = protocol is None or protocol.takes_ids
        self.writes = protocol is None or protocol.writes
        self.knows_mass = protocol is None or protocol.knows_mass
        self.layouts = tuple(LAYOUTS) if protocol is None else protocol.layouts
        option = protocol.context_option if isinstance(protocol, ByIds) else ""
        self.for_more_context = f"give it more ({option} of the server), or " if option else ""
        self.place = origin.url if isinstance(origin, Served) else str(origin.folder)
        self.dtype = origin.dtype(hardware)
        self._load = load
        self._engine: Engine | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into the ids of its prompts; InputError where it cannot be used."""
        return self.origin.tokenizer

    @cached_property
    def digests(self) -> dict[str, Any]:
        """What tells it from other models: hashes of weights, configuration and tokenizer, and its quantisation."""
        return {
            "weights": self.origin.weights_digest,
            "config": self.origin.config_digest,
            "quantisation": self.origin.quantisation,
            "tokenizer": self.tokenizer.digest,
        }

    def engine(self, tree: PromptTree) -> Engine:
        """What runs it, loaded on first use and then checked on a tree.

        InputError where its tokenizer is another model's, by the tokens of the tree.
        """
        if self._engine is None:
            known = self.origin.vocabulary
            if known is not None and (most := max(map(max, tree.prompts))) >= known:
                raise InputError(
                    f"{self.place}: its tokenizer writes token {most}, and its model has {known}: they belong to two "
                    "models; name a folder with all files of one"
                )
            self._engine = self._load()
            self._engine.verify(tree)
        return self._engine

    def unload(self) -> None:
        """Let go of the engine, and of the memory that it holds."""
        self._engine = None


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What a judge's answers begin with (a name of ``ANSWER_FORMS``), and why.

    ``masses`` are the median label masses of the forms that were tried, by name; empty where the form was given.
    """

    name: str = "none"
    masses: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        masses = ", ".join(f"{name} {mass:.2g}" for name, mass in self.masses.items())
        return f"{self.name} (median label mass on the example: {masses})" if masses else self.name


class Judge:
    """Scores dialogues on metrics, and a source's answers on response diversity.

    Args:
        model: the model that is asked.
        rubric: what is rated and how.
        layout: one of ``ALL_LAYOUTS`` that the model can be given, or ``auto`` for the best of them.
        orderings: 1, or 2 to average over the levels listed upwards and downwards.
        ascending: whether the levels of the first (or only) ordering are listed upwards.
        answer_form: what its answers begin with.

    Raises:
        InputError: an option or the model folder cannot be used.
    """

    def __init__(
        self,
        model: JudgeModel,
        rubric: Rubric,
        layout: str = "auto",
        orderings: int = 1,
        ascending: bool = True,
        answer_form: AnswerForm | None = None,
    ) -> None:
        if layout == "auto":
            layout = model.layouts[0]
        if layout not in ALL_LAYOUTS:
            raise InputError(f"--layout {layout}: unknown layout; choose one of auto, {', '.join(ALL_LAYOUTS)}")
        if orderings not in (1, 2):
            raise InputError(f"--orderings {orderings}: must be 1 or 2")
        if layout not in model.layouts:
            raise InputError(
                f"--layout {layout}: {model.place} cannot be asked so; choose one of {', '.join(model.layouts)}"
            )
        self.model, self.name = model, model.name
        self.answer_form = answer_form or AnswerForm()
        self.rubric, self.layout = rubric, layout
        listed = (ascending, not ascending)[:orderings]
        form = self.answer_form.name
        self.writers = [PromptWriter(rubric, model.tokenizer, layout, upwards, form) for upwards in listed]
        self.level_ids = self.writers[0].level_ids
        self.scheme: Scheme = rubric.scheme

    @cached_property
    def identity(self) -> Identity:
        """All that can change its scores."""
        # The prompts of a fixed dialogue show whatever in template or code changes a prompt.
        fixed = Dialogue("", "角色\n名", "", (Turn("问\n话", "答"), Turn("又问", "又答")), "资料")
        answers = sample_answers([fixed] * 20) if self.scheme.set_metric else None
        trees = [
            [writer.dialogue(fixed, self.scheme.metrics), *([writer.answers(*answers)] if answers else [])]
            for writer in self.writers
        ]
        prompts = [[tree.prompts for tree in own] for own in trees]
        return Identity(
            **self.model.digests,
            prompt=digest(prompts),
            rubric=self.rubric.digest,
            language=self.rubric.language,
            layout=self.layout,
            orderings=len(self.writers),
            level_tokens=self.level_ids,
            dtype=self.model.dtype,
            answer_form=self.answer_form.name,
        )

    def named(self, name: str) -> Judge:
        """The same judge under another name, which is that of a run begun with the same model under that name."""
        other = copy(self)
        other.name = name
        return other

    @cached_property
    def engine(self) -> Engine:
        """The engine, loaded and checked on first use by any judge of the model.

        InputError where the model's context does not hold even what all prompts share.
        """
        tree = self.writers[0].dialogue(example_dialogues()[0], self.scheme.metrics)
        engine = self.model.engine(tree)
        if (needed := len(tree.root)) >= engine.max_tokens:
            raise InputError(
                f"the context of {self.name} holds {engine.max_tokens:,} tokens and the rubrics alone take {needed:,}; "
                f"{self.model.for_more_context}choose another judge{self._shorter}"
            )
        return engine

    @property
    def _shorter(self) -> str:
        """The other way of asking whose prompts are shorter, for messages; empty where there is none."""
        return " or --layout separate" if "separate" in self.model.layouts and self.layout != "separate" else ""

    @property
    def is_loaded(self) -> bool:
        """Whether a judgment was asked for, so that the engine was loaded."""
        return "engine" in vars(self)

    def unload(self) -> None:
        """Let go of the engine, and of the memory that it holds."""
        vars(self).pop("engine", None)
        self.model.unload()

    def mass_check(self, metrics: int, least: float = MIN_MASS) -> MassCheck:
        """A check of its label masses, which stops nothing where they are not known.

        The stand-in spreads its mass over all levels of a rubric, of which a metric may have a few.
        """
        says_nothing = not self.model.knows_mass or (self.name == STAND_IN and self.scheme.is_mixed)
        ways = "choose another judge, --layout or --answer-form"
        if not self.model.takes_ids:  # the server lists its likeliest tokens only, and begins the answer itself
            ways = "choose another judge or --layout, or serve it by vLLM or llama.cpp, which tell every level"
        return MassCheck(self.name, metrics, 0.0 if says_nothing else least, ways)

    def prompts(self, dialogues: Sequence[Dialogue], metrics: Sequence[str]) -> list[Prompts]:
        """What is asked of each dialogue."""
        return [
            self._prompts(partial(PromptWriter.dialogue, dialogue=one, metrics=metrics))
            if one.is_answered
            else Prompts(error=EMPTY_ANSWER)
            for one in dialogues
        ]

    def judge(self, prompts: Sequence[Prompts], metrics: Sequence[str]) -> list[Judged]:
        """Judgments from the prompts of dialogues, in their order; what cannot be judged has the reason instead."""
        judged = iter(self._score([one.trees for one in prompts if one.trees], metrics))
        return [
            next(judged)
            if one.trees
            else Judged((Judgment(None, None, one.error),) * len(metrics), (0,) * len(metrics))
            for one in prompts
        ]

    def answer_prompts(self, groups: Sequence[Answers]) -> list[Prompts]:
        """What is asked of each group of answers."""
        return [
            self._prompts(partial(PromptWriter.answers, character=character, profile=profile, texts=texts))
            if len(texts) > 1
            else Prompts(error=TOO_FEW_ANSWERS)
            for character, profile, texts in groups
        ]

    def judge_answers(self, groups: Sequence[Answers]) -> list[Judgment]:
        """Groups of answers on the rubric's set metric."""
        assert self.scheme.set_metric, "the rubric has no set metric"
        return [one.judgments[0] for one in self.judge(self.answer_prompts(groups), [self.scheme.set_metric])]

    def _prompts(self, write: Callable[[PromptWriter], PromptTree]) -> Prompts:
        """What the writers write, or that the tokenizer lacks the letters."""
        try:
            return Prompts(tuple(map(write, self.writers)))
        except UnknownLetters:
            return Prompts(error=UNKNOWN_LETTERS)

    def refuse_letters(self, dialogues: Iterable[Dialogue]) -> None:
        """InputError where the tokenizer lacks the letters of every dialogue; the first that it can write ends this."""
        first: UnknownLetters | None = None
        for dialogue in dialogues:
            try:
                if dialogue.is_answered:
                    self.writers[0].dialogue(dialogue, self.scheme.metrics)
                    return
            except UnknownLetters as error:
                first = first or error
        if first:
            raise InputError(f"no dialogue can be judged: {first}") from first

    def _score(self, trees: Sequence[Sequence[PromptTree]], metrics: Sequence[str]) -> list[Judged]:
        """Judgments of trees with a leaf for each of some metrics, each given once per order of the levels."""
        if not trees:
            return []
        fitting = [same for same in trees if all(max(t.lengths) <= self.engine.max_tokens for t in same)]
        answers = [
            self.engine.level_logprobs([same[order] for same in fitting], self.level_ids) if fitting else []
            for order in range(len(self.writers))
        ]
        logprobs = dict(zip(map(id, fitting), zip(*answers, strict=True), strict=True))
        # Every leaf is asked for the levels of all metrics; of a metric only its own count.
        levels = [sorted(self.rubric.metric(metric).levels) for metric in metrics]
        places = [[self.writers[0].levels.index(level) for level in own] for own in levels]
        judged = []
        for same in trees:
            lengths, found = same[0].lengths, logprobs.get(id(same), (Failure(TOO_LONG),))
            failure = next((answer for answer in found if isinstance(answer, Failure)), None)
            if failure:
                judgments = (Judgment(None, None, failure.reason),) * len(lengths)
            else:
                judgments = tuple(
                    judgment(leaf[:, place], own, self.model.knows_mass)
                    for leaf, own, place in zip(np.stack(found, axis=1), levels, places, strict=True)
                )
            judged.append(Judged(judgments, lengths))
        return judged


class MassCheck:
    """Stops a judge that does not answer with a level: one whose label mass has a median under ``least``.

    It looks at the first judgments of a run, those of earlier sessions included, as many as ``CHECKED_DIALOGUES``
    dialogues have, or at all where there are fewer. ``remedy`` is what the user may do.
    """

    def __init__(self, judge: str, metrics: int, least: float = MIN_MASS, remedy: str = "choose another judge") -> None:
        self._judge, self._wanted, self._least, self._remedy = judge, CHECKED_DIALOGUES * metrics, least, remedy
        self._masses: list[float] = []

    @property
    def is_done(self) -> bool:
        """Whether enough was seen."""
        return len(self._masses) >= self._wanted

    def see(self, masses: Iterable[float | None]) -> None:
        """Take note of level masses; None and NaN, of a judgment without numbers, count as no mass at all.

        UnfitJudge once enough were seen and they are no answers.
        """
        if not self.is_done:
            self._masses += [mass if mass is not None and mass >= 0 else 0.0 for mass in masses]
            if self.is_done:
                self.conclude()

    def conclude(self) -> None:
        """Decide on what was seen; UnfitJudge where it is no answers."""
        middle = median(self._masses) if self._masses else 1.0
        if middle < self._least:
            raise UnfitJudge(
                f"{self._judge} does not answer with a level: the median probability of the levels together is "
                f"{middle:.3f}, under {self._least:g}; {self._remedy}"
            )
