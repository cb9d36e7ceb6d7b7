"""From a run's folder to ``report.html``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from calibration import chatanime_means
from judge.errors import InputError
from judge.files import replacing
from judge.report import checks, figures, people_figures
from judge.report.entries import make_entries
from judge.report.page import Content, render
from judge.report.people import People, tables_of, verdicts
from judge.report.reading import read_run
from judge.report.tables import leaderboards, published_table
from judge.rubric import LANGUAGES

REPORT = "report.html"
DIALOGUES = 600
"""How many dialogues a page holds unless told otherwise."""


def write_report(
    folder: Path,
    people: People | None = None,
    published: pd.DataFrame | None = None,
    *,
    out: Path | None = None,
    dialogues: int = DIALOGUES,
    language: str | None = None,
) -> Path:
    """Write the report of a finished run as one HTML file that needs no network; the same input gives the same bytes.

    Args:
        folder: the run's.
        people: the run beside people's ratings, where there are any.
        published: the run's means beside published ones (``calibration.agreement_with_published``).
        out: the file; by default ``report.html`` in the run.
        dialogues: how many dialogues it holds; of more, a chosen set.
        language: ``zh`` or ``en``, shown first; by default that of the run's rubric.

    Raises:
        InputError: there is no such run, it is not finished, or the file cannot be written.
    """
    run = read_run(folder)
    language = language or str(run.manifest["identity"].get("language", LANGUAGES[0]))
    if language not in LANGUAGES:
        raise InputError(f"--language {language}: choose from {', '.join(LANGUAGES)}")
    has_calibration = "calibrated" in run.judgments
    content = Content(
        run=run,
        language=language,
        leaderboards=leaderboards(run, people),
        figures=figures.figures_of(run, pd.DataFrame() if published is None else chatanime_means()),
        people_figures=people_figures.figures_of(people, run.judgments if has_calibration else None) if people else [],
        people_tables=tables_of(people) if people else {},
        assessment=people.assessment.to_dict() if people else None,
        verdicts=verdicts(people.assessment.to_dict()) if people else [],
        published=None if published is None else published_table(published),
        checks=checks.read_checks(run),
        entries=make_entries(run, dialogues, people.ratings if people else None),
    )
    path = out or folder / REPORT
    try:
        with replacing(path) as file:
            file.write(render(content).encode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file with --out") from error
    return path
