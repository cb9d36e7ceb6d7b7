"""Can the judge be talked round? One judge on the suite's rewrites, and on the dialogues asked about in other ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from judge.asking import DIALOGUES
from judge.attacks.suite import rewrites
from judge.options import Options
from judge.progress import Progress
from judge.rewriting import Rewritten, Way, judge_rewrites
from judge.rubric import LANGUAGES

LEVEL_ORDER, RUBRIC_LANGUAGE = "level_order", "rubric_language"
"""The families of the ways of asking: the levels listed downwards, and the rubric in the other language."""
WAYS = (LEVEL_ORDER, RUBRIC_LANGUAGE)


def attack(
    data: Sequence[Path] = (), options: Options | None = None, progress: Progress | None = None, seed: int = 0
) -> Rewritten:
    """Judge dialogues as they are, with every kind of attack written into them, and asked about in two other ways.

    Args:
        data: files or folders of dialogues; none as for ``score``.
        options: which judge by which engine, how it is asked, and which dialogues; ``DIALOGUES`` of them unless told
            otherwise. Its run and metrics do not count.
        progress: who is told how far it is.
        seed: which of a family's texts each dialogue gets; the same seed gives the same rewrites.

    Returns:
        Judgments with ``family`` one of ``judge.attacks.suite.families`` or of ``WAYS``, and "" for the originals. How
        far scores moved is for ``calibration.score_changes`` and ``calibration.mean_changes``.

    Raises:
        InputError: data or options are wrong.
        EngineError: the machine or the model failed, or the judge does not answer with a level.
        Interrupted: the user stopped it; nothing is kept.
    """
    options = options or Options(limit=DIALOGUES)
    found = judge_rewrites(data, options, lambda dialogues: rewrites(dialogues, seed), progress, _ways(options))
    return replace(found, settings={**found.settings, "seed": seed})


def _ways(options: Options) -> list[Way]:
    """The other ways of asking; a rubric of the user's own is in one language only."""
    turned = Way(LEVEL_ORDER, "descending", options.language, ascending=False)
    others = [language for language in LANGUAGES if language != options.language and options.prompts is None]
    return [turned, *(Way(RUBRIC_LANGUAGE, language, language) for language in others)]
