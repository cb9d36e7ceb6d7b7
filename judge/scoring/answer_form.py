"""Finds what a judge writes before the digit of a level, by trying a few forms on the packaged example.

Nothing is judged with a form that the model would not write by itself: its label mass, the probability of the
levels together, is what the forms are compared by. What was found is remembered in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from statistics import median

import numpy as np

from judge.data.dialogues import example_dialogues
from judge.engines import Failure
from judge.errors import InputError, UnfitJudge, plain
from judge.files import remembered
from judge.progress import Progress
from judge.prompting.prompt_tree import PromptTree
from judge.scoring.judge import AnswerForm, Judge, JudgeModel
from judge.types import ANSWER_FORMS, Scheme, digest

ENOUGH = 0.95
"""The first form with so much label mass is taken; the others could hardly be better."""


TRIED_ON = (34, 2)
"""Which dialogues of the example the forms are tried on: short ones, of two characters."""


def tried_metrics(scheme: Scheme) -> tuple[str, ...]:
    """The metrics that they are tried on: the first of each dimension, or of the rubric."""
    return tuple(metrics[0] for metrics in scheme.dimensions.values()) or scheme.metrics[:1]


def find_answer_form(
    model: JudgeModel, judge_with: Callable[[AnswerForm], Judge], min_mass: float, progress: Progress
) -> Judge:
    """The judge with the form that gives most label mass, or the first of ``ANSWER_FORMS`` with ``ENOUGH``.

    Args:
        model: what is asked; loaded only where its masses are not remembered.
        judge_with: makes the judge that answers in a form.
        min_mass: the median label mass that the form must reach.
        progress: shows that the forms are being tried.

    Raises:
        InputError: the tokenizer writes no level as one token in any form.
        UnfitJudge: no form reaches ``min_mass``.
    """
    judges: dict[str, Judge] = {}
    refusal = None
    for name in ANSWER_FORMS:
        try:
            judges[name] = judge_with(AnswerForm(name))
        except InputError as error:
            refusal = refusal or error
    if not judges:
        raise refusal or InputError(f"{model.name}: no form of an answer can be read")
    dialogues = example_dialogues()
    trees = {
        name: [writer.dialogue(dialogues[i], tried_metrics(judge.scheme)) for writer in judge.writers for i in TRIED_ON]
        for name, judge in judges.items()
    }

    def measured() -> dict[str, float]:
        with progress.busy(f"trying how {model.name} writes a level"):
            return measure(judges, trees)

    prompts = [[name, [asdict(tree) for tree in own], judges[name].level_ids] for name, own in trees.items()]
    key = digest([model.digests, model.dtype, prompts])
    # Not remembered of a server: what its model's name stands for may change.
    masses = remembered("answer_forms", key, measured) if model.is_verified else measured()
    chosen = next((name for name in masses if masses[name] >= ENOUGH), max(masses, key=masses.__getitem__, default=""))
    if not chosen:  # no example fits into the model's context, which the first judgment will say
        return judge_with(AnswerForm())
    if masses[chosen] < min_mass:
        tried = ", ".join(f"{name} {mass:.2g}" for name, mass in masses.items())
        first = next(iter(judges))
        likeliest = _likeliest_tokens(judges[first], trees[first][0])
        raise UnfitJudge(
            f"{model.name} does not answer with a level: the median probability of the levels together is under "
            f"{min_mass:g} in every form of an answer ({tried}); it would write {likeliest}; choose another judge or "
            "--layout, or lower --min-mass"
        )
    return judge_with(AnswerForm(chosen, masses))


def measure(judges: dict[str, Judge], trees: dict[str, list[PromptTree]]) -> dict[str, float]:
    """The median label mass of each form over its trees that fit into the model's context; none where none fits."""
    found: dict[str, list[float]] = {}
    # Forms share all of a tree but the ends of its leaves, so those with the same level tokens are asked as one tree.
    for level_ids in dict.fromkeys(judge.level_ids for judge in judges.values()):
        names = [name for name in judges if judges[name].level_ids == level_ids]
        engine = judges[names[0]].engine
        joined = [
            replace(same[0], leaves=tuple(leaf for tree in same for leaf in tree.leaves))
            for same in zip(*(trees[name] for name in names), strict=True)
        ]
        writer = judges[names[0]].writers[0]
        asked = [writer.rubric.metrics[name].levels for name in tried_metrics(judges[names[0]].scheme)]
        is_own = np.tile([[level in levels for level in writer.levels] for levels in asked], (len(names), 1))
        fitting = [tree for tree in joined if max(tree.lengths) <= engine.max_tokens]
        for logprobs in engine.level_logprobs(fitting, level_ids) if fitting else []:
            if isinstance(logprobs, Failure):
                continue
            masses = np.nan_to_num(np.where(is_own, np.exp(logprobs), 0).sum(axis=1))
            for name, own in zip(names, np.split(masses, len(names)), strict=True):
                found.setdefault(name, []).extend(own.tolist())
    return {name: median(found[name]) for name in judges if name in found}


def _likeliest_tokens(judge: Judge, tree: PromptTree) -> str:
    """The one or two tokens that a judge would write at most leaves of a tree, as text in quotes."""
    (written,) = judge.engine.generate([tree], 1)
    texts = [plain(repr(judge.model.tokenizer.text(text))) for text in written if not isinstance(text, Failure)]
    return " or ".join(text for text, _ in Counter(texts).most_common(2)) or "nothing"
