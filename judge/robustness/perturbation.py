"""Dialogues judged as they are and in rewritten forms, by one judge: what attacks and probes have in common.

Nothing is stored. What the scores say of each other is for ``calibration``: ``judge.robustness.attack_analysis``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judge.data.dataset import UNIT_DIALOGUES, Corpus
from judge.errors import InputError, Interrupted, plain
from judge.models.hardware import detect
from judge.progress import Progress, Silent, stoppable
from judge.scoring.injection_detector import suspicious
from judge.scoring.judge import Judge, Judged, MassCheck
from judge.scoring.parts import columns
from judge.scoring.setup import open_judge, settle
from judge.types import METRICS, NOT_FINITE, Dialogue, Options

DIALOGUES = 100
"""How many dialogues are asked about unless told otherwise."""


def share_engine(first: Judge, others: Sequence[Judge]) -> None:
    """Give judges of one model the engine of the first, checked anew for each layout, before anything is scored."""
    checked = {first.identity.layout}
    engine = first.engine
    for judge in others:
        judge.engine = engine
        if judge.identity.layout not in checked:
            judge.check(engine)
            checked.add(judge.identity.layout)


def ask(
    judge: Judge, windows: Sequence[Sequence[Dialogue]], what: str, progress: Progress, stop: threading.Event
) -> tuple[list[Judged], float]:
    """Judge dialogues on all nine metrics, a window at a time; and the seconds that the scoring took.

    Raises:
        Interrupted: ``stop`` was set; nothing is kept.
    """
    judged: list[Judged] = []
    seconds = 0.0
    progress.begin(what, sum(map(len, windows)) * len(METRICS), 0)
    for window in windows:
        if stop.is_set():
            raise Interrupted("stopped; nothing is kept of a comparison")
        started = time.perf_counter()
        judged += judge.judge(judge.prompts(window, METRICS), METRICS)
        seconds += time.perf_counter() - started
        progress.advance(len(window) * len(METRICS), sum(sum(one.prompt_tokens) for one in judged[-len(window) :]))
    return judged, seconds


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A dialogue in another form; ``of`` is the id of the dialogue that it was made from."""

    family: str
    name: str
    dialogue: Dialogue
    of: str


