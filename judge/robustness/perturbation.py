"""One judge on the same dialogues more than once: as they are, perturbed, and asked about by other prompt variants.

Attacks, probes and the comparison of layouts all judge through this module. It writes no file and knows no statistics:
what the scores say is for ``attack_analysis``, ``probe_analysis`` and ``prompt_variants``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judge.data.dataset import BATCH_DIALOGUES
from judge.errors import InputError, Interrupted, plain
from judge.progress import SILENT, Progress, stoppable
from judge.scoring.injection_detector import suspicious
from judge.scoring.judge import Judge, Judged, JudgeModel
from judge.scoring.parts import columns
from judge.scoring.setup import open_corpus, open_judge, open_model, settle
from judge.types import NOT_FINITE, Dialogue, Options, Scheme

DIALOGUES = 100
"""How many dialogues are judged where no limit is given."""


ORDERINGS = ("ascending", "descending")
"""How the levels are listed in the rubric; ``score`` lists them ascending."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A changed dialogue: an attack, a degradation, or a change of the user's own.

    ``family`` is the kind of change, ``name`` says which of that kind, and ``of`` is the id of the original dialogue.
    """

    family: str
    name: str
    dialogue: Dialogue
    of: str


@dataclass(frozen=True, slots=True)
class PromptVariant:
    """How a judge is asked: layout of the prompt, order of the levels (of ``ORDERINGS``), language of the rubric."""

    layout: str
    ordering: str
    language: str

    @property
    def name(self) -> str:
        """As in ``prefill · ascending · zh``."""
        return f"{self.layout} · {self.ordering} · {self.language}"

    @classmethod
    def named(cls, name: str) -> PromptVariant:
        """The variant of a ``name``."""
        return cls(*name.split(" · "))

    @property
    def turned(self) -> PromptVariant:
        """The same with the levels in the other order."""
        return PromptVariant(self.layout, ORDERINGS[1 - ORDERINGS.index(self.ordering)], self.language)

    def judge(self, options: Options, model: JudgeModel, progress: Progress) -> Judge:
        """The judge that asks a model as the options say, but by this variant."""
        asked = replace(options, layout=self.layout, language=self.language)
        return open_judge(asked, model, self.ordering == ORDERINGS[0], progress)


@dataclass(frozen=True, slots=True)
class Task:
    """Dialogues for a judge, in the batches that are scored at once; ``what`` names it on the progress bar."""

    what: str
    judge: Judge
    batches: Sequence[Sequence[Dialogue]]


def judge_tasks(
    tasks: Sequence[Task], progress: Progress, stop: threading.Event, must_fit: bool = False
) -> list[tuple[list[Judged], float]]:
    """Do tasks one after another, on all metrics of a dialogue; their judges ask one model by one rubric.

    Returns:
        For each task its judged dialogues, in order, and the seconds of scoring (loading and checks left out).

    Raises:
        Interrupted: ``stop`` was set; nothing is kept.
        UnfitJudge: with ``must_fit``, where the judge does not answer the first task with a level; the other tasks are
            then not begun, as changes of such scores would say nothing.
    """
    for task in tasks:
        _ = task.judge.engine  # loads the model, and says before anything is scored where a prompt does not fit
    results: list[tuple[list[Judged], float]] = []
    for task in tasks:
        judged: list[Judged] = []
        seconds = 0.0
        metrics = task.judge.scheme.metrics
        progress.begin(task.what, sum(map(len, task.batches)) * len(metrics), 0)
        for batch in task.batches:
            if stop.is_set():
                raise Interrupted("stopped; nothing is kept of a comparison")
            # The clock runs around scoring alone, so that the times of variants compare.
            started = time.perf_counter()
            judged += task.judge.judge(task.judge.prompts(batch, metrics), metrics)
            seconds += time.perf_counter() - started
            progress.advance(len(batch) * len(metrics), sum(sum(one.prompt_tokens) for one in judged[-len(batch) :]))
        if must_fit and not results:
            check = task.judge.mass_check(len(metrics))
            check.see(one.mass for found in judged for one in found.judgments if one.error in (None, NOT_FINITE))
            check.conclude()
        results.append((judged, seconds))
    return results


@dataclass(frozen=True, slots=True)
class PerturbationJudgments:
    """The judgments of one judge of dialogues, of their perturbations, and of the dialogues under prompt variants.

    ``missing`` counts judgments by reason; ``settings`` says how the judge was asked: ``language, layout, orderings,
    engine`` and which dialogues.
    ``judgments`` has a row per dialogue, perturbation or variant, and metric: ``family, rewrite`` (its name; both
    "" of a dialogue as it is); ``item_id`` (of the original), ``source, character, group`` (the scenario), all as the
    original has them; ``metric``, the probability of each level (``p1`` and so on), ``mass, score, error``;
    ``bottom, top``, the metric's lowest and highest level; ``suspicious``, the prompt injections found in the judged
    text (see ``judge.suspicious``); and ``length``, the characters of its answers.
    """

    judge: str
    judge_id: str
    dialogues: int
    missing: dict[str, int]
    settings: dict[str, Any]
    judgments: pd.DataFrame = field(repr=False)


def judge_perturbations(
    data: Sequence[Path],
    options: Options,
    perturb: Callable[[Sequence[Dialogue]], Sequence[Perturbation]],
    progress: Progress | None = None,
    variants: Mapping[tuple[str, str], PromptVariant] | None = None,
) -> PerturbationJudgments:
    """Judge dialogues, the perturbations that ``perturb`` makes of them, and the dialogues under prompt variants.

    Args:
        data: files or folders of dialogues; none as for ``score``.
        options: which judge by which engine, how it is asked, and which dialogues; where no limit is given, the same
            ``DIALOGUES`` of them every time. Its run and metrics do not count: all metrics of a dialogue are judged.
        perturb: is given all the dialogues at once.
        progress: shows how far the work is.
        variants: by the ``family`` and ``rewrite`` that their rows get.

    Raises:
        InputError: data or options are wrong, or a perturbation is of none of the dialogues.
        EngineError: the machine or the model failed, or the judge does not answer with a level.
        Interrupted: the user stopped it; nothing is kept.
    """
    progress, variants = progress or SILENT, variants or {}
    if options.limit is None:
        options = replace(options, limit=DIALOGUES)
    paths, options, reason, hardware = settle(data, options, progress)
    with closing(open_corpus(paths, options)) as corpus:
        for warning in corpus.notes:
            progress.note(warning)
        model = open_model(options, hardware, progress)
        judge = open_judge(options, model, progress=progress)
        dialogues = list(corpus)
    others = {names: variant.judge(options, model, progress) for names, variant in variants.items()}
    # Dialogues that share the beginning of a prompt stand together, so that the engine computes it once.
    changed = sorted(perturb(dialogues), key=lambda one: (one.dialogue.character, one.dialogue.profile or ""))
    progress.note(f"judge {judge.name} ({reason}): {len(dialogues):,} dialogues, {len(changed):,} perturbed ones")

    originals = [Perturbation("", "", one, one.id) for one in dialogues]
    rounds = [("dialogues", judge, originals), ("perturbations", judge, changed)]
    for (family, name), other in others.items():
        rounds.append((f"{family}: {name}", other, [replace(one, family=family, name=name) for one in originals]))
    with stoppable() as stop:
        size = max(BATCH_DIALOGUES, judge.engine.window)
        tasks = [
            Task(what, by, [[one.dialogue for one in forms[k : k + size]] for k in range(0, len(forms), size)])
            for what, by, forms in rounds
        ]
        results = judge_tasks(tasks, progress, stop, must_fit=True)
    known = {dialogue.id: dialogue for dialogue in dialogues}
    judgments = pd.DataFrame(
        [
            row
            for (_, _, forms), (judged, _) in zip(rounds, results, strict=True)
            for form, found in zip(forms, judged, strict=True)
            for row in judgment_rows(form, found, known, judge.scheme)
        ]
    )
    chosen = {"limit": options.limit, "sources": list(options.sources), "characters": list(options.characters)}
    asked = {
        "rubric": judge.rubric.name,
        "language": judge.rubric.language,
        "layout": judge.layout,
        "orderings": options.orderings,
    }
    return PerturbationJudgments(
        judge=judge.name,
        judge_id=judge.identity.judge_id,
        dialogues=len(dialogues),
        missing=count_missing(judgments),
        settings={**asked, **chosen, "engine": judge.engine.name},
        judgments=judgments,
    )


def judgment_rows(
    form: Perturbation, judged: Judged, originals: Mapping[str, Dialogue], scheme: Scheme
) -> Iterator[dict[str, Any]]:
    """A row per metric, as in ``PerturbationJudgments.judgments``; ``originals`` are all dialogues by id."""
    if form.of not in originals:
        raise InputError(f"{plain(form.name)}: perturbs {plain(form.of)}, which is none of the dialogues")
    original = originals[form.of]
    names = {
        "family": form.family,
        "rewrite": form.name,
        "item_id": original.id,
        "source": original.source,
        "character": original.character,
        "group": original.scenario,
    }
    length = sum(map(len, form.dialogue.replies))
    flags = suspicious(form.dialogue, scheme)
    for (metric, levels), judgment in zip(scheme.levels.items(), judged.judgments, strict=True):
        asked = {"metric": metric, **columns(judgment, scheme.all_levels), "bottom": levels[0], "top": levels[-1]}
        yield {**names, **asked, "suspicious": flags, "length": length}


def count_missing(judgments: pd.DataFrame) -> dict[str, int]:
    """How many judgments are missing, by the reason in the column ``error``."""
    return {str(reason): int(n) for reason, n in judgments["error"].value_counts().sort_index().items()}
