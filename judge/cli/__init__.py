"""The command ``esrp-judge``: its commands, one line for an error, and the exit code."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from judge.cli import (
    agree,
    annotation,
    attack,
    calibrate,
    collect,
    data,
    estimate,
    layouts,
    machine,
    probe,
    report,
    rubric,
    score,
    train,
)
from judge.errors import GO_ON, CutShort, JudgeError, readable

app = typer.Typer(
    help="Rate dialogues with a local LLM judge by a rubric: emotionally supportive role-play, or one of your own.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


data_app = typer.Typer(help="Files of dialogues: how they are understood; the ChatAnime data set.")


rubric_app = typer.Typer(help="Rubrics of your own: begin one, check one.")


def show_version(wanted: bool) -> None:
    """Print the version and end, where that is what was asked for."""
    if wanted:
        print(f"esrp-judge {version('esrp-judge')}")
        raise typer.Exit()


@app.callback()
def options(
    wanted: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Print the version and end.")
    ] = False,
) -> None:
    """What may stand before a command."""


app.command()(collect.collect)


app.command()(score.score)


app.command()(score.tables)


app.command()(score.diversity)


app.command()(layouts.layouts)


app.command("show")(score.show_prompts)


app.command()(attack.attack)


app.command()(probe.probe)


app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(machine.serve)


app.command()(agree.agree)


app.command()(calibrate.calibrate)


app.command()(train.train)


app.command()(estimate.estimate)


app.command()(estimate.compare)


app.command()(annotation.plan)


app.command()(report.report)


app.command()(annotation.import_annotations)


app.add_typer(data_app, name="data")


app.add_typer(rubric_app, name="rubric")


data_app.command("preview")(data.preview_data)


data_app.command("fetch")(data.fetch_data)


data_app.command("check")(data.check_data)


rubric_app.command("new")(rubric.new_rubric)


rubric_app.command("check")(rubric.check_rubric)


app.command()(machine.doctor)


def main() -> None:
    """Run the command; an error is one line on stderr, its kind the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if sys.argv[1:] in ([], ["data"], ["rubric"]):
        sys.argv.append("--help")
    try:
        code = app(standalone_mode=False)
    except JudgeError as error:
        code = _fail(str(error), error.exit_code, isinstance(error, CutShort) and error.can_go_on)
    except typer.TyperException as error:
        code = _fail(f"{error.format_message().rstrip('.')}; see --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail(f"stopped at once; {GO_ON}", 130, can_go_on=True)
    except MemoryError:
        code = _fail(f"out of memory; free some, then {GO_ON}", 3, can_go_on=True)
    except Exception as error:  # a fault of ours, still told in one line
        if os.environ.get("ESRP_DEBUG"):
            raise
        code = _fail(f"internal error: {type(error).__name__}: {error}; ESRP_DEBUG=1 shows where; please report it", 3)
    sys.exit(code or 0)


def _fail(message: str, code: int, can_go_on: bool = False) -> int:
    """Print an error on one line, with the command to repeat where that goes on; returns the exit code."""
    again = f": {shlex.join(['esrp-judge', *sys.argv[1:]])}" if can_go_on else ""
    print(f"esrp-judge: {readable(message + again)}", file=sys.stderr)
    return code