@dataclass(frozen=True, slots=True)
class Way:
    """Another way of asking about the dialogues as they are: the levels turned round, or another language."""

    family: str
    name: str
    language: str
    ascending: bool = True


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What one judge made of dialogues and of their rewritten forms.

    ``missing`` counts judgments by reason; ``settings`` says how was asked: ``language, layout, orderings, engine``.
    ``judgments`` has a row per dialogue, rewrite or way, and metric: ``family, rewrite`` (of originals both ""),
    ``item_id`` (of the original), ``source, character, group`` (the scenario), all as the original has them; ``metric,
    p1..p5, mass, score, error``; ``suspicious``, what the judged text is flagged for (``judge.suspicion``); and
    ``length``, the characters of its answers.
    """

    judge: str
    judge_id: str
    dialogues: int
    missing: dict[str, int]
    settings: dict[str, Any]
    judgments: pd.DataFrame = field(repr=False)


def judge_rewrites(
    data: Sequence[Path],
    options: Options,
    rewrite: Callable[[Sequence[Dialogue]], Sequence[Rewrite]],
    progress: Progress | None = None,
    ways: Sequence[Way] = (),
) -> Rewritten:
    """Judge dialogues, what ``rewrite`` makes of them, and the dialogues again in other ``ways`` of asking.

    Args:
        data: files or folders of dialogues; none as for ``score``.
        options: which judge by which engine, how it is asked, and which dialogues; ``DIALOGUES`` of them, always the
            same ones, unless told otherwise. Its run and metrics do not count: all nine metrics are judged.
        rewrite: is given all the dialogues at once.
        progress: who is told how far it is.

    Raises:
        InputError: data or options are wrong.
        EngineError: the machine or the model failed, or the judge does not answer with a level.
        Interrupted: the user stopped it; nothing is kept.
    """
    progress, hardware = progress or Silent(), detect()
    if options.limit is None:
        options = replace(options, limit=DIALOGUES)
    paths, options, reason = settle(data, options, hardware)
    with closing(Corpus(paths, options.sources, options.characters, options.limit)) as corpus:
        judge = open_judge(options, hardware)
        dialogues = list(corpus)
    others = [open_judge(replace(options, language=way.language), hardware, way.ascending) for way in ways]
    rewrites = sorted(rewrite(dialogues), key=_shared)
    progress.note(f"judge {judge.name} ({reason}): {len(dialogues):,} dialogues, {len(rewrites):,} rewritten ones")
    with stoppable() as stop:
        share_engine(judge, others)
        judged = ask(judge, _windows(judge, dialogues), "dialogues", progress, stop)[0]
        _refuse_unfit(judge, judged)
        again = ask(judge, _windows(judge, [one.dialogue for one in rewrites]), "rewrites", progress, stop)[0]
        asked = [
            ask(other, _windows(judge, dialogues), f"{way.family}: {way.name}", progress, stop)[0]
            for way, other in zip(ways, others, strict=True)
        ]
    originals = {dialogue.id: dialogue for dialogue in dialogues}
    rows = [*_rows([Rewrite("", "", one, one.id) for one in dialogues], judged, originals)]
    rows += _rows(rewrites, again, originals)
    for way, found in zip(ways, asked, strict=True):
        rows += _rows([Rewrite(way.family, way.name, one, one.id) for one in dialogues], found, originals)
    return _rewritten(judge, options, len(dialogues), pd.DataFrame(rows))


def _shared(rewrite: Rewrite) -> tuple[str, str]:
    """Sorts dialogues so that those which share the beginning of a prompt stand together."""
    return rewrite.dialogue.character, rewrite.dialogue.profile or ""


def _windows(judge: Judge, dialogues: Sequence[Dialogue]) -> list[Sequence[Dialogue]]:
    """Dialogues, as many together as the engine takes at best."""
    size = max(UNIT_DIALOGUES, judge.engine.window)
    return [dialogues[start : start + size] for start in range(0, len(dialogues), size)]


def _refuse_unfit(judge: Judge, judged: Sequence[Judged]) -> None:
    """UnfitJudge where the judge does not answer with a level: changes of such scores would say nothing."""
    check = MassCheck(judge.name, len(METRICS))
    check.see(one.mass for found in judged for one in found.judgments if one.error in (None, NOT_FINITE))
    check.conclude()


def _rows(
    rewrites: Sequence[Rewrite], judged: Sequence[Judged], originals: dict[str, Dialogue]
) -> Iterator[dict[str, Any]]:
    for rewrite, found in zip(rewrites, judged, strict=True):
        if rewrite.of not in originals:
            raise InputError(f"{plain(rewrite.name)}: rewrites {plain(rewrite.of)}, which is none of the dialogues")
        original = originals[rewrite.of]
        names = {
            "family": rewrite.family,
            "rewrite": rewrite.name,
            "item_id": original.id,
            "source": original.source,
            "character": original.character,
            "group": original.scenario,
        }
        length = sum(len(turn.character) for turn in rewrite.dialogue.turns)
        flags = suspicious(rewrite.dialogue)
        for metric, judgment in zip(METRICS, found.judgments, strict=True):
            yield {**names, "metric": metric, **columns(judgment), "suspicious": flags, "length": length}


def _rewritten(judge: Judge, options: Options, dialogues: int, judgments: pd.DataFrame) -> Rewritten:
    return Rewritten(
        judge=judge.name,
        judge_id=judge.identity.judge_id,
        dialogues=dialogues,
        missing={str(reason): int(n) for reason, n in judgments["error"].value_counts().sort_index().items()},
        settings={
            "language": options.language,
            "layout": options.layout,
            "orderings": options.orderings,
            "limit": options.limit,
            "sources": list(options.sources),
            "characters": list(options.characters),
            "engine": judge.engine.name,
        },
        judgments=judgments,
    )
