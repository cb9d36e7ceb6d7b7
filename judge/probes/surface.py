"""Degradations of fluency: what goes wrong with the letters, whatever they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from judge.probes.edits import Case, Edit, interleaved, sentences

WINDOW = 4
"""How many characters (words, in English) change places among themselves."""
_UNIT = re.compile(r"[A-Za-z0-9’'-]+|[^\W\d_]")
"""A word in Latin letters, or one character of another script."""


def dropped(case: Case) -> list[Edit]:
    """Characters are missing."""
    return _at_letters(case, lambda letter: "")


def repeated(case: Case) -> list[Edit]:
    """Characters stand twice."""
    return _at_letters(case, lambda letter: letter * 2)


def _at_letters(case: Case, change: Callable[[str], str]) -> list[Edit]:
    edits = [
        Edit(number, place, place + 1, change(letter))
        for number, text in case.rounds()
        for place, letter in enumerate(text)
        if letter.isalnum()
    ]
    case.random.shuffle(edits)
    return edits


def shuffled(case: Case) -> list[Edit]:
    """Characters, or words of Latin letters, have changed places with their neighbours; what stands between stays."""
    edits = [edit for number, text in case.rounds() for edit in _windows(case, number, text)]
    case.random.shuffle(edits)
    return edits


def _windows(case: Case, number: int, text: str) -> Iterator[Edit]:
    units = list(_UNIT.finditer(text))
    for first in range(0, len(units) - WINDOW + 1, WINDOW):
        window = units[first : first + WINDOW]
        start, end = window[0].start(), window[-1].end()
        turned = _turned(text, window, case.random.randrange(1, WINDOW))
        if turned != text[start:end]:
            yield Edit(number, start, end, turned)


def _turned(text: str, window: list[re.Match[str]], by: int) -> str:
    """The units of a window, each in the place of another, with what stood between them left there."""
    words = [unit[0] for unit in window]
    gaps = [text[a.end() : b.start()] for a, b in pairwise(window)] + [""]
    return "".join(word + gap for word, gap in zip(words[by:] + words[:by], gaps, strict=True))


def foreign(case: Case) -> list[Edit]:
    """Replies go on in another language: sentences from the end, each by one of ours, of which it takes the next."""
    lines = [line + " " * line.isascii() for line in case.wording.foreign]  # Latin sentences stand apart
    start = case.random.randrange(len(lines))
    by_round = []
    for number, text in case.rounds():
        spans = sentences(text)[::-1]
        by_round.append([Edit(number, *span, lines[(start + k) % len(lines)]) for k, span in enumerate(spans)])
    return interleaved(*by_round)


def markup(case: Case) -> list[Edit]:
    """Debris of markup stands between letters: one piece to about ten letters, at most."""
    by_round = []
    for number, text in case.rounds():
        places = [place for place in range(len(text) + 1) if not place % 10]
        case.random.shuffle(places)
        by_round.append([Edit(number, place, place, case.random.choice(case.wording.markup)) for place in places])
    return interleaved(*by_round)
