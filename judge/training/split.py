"""Which dialogues a judge learns from, which say when to stop, and which it is measured on at the end.

Scenarios, characters and a system are drawn, never single dialogues: another answer to a scenario that was learned from
is no new dialogue, and a judge is for systems that nobody has rated yet. What stops the training is not what is
reported, as the best of several looks is too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.names import meant
from judge.errors import InputError
from judge.training.targets import RatedDialogue

LEAST_GROUPS = 5
"""With fewer scenarios nothing could be said of scenarios that were held out."""


LEAST_CHARACTERS = 3
"""With fewer characters none is held out: too little would be left to learn from."""


LEAST_SYSTEMS = 4
"""With fewer systems none is left out unless it is named, as it would take more than a quarter of the ratings along."""


NO_SYSTEM = "none"
"""Named where no system is to be left out."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rated dialogues in three parts, and what they were parted by."""

    training: tuple[RatedDialogue, ...]
    validation: tuple[RatedDialogue, ...]
    """Of scenarios that are not learned from: their loss says when to stop."""
    held_out: tuple[RatedDialogue, ...]
    """Of a held-out scenario, character or system."""
    validation_groups: tuple[str, ...]
    held_out_groups: tuple[str, ...]
    held_out_characters: tuple[str, ...]
    left_out_system: str | None

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of the outcome should know of it."""
        counts = {name: len(getattr(self, name)) for name in ("training", "validation", "held_out")}
        names = ("validation_groups", "held_out_groups", "held_out_characters")
        lists = {name: list(getattr(self, name)) for name in names}
        return {"dialogues": counts, **lists, "left_out_system": self.left_out_system}


def split(rated: Sequence[RatedDialogue], share: float, seed: int, system: str | None = None) -> Split:
    """Hold out scenarios, characters and a system; then, for validation, some of the other scenarios.

    Args:
        rated: all dialogues.
        share: of scenarios, of characters, and of the other scenarios for validation; above 0, up to a half.
        seed: random seed of the draw.
        system: the source that is left out, or ``NO_SYSTEM``; None draws one where there are ``LEAST_SYSTEMS``.

    Raises:
        InputError: there are too few scenarios or no such system, or nothing is left to learn from.
    """
    groups = sorted({one.group for one in rated})
    characters = sorted({one.dialogue.character for one in rated})
    if len(groups) < LEAST_GROUPS:
        raise InputError(
            f"--annotations: dialogues of {len(groups)} scenarios are rated and {LEAST_GROUPS} are needed to hold some "
            "out; rate more scenarios"
        )
    generator = np.random.default_rng(seed)
    drawn = [groups[place] for place in generator.permutation(len(groups))]
    cast = [characters[place] for place in generator.permutation(len(characters))]
    out = max(1, round(share * len(groups)))
    watched = max(1, round(share * (len(groups) - out)))
    held, watched_groups = set(drawn[:out]), set(drawn[out : out + watched])
    unknown = set(cast[: max(1, round(share * len(cast)))] if len(cast) >= LEAST_CHARACTERS else ())
    left_out = _left_out(rated, system, generator)

    def is_held_out(one: RatedDialogue) -> bool:
        return one.group in held or one.dialogue.character in unknown or one.dialogue.source == left_out

    held_out = [one for one in rated if is_held_out(one)]
    known = [one for one in rated if not is_held_out(one)]
    validation = [one for one in known if one.group in watched_groups]
    training = [one for one in known if one.group not in watched_groups]
    if not training or not validation:
        raise InputError(
            f"--held-out {share}: leaves nothing to learn from or to stop by; lower it, try another --seed or rate more"
        )
    return Split(
        training=tuple(training),
        validation=tuple(validation),
        held_out=tuple(held_out),
        validation_groups=tuple(sorted(watched_groups)),
        held_out_groups=tuple(sorted(held)),
        held_out_characters=tuple(sorted(unknown)),
        left_out_system=left_out,
    )


def _left_out(rated: Sequence[RatedDialogue], system: str | None, generator: np.random.Generator) -> str | None:
    """The system that is left out; InputError where there is none of that name, or no other."""
    systems = sorted({one.dialogue.source for one in rated})
    if system is None:
        return systems[generator.integers(len(systems))] if len(systems) >= LEAST_SYSTEMS else None
    if system == NO_SYSTEM:
        return None
    if len(systems) == 1:
        raise InputError(
            f"--left-out-system {system}: all ratings are of {systems[0]}, which has to be learned from; name "
            f"{NO_SYSTEM}"
        )
    if (known := meant(system, systems)) is None:
        raise InputError(
            f"--left-out-system {system}: choose among the rated systems ({', '.join(systems)}), or {NO_SYSTEM}"
        )
    return known
