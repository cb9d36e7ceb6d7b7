"""What a model is told so that it plays a character, and what the simulated user is told: texts from a YAML file.

Names, profiles, questions and replies are put into the texts as they are. Nothing in them is filled in again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import ClassVar

from judge.errors import InputError, listed
from judge.prompting.rubric import FIRST_LANGUAGE, RESERVED
from judge.prompting.yaml_files import read_yaml, wrong_placeholders
from judge.types import Turn, digest

PLACEHOLDERS = {
    "character": ("character",),
    "profile": ("profile",),
    "user": ("character",),
    "transcript": ("dialogue",),
    "user_line": ("text",),
    "character_line": ("character", "text"),
}
"""The texts that are filled in, each with the names of what must stand in it."""


MISSING = "give a YAML file like those of the packaged prompts/collect, or a folder with one a language (zh.yaml)"
"""The remedy where there are no prompts."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class RolePrompt:
    """The texts of a collection.

    ``character`` is the system message of the model that plays the character; ``profile`` is added where the character
    has one. ``user`` is the system message of the simulated user, who reads a ``transcript`` of ``user_line`` and
    ``character_line``.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    language: str
    character: str
    profile: str
    user: str
    transcript: str
    user_line: str
    character_line: str

    @property
    def digest(self) -> str:
        """Hash of all texts (32 hexadecimal digits)."""
        return digest(asdict(self))

    def for_character(self, character: str, profile: str | None, turns: Sequence[Turn]) -> tuple[Message, ...]:
        """What the model is given that plays the character.

        Args:
            character: the name.
            profile: what is known of the character, if anything.
            turns: the dialogue so far; the last turn is the user's alone.
        """
        system = self.character.format(character=character)
        if profile is not None and profile.strip():
            system += "\n\n" + self.profile.format(profile=profile)
        said = [
            Message(role, text)
            for turn in turns
            for role, text in (("user", turn.user), ("assistant", turn.character))
            if text is not None
        ]
        return (Message("system", system), *said)

    def for_user(self, character: str, turns: Sequence[Turn]) -> tuple[Message, ...]:
        """What the simulated user is given: the name of the character, and the dialogue so far."""
        lines = [
            line
            for turn in turns
            for line in (
                self.user_line.format(text=turn.user),
                self.character_line.format(character=character, text=turn.character),
            )
        ]
        transcript = self.transcript.format(dialogue="\n\n".join(lines))
        return Message("system", self.user.format(character=character)), Message("user", transcript)


def load_role_prompt(place: Path | None = None, language: str | None = None) -> RolePrompt:
    """Read the texts of a collection.

    Args:
        place: a YAML file, or a folder with one a language (``zh.yaml``); None for the packaged ones.
        language: which of a folder's; None for ``zh``, or the only one.

    Raises:
        InputError: there is no such file or language, or a text is wrong; names the file and the field.
    """
    file: Path | Traversable
    if place is not None and not place.is_dir():
        if language is not None:
            raise InputError(f"--language {language}: {place} is one file; leave the language out, or name its folder")
        file = place
    else:
        home = place or resources.files("prompts") / "collect"
        known = sorted(one.name.removesuffix(".yaml") for one in home.iterdir() if one.name.endswith(".yaml"))
        if not known:
            raise InputError(f"--prompts {home}: no prompts in it; {MISSING}")
        chosen = language or (FIRST_LANGUAGE if FIRST_LANGUAGE in known else known[0])
        if chosen not in known:
            raise InputError(f"--language {chosen}: the prompts are in {', '.join(known)}; choose one of these")
        file = home / f"{chosen}.yaml"
    problems: list[str] = []
    prompt = read_yaml(file, RolePrompt, problems, MISSING)
    if not problems:
        texts = asdict(prompt)
        problems += [f"{file}: {problem}" for problem in wrong_placeholders(texts, PLACEHOLDERS)]
        problems += [f"{file}: field {name}: is empty; write it" for name, text in texts.items() if not text.strip()]
        if any(mark in text for mark in RESERVED for text in texts.values()):
            problems.append(f"{file}: contains characters that mark slots (U+E000 to U+E012); remove them")
    if problems:
        raise InputError(listed(problems))
    found: RolePrompt = prompt
    return found
