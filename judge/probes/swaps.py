"""Degradations that put real text of other dialogues in: whatever its surface, it is text of the same kind."""

from __future__ import annotations

from itertools import pairwise

from judge.probes.edits import Case, Edit, interleaved, sentences
from judge.probes.lines import replaced, with_any
from judge.types import Dialogue


def other_scenario(case: Case) -> list[Edit]:
    """Replies end as the same character's to another scenario do."""
    return _ended_as(case, case.others.of_role, first_round=0)


def other_voice(case: Case) -> list[Edit]:
    """Replies end as those of another character in the same scenario do."""
    return _ended_as(case, case.others.of_scene, first_round=0)


def other_character(case: Case) -> list[Edit]:
    """After the first round, replies end as those of another character in the same scenario do."""
    return _ended_as(case, case.others.of_scene, first_round=1)


def other_advice(case: Case) -> list[Edit]:
    """What is advised is what the same character advised in other scenarios."""
    given = [
        text[slice(*span)]
        for dialogue in case.others.of_role
        for text in (turn.character for turn in dialogue.turns)
        for span in sentences(text)
    ]
    own = [place for place in case.sentences() if with_any(case, place, case.wording.advising)]
    advice = [line for line in given if any(word in line for word in case.wording.advising)]
    return replaced(case, own, advice)


def _ended_as(case: Case, donors: tuple[Dialogue, ...], first_round: int) -> list[Edit]:
    """Sentences from the end of each reply, each replaced by as large a part of one donor's reply of that round."""
    if not donors:
        return []
    donor = [turn.character for turn in case.random.choice(donors).turns]
    rounds = [_spliced(number, text, donor[min(number, len(donor) - 1)]) for number, text in case.rounds(first_round)]
    return interleaved(*rounds)


def _spliced(number: int, text: str, donor: str) -> list[Edit]:
    own, given = sentences(text), sentences(donor)
    if not given:
        return []
    cuts = [len(given) * place // len(own) for place in range(len(own) + 1)]
    parts = [given[first:last] for first, last in pairwise(cuts)]
    texts = [donor[part[0][0] : part[-1][1]] if part else "" for part in parts]
    return [Edit(number, *span, part) for span, part in zip(own, texts, strict=True)][::-1]
