"""Degradations that put lines of ours in, swap a work's terms, or take out what a metric asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from judge.probes.edits import Case, Edit, Span, clauses
from judge.probes.wording import KINDS, Work

Item = TypeVar("Item")
Place = tuple[int, Span]
"""Round and place of a sentence."""
_CLAUSE_END = r"(?=[，。！!,～~…]|$)"
_CLAUSE_START = r"(?:^|(?<=[。！？!?…～\n，,”]))"
_LOUD = {"！": "。", "!": ".", "…": "，", "～": "", "~": ""}


def contradiction(case: Case) -> list[Edit]:
    """After the first round the character goes back on what it said."""
    return replaced(case, case.sentences(first_round=1), case.wording.contradiction)


def conduct(case: Case) -> list[Edit]:
    """The character behaves as it never would."""
    return replaced(case, case.sentences(), case.wording.conduct)


def cold(case: Case) -> list[Edit]:
    """The user is brushed off."""
    return replaced(case, case.sentences(), case.wording.cold)


def unasked_advice(case: Case) -> list[Edit]:
    """The user gets advice on what was not asked."""
    return replaced(case, case.sentences(), case.wording.advice)


def borrowed_story(case: Case) -> list[Edit]:
    """The character tells as its own what belongs to another work."""
    work = _another_work(case)
    filled = [
        line.format(
            person=case.random.choice(work.people),
            ability=case.random.choice(work.abilities),
            place=case.random.choice(work.places),
        )
        for line in case.wording.borrowed
    ]
    return replaced(case, case.sentences(), filled)


def borrowed_names(case: Case) -> list[Edit]:
    """Names and terms of the character's work are those of another work; the same one each time."""
    own, other = case.wording.own_work(case.dialogue.character), _another_work(case)
    if own is None:
        return []
    kinds = dict(own.terms())
    instead = {kind: _shuffled(case, getattr(other, kind)) for kind in KINDS}
    to = {term: instead[kind][getattr(own, kind).index(term) % len(instead[kind])] for term, kind in kinds.items()}
    known = re.compile("|".join(map(re.escape, sorted(to, key=len, reverse=True))))
    edits = [Edit(n, *match.span(), to[match[0]]) for n, text in case.rounds() for match in known.finditer(text)]
    return _shuffled(case, edits)


def _another_work(case: Case) -> Work:
    own = case.wording.own_work(case.dialogue.character)
    return case.random.choice([work for work in case.wording.works if work is not own])


def plain_prose(case: Case) -> list[Edit]:
    """The same content without catchphrases, interjections, particles, stage directions and loud marks."""
    manner = _manner(case)
    edits = [
        Edit(number, *match.span(), _LOUD.get(match[0][0], ""))
        for number, text in case.rounds()
        for match in manner.finditer(text)
    ]
    return _shuffled(case, edits)


def _manner(case: Case) -> re.Pattern[str]:
    """What makes a way of speaking: matches never overlap."""
    sayings = _any_of([*case.wording.catchphrases, *case.wording.interjections])
    particles = _any_of(case.wording.particles)
    return re.compile(
        r"[（(][^（）()\n]*[）)]|(?<!\*)\*[^*\n]+\*(?!\*)"
        rf"|{_CLAUSE_START}(?:{sayings})+(?:[，,、！!…～~]+|{_CLAUSE_END})"
        rf"|(?:{particles})(?:{_CLAUSE_END}|(?=[？?])(?<!{re.escape(case.wording.asking)}))"
        r"|！+|!+|…+|～+|~+"
    )


def story_cut(case: Case) -> list[Edit]:
    """Of sentences about the character's own past, clauses are gone, from the one that tells so on."""
    told = [place for place in case.sentences() if with_any(case, place, case.wording.story)]
    return [Edit(number, *clause, "") for number, span in told for clause in _story_clauses(case, number, span)]


def _story_clauses(case: Case, number: int, span: Span) -> list[Span]:
    parts = clauses(case.replies[number], span)
    first = next((k for k, part in enumerate(parts) if with_any(case, (number, part), case.wording.story)), 0)
    return parts[first:]


def replaced(case: Case, places: Sequence[Place], lines: Sequence[str]) -> list[Edit]:
    """Sentences replaced by lines, each by the one nearest in length of those not taken yet, so that length tells
    little; when all are taken, all may be taken again.
    """
    edits: list[Edit] = []
    left: list[str] = []
    for number, span in places if lines else ():
        left = left or _shuffled(case, lines)
        line = min(left, key=lambda text: abs(len(text) - (span[1] - span[0])))
        left.remove(line)
        edits.append(Edit(number, *span, line))
    return edits


def with_any(case: Case, place: Place, words: Iterable[str]) -> bool:
    """Whether any of the words stands in a place."""
    text = case.replies[place[0]][slice(*place[1])]
    return any(word in text for word in words)


def _any_of(words: Sequence[str]) -> str:
    """A pattern for any of the words, longest first; for none it never matches."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)"


def _shuffled(case: Case, items: Sequence[Item]) -> list[Item]:
    return case.random.sample(list(items), len(items))
