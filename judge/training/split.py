"""Which dialogues a judge learns from, which say when to stop, and which it is measured on at the end.

Scenarios and characters are drawn, never single dialogues: another answer to a scenario that was learned from is no new
dialogue. What stops the training is not what is reported, as the best of several looks is too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from judge.errors import InputError
from judge.training.targets import RatedDialogue

LEAST_GROUPS = 5
"""With fewer scenarios nothing could be said of scenarios that were held out."""


LEAST_CHARACTERS = 3
"""With fewer characters none is held out: too little would be left to learn from."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rated dialogues in three parts, and what they were parted by."""

    training: tuple[RatedDialogue, ...]
    validation: tuple[RatedDialogue, ...]
    """Of scenarios that are not learned from: their loss says when to stop."""
    held_out: tuple[RatedDialogue, ...]
    """Of a held-out scenario or character."""
    validation_groups: tuple[str, ...]
    held_out_groups: tuple[str, ...]
    held_out_characters: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of the outcome should know of it."""
        counts = {name: len(getattr(self, name)) for name in ("training", "validation", "held_out")}
        names = ("validation_groups", "held_out_groups", "held_out_characters")
        return {"dialogues": counts, **{name: list(getattr(self, name)) for name in names}}


def split(rated: Sequence[RatedDialogue], share: float, seed: int) -> Split:
    """Hold out a share of scenarios and of characters; then, for validation, the same share of the other scenarios.

    Args:
        rated: all dialogues.
        share: above 0, up to a half.
        seed: random seed of the draw.

    Raises:
        InputError: there are too few scenarios, or nothing is left to learn from.
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
    held_out = [one for one in rated if one.group in held or one.dialogue.character in unknown]
    known = [one for one in rated if one.group not in held and one.dialogue.character not in unknown]
    validation = [one for one in known if one.group in watched_groups]
    training = [one for one in known if one.group not in watched_groups]
    if not training or not validation:
        raise InputError(f"--held-out {share}: leaves nothing to learn from or to stop by; lower it or rate more")
    names = (tuple(sorted(names)) for names in (watched_groups, held, unknown))
    return Split(tuple(training), tuple(validation), tuple(held_out), *names)
