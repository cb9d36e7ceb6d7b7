"""The command ``probe``: judge dialogues and their degraded forms, and say what is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import (
    Characters,
    Data,
    Engine,
    Few,
    Json,
    Judge,
    Language,
    Layout,
    Sources,
    Url,
    as_json_text,
    names,
    refuse_unwritable,
    write_text,
)

if TYPE_CHECKING:
    from calibration import ProbeAssessment
    from judge.probes.probing import Probed


def probe(
    data: Data = None,
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    sources: Sources = "",
    characters: Characters = "",
    limit: Few = 100,
    language: Language = "zh",
    layout: Layout = "prefill",
    seed: Annotated[int, typer.Option(help="Of the degradations.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write all that --json prints to this file.")] = None,
    as_json: Json = False,
) -> int:
    """Does the judge notice degraded answers? Needs no ratings by people.

    Dialogues are degraded in ways aimed at one metric each, in three strengths, and judged beside the dialogues as they
    are: how far scores drop, how well they tell the two apart, and whether length or a bag of characters would do as
    well. No run is written.
    """
    from calibration import assess_probes
    from judge.cli.probe_tables import show_probes
    from judge.options import Options
    from judge.probes.degradations import STRENGTHS
    from judge.probes.probing import probe as probe_judge
    from judge.terminal import TerminalProgress

    refuse_unwritable(out)
    options = Options(
        judge=judge,
        engine=engine,
        url=url,
        sources=names(sources),
        characters=names(characters),
        limit=limit,
        language=language,
        layout=layout,
    )
    progress = TerminalProgress()
    try:
        probed = probe_judge(data or [], options, seed, progress)
    finally:
        progress.finish()
    assessment = assess_probes(probed.judgments, probed.texts, probed.aims, STRENGTHS, seed)
    found = as_json_text(_facts(probed, assessment))
    if out:
        write_text(out, found)
    if as_json:
        print(found)
    else:
        show_probes(probed, assessment)
    return 1 if probed.missing else 0


def _facts(probed: Probed, assessment: ProbeAssessment) -> dict[str, Any]:
    """All that a report needs."""
    from judge.probes.degradations import STRENGTHS

    facts = ("judge", "judge_id", "dialogues", "missing", "settings", "aims", "applied")
    about = {name: getattr(probed, name) for name in facts}
    return {**about, "strengths": list(STRENGTHS), **assessment.to_dict()}
