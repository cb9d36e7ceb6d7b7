"""Questions asked once of a few dialogues, and not stored: which dialogues, which judge, and the asking itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from judge.choosing import choose_judge, default_data
from judge.errors import Interrupted
from judge.hardware import Hardware, require_usable
from judge.judging import Judge, Judged
from judge.options import Options
from judge.progress import Progress
from judge.types import METRICS, Dialogue

DIALOGUES = 100
"""How many dialogues are asked about unless told otherwise."""


def settle(data: Sequence[Path], options: Options, hardware: Hardware) -> tuple[list[Path], Options, str]:
    """The data that are meant, the options with the judge that is meant, and why it is that judge.

    Raises:
        InputError: no judge is chosen for these data.
        EngineError: the machine has a GPU that cannot be used.
    """
    if not options.url:
        require_usable(hardware)
    name, reason = choose_judge(data, options, hardware)
    return list(data) or default_data(name), replace(options, judge=name), reason


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
