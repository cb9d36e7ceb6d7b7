"""Commands about this machine: ``doctor``, ``serve``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from judge.cli.common import Json, Language, Layout, Protocol, Url
from judge.errors import plain
from judge.files import as_json_text
from judge.types import Options


def doctor(
    judge: Annotated[str | None, typer.Option(help="Also load this judge, and see how it answers.")] = None,
    url: Url = None,
    protocol: Protocol = "auto",
    language: Language = "zh",
    layout: Layout = "auto",
    as_json: Json = False,
) -> int:
    """Print hardware, driver, versions, engines, caches and mirrors, and which judge auto would pick.

    With --url first what the server is, and what it tells of a level's probability. With --judge or --url also what
    that judge writes before a level, and how sure it is to write one.
    """
    from judge.cli.console import terminal_progress

    server: dict[str, Any] = {}
    if url:
        from judge.engines.served_model import about

        server = {"server": about(url, judge or "auto", protocol)}
        if not as_json:
            _print_facts(server)  # at once, before what takes its time
    with terminal_progress() as progress:
        from judge.scoring.preview import try_judge
        from judge.scoring.setup import examine

        found = examine()
        if judge or url:
            options = Options(judge=judge or "auto", url=url, protocol=protocol, language=language, layout=layout)
            found["tried"] = try_judge(options, progress)
    if as_json:
        print(as_json_text({**server, **found}))
    else:
        _print_facts(found)
    return 3 if found["problem"] else 0


def _print_facts(found: dict[str, Any]) -> None:
    """Print facts, a line each; those of a group with its name."""
    for name, value in found.items():
        facts = value.items() if isinstance(value, dict) else [("", value)]
        for fact, content in facts:
            print(plain(f"{name}{'.' if fact else ''}{fact}: {'–' if content in (None, ()) else content}"), flush=True)


def serve(
    context: typer.Context,
    judge: Annotated[str, typer.Option(help="As for score.")] = "auto",
    port: Annotated[int, typer.Option(help="On which port of this machine.")] = 8000,
) -> int:
    """Serve a judge by vLLM on this machine, for score --url; further options go to vLLM as they are."""
    from judge.engines.launch_server import serve as become_server

    become_server(judge, port, context.args)
