"""Does the judge notice degraded answers? Judgments of dialogues and of their degraded forms.

This module makes and judges the forms; what the scores say is for ``judge.robustness.probe_analysis.assess_probes``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judge.data.dataset import Corpus
from judge.errors import InputError
from judge.progress import SILENT, Progress
from judge.prompting.rubric import load_rubric
from judge.robustness.degradations import DEGRADATIONS, STRENGTHS, Others, degrade
from judge.robustness.perturbation import Perturbation, judge_perturbations
from judge.scoring.setup import open_corpus, settle
from judge.types import Dialogue, Options, Scheme

MOST_OTHERS = 20
"""A degradation takes parts from at most so many other dialogues of each kind (same character; same scenario)."""


@dataclass(frozen=True, slots=True)
class Probed:
    """The judgments of one judge of dialogues and of their degraded forms.

    ``judge, judge_id, dialogues, missing, settings`` as in ``PerturbationJudgments``, with ``seed`` among the
    settings. ``aims`` has the metric of each degradation, ``applied`` to how many dialogues it applies.
    ``judgments`` has a row per form and metric: ``degradation, strength`` (of a dialogue as it is both ""), ``item_id,
    source, character, group`` (the scenario), ``metric, score, mass, error …``; ``texts`` a row per form:
    ``degradation, strength, item_id, group, text``, what the character said.
    """

    judge: str
    judge_id: str
    dialogues: int
    missing: dict[str, int]
    settings: dict[str, Any]
    aims: dict[str, str]
    applied: dict[str, int]
    judgments: pd.DataFrame = field(repr=False)
    texts: pd.DataFrame = field(repr=False)


def probe(
    data: Sequence[Path] = (), options: Options | None = None, seed: int = 0, progress: Progress | None = None
) -> Probed:
    """Degrade dialogues in every way and strength that applies to them, and judge all forms beside the originals.

    A degradation is aimed at one of ChatAnime's metrics. By another rubric it is aimed at the metric that says it is
    like that one, and left out where there is none.

    Args:
        data: files or folders of dialogues; none as for ``score``. A degradation may take parts from any of them, also
            from those that ``options`` leave out.
        options: which judge by which engine, how it is asked, and which dialogues; 100 where no limit is given.
        seed: random seed of the degradations.
        progress: shows how far the work is.

    Raises:
        InputError: data or options are wrong.
        EngineError: the machine or the model failed, or the judge does not answer with a level.
        Interrupted: the user stopped it; nothing is kept.
    """
    paths, options, _, _ = settle(data, options or Options(), progress or SILENT)
    aims = aims_of(load_rubric(options.language, options.rubric).scheme)
    forms: list[tuple[Dialogue, Perturbation]] = []

    def perturb(dialogues: Sequence[Dialogue]) -> list[Perturbation]:
        with closing(open_corpus(paths, replace(options, sources=(), characters=(), limit=None))) as corpus:
            for one in dialogues:
                others = others_of(one, corpus)
                for name in aims:
                    degraded = degrade(one, name, others, seed)  # empty where the degradation does not apply
                    forms.extend(
                        (one, Perturbation(name, strength, form, one.id))
                        for strength, form in zip(STRENGTHS, degraded, strict=False)
                    )
        # The dialogues as they are get no second judgment, but their texts are needed by the controls.
        forms.extend((one, Perturbation("", "", one, one.id)) for one in dialogues)
        return [form for _, form in forms if form.family]

    found = judge_perturbations(paths, options, perturb, progress)
    applied = Counter(form.family for _, form in forms if form.name == STRENGTHS[0])
    texts = [
        {
            "degradation": form.family,
            "strength": form.name,
            "item_id": original.id,
            "group": original.scenario,
            "text": "\n".join(form.dialogue.replies),
        }
        for original, form in forms
    ]
    return Probed(
        judge=found.judge,
        judge_id=found.judge_id,
        dialogues=found.dialogues,
        missing=found.missing,
        settings={**found.settings, "seed": seed},
        aims=aims,
        applied={name: applied[name] for name in aims},
        judgments=found.judgments.rename(columns={"family": "degradation", "rewrite": "strength"}),
        texts=pd.DataFrame(texts),
    )


def aims_of(scheme: Scheme) -> dict[str, str]:
    """Of each degradation that is aimed at something a rubric rates: the metric.

    Raises:
        InputError: none is.
    """
    alike = {like: metric for metric, like in reversed(scheme.likes.items())} | {name: name for name in scheme.levels}
    found = {name: alike[one.metric] for name, one in DEGRADATIONS.items() if one.metric in alike}
    if not found:
        aimed = ", ".join(dict.fromkeys(one.metric for one in DEGRADATIONS.values()))
        raise InputError(
            f"no degradation is aimed at a metric of the rubric {scheme.rubric}; say in a metric's file which of "
            f"{aimed} it is like (like: fluency)"
        )
    return found


def others_of(dialogue: Dialogue, corpus: Corpus) -> Others:
    """The dialogues of a corpus from which a degradation of one may take."""
    role = corpus.sample(dialogue.source, dialogue.character, MOST_OTHERS)
    return Others(
        of_role=tuple(one for one in role if one.scenario != dialogue.scenario),
        of_scene=tuple(corpus.co_stars(dialogue, MOST_OTHERS)),
    )
