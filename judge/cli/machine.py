"""Commands about this machine: ``doctor``, ``data fetch``, ``data check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge.cli.common import Json, as_json_text
from judge.errors import plain


def fetch_data(
    folder: Annotated[Path | None, typer.Option(help="Where to put it; by default the cache.")] = None,
    origin: Annotated[Path | None, typer.Option("--from", help="Copy from this folder instead of the network.")] = None,
) -> int:
    """Get ChatAnime (17 MB) at a pinned commit, checksums checked; a broken download goes on where it stopped."""
    from judge.fetch import chatanime_folder, fetch
    from judge.terminal import FetchProgress

    folder = folder or chatanime_folder()
    with FetchProgress() as progress:
        fetch(folder, origin, on_progress=progress.show)
    print(plain(f"ChatAnime is in {folder}"))
    return 0


def check_data(
    folder: Annotated[Path | None, typer.Argument(help="A copy; by default the one in the cache.")] = None,
) -> int:
    """Verify a copy of ChatAnime against the pinned checksums."""
    from judge.errors import InputError, listed
    from judge.fetch import chatanime_folder, check

    folder = folder or chatanime_folder()
    problems = check(folder)
    if problems:
        raise InputError(listed(problems))
    print(plain(f"{folder}: all files of ChatAnime, as published"))
    return 0


def doctor(as_json: Json = False) -> int:
    """Say what was found: hardware, driver, versions, engines, caches and mirrors, and which judge auto would pick."""
    from judge.doctor import examine
    from judge.terminal import show_examination

    found = examine()
    if as_json:
        print(as_json_text(found))
    else:
        show_examination(found)
    return 3 if found["problem"] else 0
