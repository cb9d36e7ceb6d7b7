"""All degradations by name: the metric that each is aimed at, what it does, and how much of it each strength does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from judge.probes import lines, surface, swaps
from judge.probes.edits import Case, Edit, Others, edited
from judge.probes.wording import wording_for
from judge.types import Dialogue, digest

STRENGTHS = ("mild", "medium", "strong")
THIRDS = (1 / 3, 2 / 3, 1.0)
QUARTERS = (1 / 4, 2 / 4, 3 / 4)


@dataclass(frozen=True, slots=True)
class Degradation:
    """What spoils a dialogue on one metric: the places that could be changed, and which share each strength changes."""

    metric: str
    edits: Callable[[Case], list[Edit]]
    shares: tuple[float, float, float]


DEGRADATIONS: dict[str, Degradation] = {
    "dropped": Degradation("fluency", surface.dropped, (0.03, 0.1, 0.25)),
    "repeated": Degradation("fluency", surface.repeated, (0.05, 0.15, 0.4)),
    "shuffled": Degradation("fluency", surface.shuffled, (0.1, 0.3, 1.0)),
    "foreign": Degradation("fluency", surface.foreign, QUARTERS),
    "markup": Degradation("fluency", surface.markup, (0.1, 0.3, 1.0)),
    "other_scenario": Degradation("coherency", swaps.other_scenario, THIRDS),
    "other_character": Degradation("consistency", swaps.other_character, THIRDS),
    "contradiction": Degradation("consistency", lines.contradiction, QUARTERS),
    "borrowed_names": Degradation("character_knowledge", lines.borrowed_names, THIRDS),
    "borrowed_story": Degradation("character_knowledge", lines.borrowed_story, QUARTERS),
    "plain_prose": Degradation("speech_style", lines.plain_prose, THIRDS),
    "other_voice": Degradation("speech_style", swaps.other_voice, THIRDS),
    "conduct": Degradation("behavioral_habit", lines.conduct, QUARTERS),
    "cold": Degradation("emotional_value", lines.cold, QUARTERS),
    "story_cut": Degradation("experience_sharing", lines.story_cut, THIRDS),
    "other_advice": Degradation("demand_matching", swaps.other_advice, THIRDS),
    "unasked_advice": Degradation("demand_matching", lines.unasked_advice, QUARTERS),
}


def edits_of(dialogue: Dialogue, name: str, others: Others, seed: int = 0) -> list[Edit]:
    """All that a degradation could change in a dialogue, in the order in which strengths take it."""
    random = Random(digest([seed, name, dialogue.id, dialogue.content_digest]))
    return DEGRADATIONS[name].edits(Case(dialogue, others, wording_for(dialogue), random))


def degrade(dialogue: Dialogue, name: str, others: Others, seed: int = 0) -> tuple[Dialogue, ...]:
    """A dialogue degraded in each of ``STRENGTHS``, mild first; none where the degradation does not apply to it.

    It applies where the three differ from each other and from the dialogue, and leave no reply empty. The same seed
    gives the same three, whatever else is degraded.
    """
    edits = edits_of(dialogue, name, others, seed)
    counts = [math.ceil(share * len(edits) - 1e-9) for share in DEGRADATIONS[name].shares]
    forms = tuple(edited(dialogue, edits[:count]) for count in counts)
    differ = len({form.content_digest for form in (dialogue, *forms)}) == 1 + len(STRENGTHS)
    answered = all(turn.character.strip() for form in forms for turn in form.turns)
    return forms if differ and answered else ()
