"""Who is to be played in which scenario: taken from recorded dialogues, or written down in a YAML file.

A scenario is the user's first question; what a recorded user asked after that may be kept as follow-ups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from judge.data.chatanime import chatanime_folder, is_complete
from judge.data.dataset import Corpus, lot, sort_key
from judge.data.dialogues import example_files
from judge.data.fields import Wrong, name_of, text_of
from judge.errors import InputError, listed
from judge.prompting.yaml_files import read_yaml
from judge.remote import fetched
from judge.types import Dialogue

YAML = (".yaml", ".yml")
"""How the name of a file ends that has characters and scenarios of one's own."""


MISSING = "give dialogues, or a YAML file with characters and scenarios (docs/collecting.md)"
"""The remedy where there are no scenarios."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A character in a scenario: what a model is to play.

    ``question`` is what the user says first, ``follow_ups`` what a recorded user said in later rounds.
    """

    character: str
    scenario: str
    question: str
    follow_ups: tuple[str, ...] = ()
    profile: str | None = None

    @property
    def name(self) -> str:
        """``character/scenario``."""
        return f"{self.character}/{self.scenario}"

    @property
    def pair(self) -> tuple[str, str]:
        """Character and scenario."""
        return self.character, self.scenario


@dataclass(frozen=True, slots=True)
class Scenes:
    """Scenarios, warnings of how their files were read, and the systems whose dialogues they are from."""

    scenes: list[Scene]
    notes: tuple[str, ...] = ()
    sources: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Character:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class _Scenario:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    id: str | int
    question: str
    follow_ups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Scenarios:
    """A YAML file: every character is played in every scenario."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    characters: tuple[_Character, ...]
    scenarios: tuple[_Scenario, ...]


def default_files(is_real: bool) -> list[Path]:
    """Where scenarios are from if none are named: ChatAnime where it was fetched, for a real model; or the example."""
    return [chatanime_folder()] if is_real and is_complete(chatanime_folder()) else example_files()


def read_scenes(paths: Sequence[Path], mapping: str = "") -> Scenes:
    """Each character with each of its scenarios once, sorted.

    Args:
        paths: files or folders of dialogues, or one YAML file of characters and scenarios; also patterns, and addresses
            in a store.
        mapping: which columns are which fields, as for ``read_dialogues``.

    Raises:
        InputError: a file cannot be read, or a dialogue begins without a question.
    """
    if any(path.suffix.lower() in YAML for path in paths):
        with fetched(paths) as files:
            if len(files) > 1:
                raise InputError("--from: a YAML file of scenarios stands alone; leave the other files out")
            return Scenes(_written_down(files[0]))
    with closing(Corpus(paths, mapping=mapping)) as corpus:
        ordered = sorted(corpus, key=lambda one: (one.character, sort_key(one.scenario), one.source))
        pairs = groupby(ordered, key=lambda one: (one.character, one.scenario))
        scenes = [_scene(list(same)) for _, same in pairs]
        return Scenes(scenes, corpus.notes, frozenset(corpus.values("source")))


def choose(
    scenes: Sequence[Scene], characters: Collection[str] = (), scenarios: Collection[str] = (), limit: int | None = None
) -> list[Scene]:
    """The scenes of some characters and scenarios; of these at most ``limit``, drawn by a hash of their names.

    InputError where a name is not among them, or nothing is left.
    """
    for option, wanted, known in (
        ("--characters", characters, dict.fromkeys(scene.character for scene in scenes)),
        ("--scenarios", scenarios, dict.fromkeys(scene.scenario for scene in scenes)),
    ):
        if unknown := [name for name in wanted if name not in known]:
            raise InputError(f"{option} {unknown[0]}: not in the data, which has {', '.join(list(known)[:30])}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: must be at least 1")
    kept = [
        scene
        for scene in scenes
        if (not characters or scene.character in characters) and (not scenarios or scene.scenario in scenarios)
    ]
    if not kept:
        raise InputError("--characters and --scenarios leave no scenario; choose others")
    drawn = set(sorted(kept, key=lambda scene: lot(*scene.pair))[:limit])
    return [scene for scene in kept if scene in drawn]


def _scene(dialogues: Sequence[Dialogue]) -> Scene:
    """The scene that several systems' dialogues share.

    The first question is that of most systems; where as many have another, that of the first system by name. The
    follow-ups are those of the first system by name that asked it and has the most rounds.
    """
    first = dialogues[0]
    questions = [dialogue.turns[0].user for dialogue in dialogues]
    question = Counter(questions).most_common(1)[0][0]  # of equals the one that was met first
    if question is None or not question.strip():
        raise InputError(
            f"{first.id}: begins without a question of the user's, so it is no scenario; choose others by --scenarios, "
            "or write scenarios down (docs/collecting.md)"
        )
    same = [dialogue for dialogue in dialogues if dialogue.turns[0].user == question]
    longest = max(same, key=lambda dialogue: len(_follow_ups(dialogue)))
    profile = next((dialogue.profile for dialogue in same if dialogue.profile is not None), None)
    return Scene(first.character, first.scenario, question, _follow_ups(longest), profile)


def _follow_ups(dialogue: Dialogue) -> tuple[str, ...]:
    """What the user said in later rounds, up to the first in which they said nothing."""
    found: list[str] = []
    for turn in dialogue.turns[1:]:
        if turn.user is None or not turn.user.strip():
            break
        found.append(turn.user)
    return tuple(found)


def _written_down(file: Path) -> list[Scene]:
    """Every character of a YAML file in every scenario of it."""
    problems: list[str] = []
    found: Any = read_yaml(file, _Scenarios, problems, MISSING)
    if not problems:
        characters = [character.name for character in found.characters]
        scenarios = [str(scenario.id) for scenario in found.scenarios]
        questions = [text for scenario in found.scenarios for text in (scenario.question, *scenario.follow_ups)]
        problems += [f"{file}: {name!r} stands twice; rename one" for name in _twice(characters, scenarios)]
        if not characters or not scenarios:
            problems.append(f"{file}: has no characters or no scenarios; write at least one of each")
        try:
            for what, names in (("character", characters), ("scenario", scenarios)):
                for name in names:
                    name_of(name, what)
            for character in found.characters:
                text_of(character.profile or "", "profile")
            if not all(text_of(text, "question").strip() for text in questions):
                problems.append(f"{file}: a question or a follow-up is empty; write it")
        except Wrong as wrong:
            problems.append(f"{file}: {wrong}")
    if problems:
        raise InputError(listed(problems))
    return [
        Scene(character.name, str(scenario.id), scenario.question, scenario.follow_ups, character.profile)
        for character in found.characters
        for scenario in found.scenarios
    ]


def _twice(*lists: Iterable[str]) -> list[str]:
    """What stands twice in one of some lists of names."""
    return [name for names in lists for name, count in Counter(names).items() if count > 1]
