"""What the commands share: options that mean the same everywhere, JSON output, and checks of ``--out``.

Every command imports this module, so it imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from judge.errors import InputError
from judge.files import as_json_text

Data = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="DATA…",
        help="Dialogues: .json .jsonl .csv .tsv .xlsx .parquet, also as .gz or .zip; a folder, a pattern, s3://…",
    ),
]


MAP_HELP = (
    "FIELD=COLUMN with commas: source, character, scenario, profile, turns, question_r1, answer_r1, …; a COLUMN may be "
    "nested (meta.model), @file, @record or a 'text' in quotes. user=ROLE and judged=ROLE name speakers of chat logs, "
    "ignore=COLUMN leaves one out."
)


Map = Annotated[str, typer.Option("--map", help=MAP_HELP)]


Judge = Annotated[
    str, typer.Option(help="auto, stand-in, a preset (qwen3-8b …), a Hub id, a model folder or a .gguf file.")
]


Engine = Annotated[str, typer.Option(help="auto, packed, vllm or server.")]


Url = Annotated[str | None, typer.Option(help="Address of a server with the judge (key in ESRP_API_KEY).")]


Protocol = Annotated[
    str,
    typer.Option(
        help="How the server is asked: auto, vllm, llama.cpp, sglang, chat, completions, systemone or decisions."
    ),
]


Sources = Annotated[str, typer.Option(help="Only these systems (column source), with commas.")]


Characters = Annotated[str, typer.Option(help="Only these characters, with commas.")]


RubricName = Annotated[
    str,
    typer.Option("--rubric", "--prompts", help="What is rated: chatanime, another packaged rubric, or a folder."),
]


Language = Annotated[
    str | None, typer.Option(help="Language of the rubric, where it has several; of chatanime zh (the default) or en.")
]


Layout = Annotated[
    str, typer.Option(help="How the metric is asked: prefill, question or separate; auto takes the best.")
]


AnswerForm = Annotated[
    str,
    typer.Option(help="What answers begin with: none, space, newline or level; auto takes what suits the judge."),
]


Few = Annotated[int, typer.Option(help="How many dialogues, always the same ones.")]


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def some_names(text: str, option: str) -> tuple[str, ...]:
    """The names in the list of an option that means all where it is left out; InputError where it names none."""
    found = names(text)
    if text and not found:
        raise InputError(f"{option} names none; leave it out for all")
    return found


def as_one_json(facts: dict[str, Any], **tables: Any) -> str:
    """Facts and tables (those that are there) as one JSON object; NaN is null."""
    records = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items() if table is not None}
    return as_json_text({**facts, **records})


def refuse_unwritable(out: Path | None) -> None:
    """InputError, before any work is done, where a file cannot be written."""
    if out and (os.path.isdir(out) or not os.access(out.parent, os.W_OK)):
        raise InputError(f"--out {out}: cannot be written; name a file in a folder that is there and yours")


def refuse_unwritable_folder(folder: Path | None, *files: str) -> None:
    """InputError, before any work is done, where these files cannot be written to a folder; it may not exist yet."""
    if folder is None:
        return
    # The folder may be made later, so the nearest one that is there has to be writable.
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"--out {folder}: cannot be written; name a folder that is yours")
    for name in files:
        if (folder / name).is_dir():
            raise InputError(f"--out {folder}: holds a folder {name}; name another folder")


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Makes a folder to write into; InputError where it, or a file in it, cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror}); name another folder") from error


Scores = Annotated[
    Path, typer.Argument(metavar="RUN|TABLE", help="A run's folder, or a table of scores (.csv .parquet .jsonl).")
]


ManyScores = Annotated[
    list[Path],
    typer.Argument(metavar="RUN|TABLE…", help="A run's folder or a table of scores; several, to see judges together."),
]


Annotations = Annotated[
    Path, typer.Option(help="Human ratings (.csv .xlsx .jsonl …): item_id or character and scenario, annotator …")
]


Scale = Annotated[
    str | None,
    typer.Option(help="1-5, or by metric a=1-5,b=0-3; a run's is its rubric's, a table's is taken from its scores."),
]


MapRatings = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="FIELD=COLUMN,…",
        help="Which column of the ratings is what: annotator=rater,score=rating; 'TEXT' is of all rows, A+B of a wide "
        "table.",
    ),
]


Nominal = Annotated[
    str, typer.Option(help="Metrics whose scores are names of kinds, with commas: no order, no mean, no rank.")
]


OfJudge = Annotated[str | None, typer.Option(help="Which judge, where a table holds several.")]


OfJudges = Annotated[
    str | None, typer.Option("--judge", help="Which judge of a table; several with commas, or all: judges together.")
]


Annotators = Annotated[str, typer.Option(help="Only these annotators, with commas.")]


Repeats = Annotated[bool, typer.Option("--average-repeats", help="Average ratings that an annotator gave twice.")]


Generalise = Annotated[
    Literal["scenarios", "characters"],
    typer.Option(help="What intervals are about: other scenarios, or other scenarios and other characters."),
]


Raters = Annotated[
    Literal["people", "slots"], typer.Option(help="Whether a name is one annotator everywhere (people).")
]


Scoring = Annotated[Literal["rmse", "accuracy"], typer.Option(help="What the alternative annotator test compares by.")]


Epsilon = Annotated[
    float | None, typer.Option(help="By how much the judge may lose in that test; by default by --annotator-kind.")
]


MinItems = Annotated[
    int, typer.Option(help="Items that an annotator must have rated beside two others for that test.", min=2)
]


AnnotatorKind = Annotated[
    Literal["expert", "skilled", "crowd"], typer.Option(help="Which annotators: epsilon is .2, .15 or .1.")
]


def refuse_wrong_epsilon(epsilon: float | None) -> None:
    """InputError where epsilon of the alternative annotator test is given and is no share."""
    if epsilon is not None and not 0 <= epsilon <= 1:
        raise InputError(f"--epsilon {epsilon}: give a number from 0 to 1")
