"""A judge's scores of dialogues and of their degraded forms; what they say is for ``assess_probes``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from judge.data.dataset import Corpus
from judge.models.hardware import detect
from judge.progress import Progress
from judge.robustness.degradations import DEGRADATIONS, STRENGTHS, Others, degrade
from judge.robustness.perturbation import Rewrite, judge_rewrites
from judge.scoring.setup import settle
from judge.types import Dialogue, Options

MOST_OTHERS = 20
"""Of how many other dialogues a part may be taken for one, of each kind."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What a judge made of dialogues and of their degraded forms.

    ``judge, judge_id, dialogues, missing, settings`` as in ``Rewritten``, with ``seed`` among the
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

    Args:
        data: files or folders of dialogues; none as for ``score``. What a degradation takes from other dialogues it
            takes from all of them, whatever ``options`` choose.
        options: which judge by which engine, how it is asked, and which dialogues; 100 unless told otherwise.
        seed: of the degradations.
        progress: who is told how far it is.

    Raises:
        InputError: data or options are wrong.
        EngineError: the machine or the model failed, or the judge does not answer with a level.
        Interrupted: the user stopped it; nothing is kept.
    """
    paths, options, _ = settle(data, options or Options(), detect())
    forms: list[tuple[Dialogue, Rewrite]] = []

    def rewrite(dialogues: Sequence[Dialogue]) -> list[Rewrite]:
        with closing(Corpus(paths)) as corpus:
            forms.extend((one, form) for one in dialogues for form in _forms(one, others_of(one, corpus), seed))
        forms.extend((one, Rewrite("", "", one, one.id)) for one in dialogues)
        return [form for _, form in forms if form.family]

    found = judge_rewrites(paths, options, rewrite, progress)
    return Probed(
        judge=found.judge,
        judge_id=found.judge_id,
        dialogues=found.dialogues,
        missing=found.missing,
        settings={**found.settings, "seed": seed},
        aims={name: degradation.metric for name, degradation in DEGRADATIONS.items()},
        applied=_applied([form for _, form in forms]),
        judgments=found.judgments.rename(columns={"family": "degradation", "rewrite": "strength"}),
        texts=pd.DataFrame([_text(original, form) for original, form in forms]),
    )


def others_of(dialogue: Dialogue, corpus: Corpus) -> Others:
    """The dialogues of a corpus from which a degradation of one may take."""
    role = corpus.sample(dialogue.source, dialogue.character, MOST_OTHERS)
    return Others(
        of_role=tuple(one for one in role if one.scenario != dialogue.scenario),
        of_scene=tuple(corpus.co_stars(dialogue, MOST_OTHERS)),
    )


def _forms(dialogue: Dialogue, others: Others, seed: int) -> Iterator[Rewrite]:
    for name in DEGRADATIONS:
        for strength, form in zip(STRENGTHS, degrade(dialogue, name, others, seed), strict=False):
            yield Rewrite(name, strength, form, dialogue.id)


def _applied(forms: Sequence[Rewrite]) -> dict[str, int]:
    counts = Counter(form.family for form in forms if form.name == STRENGTHS[0])
    return {name: counts[name] for name in DEGRADATIONS}


def _text(original: Dialogue, form: Rewrite) -> dict[str, str]:
    said = "\n".join(turn.character for turn in form.dialogue.turns)
    names = {"degradation": form.family, "strength": form.name, "item_id": original.id, "group": original.scenario}
    return {**names, "text": said}
