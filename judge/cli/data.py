"""``data preview``, ``data fetch`` and ``data check``: how files are understood, and the ChatAnime data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import Json, Map, RubricName
from judge.cli.console import show_remarks
from judge.errors import plain
from judge.files import as_json_text
from judge.types import CHATANIME

if TYPE_CHECKING:
    from judge.data.dialogues import FileFacts
    from judge.data.preview import Contents
    from judge.types import Dialogue


LONGEST_TEXT = 200
"""Characters of a text that are shown."""


MOST_NAMES = 12
"""Systems and characters that are named."""


ENCODINGS = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "gb18030": "GB18030"}


def preview_data(
    data: Annotated[list[Path], typer.Argument(metavar="DATA…", help="Dialogues: files or folders, as for score.")],
    mapping: Map = "",
    rubric: RubricName = CHATANIME,
    as_json: Json = False,
) -> int:
    """Say how files of dialogues are understood: columns, speakers, rounds, the first dialogue; and what is wrong."""
    from judge.data.preview import preview
    from judge.errors import InputError, listed
    from judge.prompting.rubric import load_rubric

    outline = load_rubric(rubric=rubric).outline
    found = preview(data, mapping, outline.judged_role, outline.character)
    if as_json:
        files = [_facts(facts, contents) for facts, contents in found.files]
        print(as_json_text({"files": files, "warnings": list(found.warnings), "problems": list(found.problems)}))
        return 2 if found.problems else 0
    for facts, contents in found.files:
        _show(facts, contents)
    show_remarks(found.warnings)
    if found.problems:
        raise InputError(listed(found.problems))
    return 0


def _facts(facts: FileFacts, contents: Contents) -> dict[str, Any]:
    first = contents.first
    return {
        "file": facts.file,
        "format": facts.kind.removeprefix("."),
        "encoding": facts.encoding and ENCODINGS[facts.encoding],
        "dialogues": contents.dialogues,
        "rounds": [contents.fewest_rounds, contents.most_rounds],
        "sources": sorted(contents.sources),
        "characters": sorted(contents.characters),
        "columns": facts.columns,
        "unused": list(facts.unused),
        "speakers": facts.roles,
        "joined_messages": facts.joined,
        "end_with_the_user": facts.ends_with_user,
        "words_for_no_value": facts.no_values,
        "left_sheets": list(facts.left_sheets),
        "empty_answers": contents.unanswered,
        "first": first
        and {
            **{name: getattr(first, name) for name in ("source", "character", "scenario", "profile")},
            "turns": [{"user": turn.user, "character": turn.character} for turn in first.turns],
        },
    }


def _show(facts: FileFacts, contents: Contents) -> None:
    """Print what there is to know of a file, a line each."""
    known = _facts(facts, contents)
    fewest, most = known["rounds"]
    of_text = f", {known['encoding']}" if known["encoding"] else ""
    if not contents.first:
        print(plain(f"{facts.file}: {known['format']}{of_text}, no dialogues"))
        return
    rounds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    lines = [
        f"{facts.file}: {known['format']}{of_text}; dialogues: {contents.dialogues:,}, rounds: {rounds}",
        f"  systems ({len(contents.sources):,}): {_names(known['sources'])}",
        f"  characters ({len(contents.characters):,}): {_names(known['characters'])}",
        "  taken: "
        + ", ".join(name if name == column else f"{name} from {column}" for name, column in facts.columns.items()),
    ]
    if facts.unused:
        lines.append(f"  not used: {_names(known['unused'])}")
    if facts.left_sheets:
        lines.append(f"  sheets that are left out: {_names(list(facts.left_sheets))}")
    if facts.roles:
        said = {"user": "the user", "judged": "the character, who is judged", "profile": "the profile"}
        lines.append("  speakers: " + ", ".join(f"{role} is {said[side]}" for role, side in facts.roles.items()))
    counts = {
        "messages joined to one before by the same speaker": facts.joined,
        "dialogues that end with the user, without a reply": facts.ends_with_user,
        "messages that are but a word such as 'nan' or 'None', judged as they stand": facts.no_values,
        "dialogues with an empty answer, which are not judged (empty_answer)": contents.unanswered,
    }
    lines += [f"  {what}: {count:,}" for what, count in counts.items() if count]
    print("\n".join(map(plain, [*lines, *_first(contents.first)])))


def _first(dialogue: Dialogue) -> list[str]:
    lines = [f"  first: source {dialogue.source}, character {dialogue.character}, scenario {dialogue.scenario}"]
    lines += [f"    profile: {_short(dialogue.profile)}"] if dialogue.profile is not None else []
    for number, turn in enumerate(dialogue.turns, start=1):
        sides = ("user", turn.user), ("character", turn.character)
        lines += [f"    {number} {who}: {_short(text)}" for who, text in sides if text is not None]
    return lines


def _short(text: str) -> str:
    """A text on one line, of which a long one loses its middle."""
    flat, half = " ⏎ ".join(text.splitlines()), LONGEST_TEXT // 2
    return flat if len(flat) <= LONGEST_TEXT else f"{flat[:half]} … {flat[-half:]}"


def _names(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (f", and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def fetch_data(
    folder: Annotated[Path | None, typer.Option(help="Where to put it; by default the cache.")] = None,
    origin: Annotated[Path | None, typer.Option("--from", help="Copy from this folder instead of the network.")] = None,
) -> int:
    """Fetch ChatAnime (17 MB) at a pinned commit and verify it; a broken download goes on where it stopped."""
    from judge.cli.console import FetchProgress
    from judge.data.chatanime import chatanime_folder, fetch

    folder = folder or chatanime_folder()
    with FetchProgress() as progress:
        fetch(folder, origin, on_progress=progress.show)
    print(plain(f"ChatAnime is in {folder}"))
    return 0


def check_data(
    folder: Annotated[Path | None, typer.Argument(help="A copy; by default the one in the cache.")] = None,
) -> int:
    """Verify a copy of ChatAnime against the pinned checksums."""
    from judge.data.chatanime import chatanime_folder, check
    from judge.errors import InputError, listed

    folder = folder or chatanime_folder()
    problems = check(folder)
    if problems:
        raise InputError(listed(problems))
    print(plain(f"{folder}: all files of ChatAnime, as published"))
    return 0
