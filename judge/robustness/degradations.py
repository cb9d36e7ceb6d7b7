"""All degradations by name: the metric that each is aimed at, what it does, and how much of it each strength does.

A degradation lists all edits that it could make in a dialogue, in the order in which they are taken. A strength makes
a share of them, so that a stronger form has all edits of a weaker one and some more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import pairwise
from random import Random
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import TypeAdapter

from judge.types import Dialogue, digest

Span = tuple[int, int]


_SENTENCE = re.compile(r"""(?:[^。！？!?…\n.]|\.(?!\s|$))+(?:[。！？!?…～~.]+[”"’」』）)]*)?""")


_CLAUSE = re.compile(r"[^，,；;]+[，,；;]*")


@dataclass(frozen=True, slots=True)
class Edit:
    """In the reply of one round (from 0), what stands from ``start`` to before ``end`` becomes ``text``."""

    round: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Others:
    """Other dialogues of the same system, from which a degradation may take text.

    ``of_role`` has the same character in other scenarios. ``of_scene`` has other characters, in the same scenario where
    there are such.
    """

    of_role: tuple[Dialogue, ...]
    of_scene: tuple[Dialogue, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A dialogue to be degraded, and what there is to do it with."""

    dialogue: Dialogue
    others: Others
    wording: Wording
    random: Random

    @property
    def replies(self) -> list[str]:
        """What the character said, by round."""
        return [turn.character or "" for turn in self.dialogue.turns]

    def sentences(self, first_round: int = 0) -> list[tuple[int, Span]]:
        """Round and place of each sentence, from a round on, in random order."""
        found = [(number, span) for number, text in self.rounds(first_round) for span in sentences(text)]
        self.random.shuffle(found)
        return found

    def rounds(self, first_round: int = 0) -> Iterator[tuple[int, str]]:
        """Number and reply of each round in which the character spoke, from a round on."""
        for number, turn in enumerate(self.dialogue.turns):
            if number >= first_round and turn.character is not None:
                yield number, turn.character


def edited(dialogue: Dialogue, edits: Sequence[Edit]) -> Dialogue:
    """The dialogue with edits made; they must not overlap."""
    turns = list(dialogue.turns)
    for edit in sorted(edits, key=lambda one: (one.start, one.end), reverse=True):  # from the end, so that places hold
        reply = turns[edit.round].character or ""
        turns[edit.round] = replace(turns[edit.round], character=reply[: edit.start] + edit.text + reply[edit.end :])
    return replace(dialogue, turns=tuple(turns))


def interleaved(*lists: Sequence[Edit]) -> list[Edit]:
    """Edits of several lists merged, so that any beginning holds about the same share of each list."""
    places = [((k + 1) / len(edits), n, edit) for n, edits in enumerate(lists) for k, edit in enumerate(edits)]
    return [edit for _, _, edit in sorted(places, key=lambda place: place[:2])]


def sentences(text: str) -> list[Span]:
    """Places of the sentences, each with the marks that end it, without the space around it."""
    spans = []
    for match in _SENTENCE.finditer(text):
        start = match.end() - len(match[0].lstrip())
        end = match.start() + len(match[0].rstrip())
        if start < end:
            spans.append((start, end))
    return spans


def clauses(text: str, span: Span) -> list[Span]:
    """Places of the clauses of a sentence, each with the comma after it."""
    return [match.span() for match in _CLAUSE.finditer(text, *span)]


KINDS = ("people", "abilities", "places", "things")
"""The kinds of a work's terms."""


CJK = ("\u3400", "\u9fff")
"""First and last of the common Chinese characters."""


@dataclass(frozen=True, slots=True)
class Work:
    """Names and terms of a work; ``titles`` are found in the names of its characters."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    titles: tuple[str, ...]
    people: tuple[str, ...]
    abilities: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]

    def terms(self) -> Iterator[tuple[str, str]]:
        """Every term with its kind."""
        for kind in KINDS:
            yield from ((term, kind) for term in getattr(self, kind))


@dataclass(frozen=True, slots=True)
class Wording:
    """What the degradations say and look for, in one language; ``texts/zh.yaml`` says what each list is."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    foreign: tuple[str, ...]
    markup: tuple[str, ...]
    contradiction: tuple[str, ...]
    conduct: tuple[str, ...]
    cold: tuple[str, ...]
    advice: tuple[str, ...]
    borrowed: tuple[str, ...]
    story: tuple[str, ...]
    advising: tuple[str, ...]
    catchphrases: tuple[str, ...]
    interjections: tuple[str, ...]
    particles: tuple[str, ...]
    asking: str
    works: tuple[Work, ...]

    def own_work(self, character: str) -> Work | None:
        """The work that a character is of, by its name; None where none of ours is known."""
        return next((work for work in self.works if any(title in character for title in work.titles)), None)


def wording_for(dialogue: Dialogue) -> Wording:
    """The wording in the language of a dialogue's answers."""
    return load_wording(language_of("".join(dialogue.replies)))


def language_of(text: str) -> str:
    """``zh`` where Chinese characters are at least a fifth of Latin letters in number, otherwise ``en``."""
    chinese = sum(CJK[0] <= letter <= CJK[1] for letter in text)
    latin = sum(letter.isascii() and letter.isalpha() for letter in text)
    return "zh" if 5 * chinese >= latin else "en"


@cache
def load_wording(language: str) -> Wording:
    """The packaged texts of ``zh`` or ``en``."""
    return TypeAdapter(Wording).validate_python({**_read(f"{language}.yaml"), "works": _read("works.yaml")[language]})


def _read(name: str) -> Any:
    return yaml.safe_load((resources.files("judge.robustness") / "texts" / name).read_text(encoding="utf-8"))


WINDOW = 4
"""So many neighbouring characters (words, in English) change places with each other."""


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
    edits = []
    for number, text in case.rounds():
        units = list(_UNIT.finditer(text))
        for first in range(0, len(units) - WINDOW + 1, WINDOW):
            window = units[first : first + WINDOW]
            start, end = window[0].start(), window[-1].end()
            # The units of a window, each in the place of another, with what stood between them left there.
            by = case.random.randrange(1, WINDOW)
            words = [unit[0] for unit in window]
            gaps = [text[a.end() : b.start()] for a, b in pairwise(window)] + [""]
            turned = "".join(word + gap for word, gap in zip(words[by:] + words[:by], gaps, strict=True))
            if turned != text[start:end]:
                edits.append(Edit(number, start, end, turned))
    case.random.shuffle(edits)
    return edits


def foreign(case: Case) -> list[Edit]:
    """Replies end in another language: sentences from the end are replaced by ours, in the order of our list."""
    lines = [line + " " * line.isascii() for line in case.wording.foreign]  # Latin sentences stand apart
    start = case.random.randrange(len(lines))
    by_round = []
    for number, text in case.rounds():
        spans = sentences(text)[::-1]
        by_round.append([Edit(number, *span, lines[(start + k) % len(lines)]) for k, span in enumerate(spans)])
    return interleaved(*by_round)


def markup(case: Case) -> list[Edit]:
    """Pieces of markup stand between letters: at most one to ten letters."""
    by_round = []
    for number, text in case.rounds():
        places = [place for place in range(len(text) + 1) if not place % 10]
        case.random.shuffle(places)
        by_round.append([Edit(number, place, place, case.random.choice(case.wording.markup)) for place in places])
    return interleaved(*by_round)


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
    """Names and terms of the character's work become those of another work, each always the same one."""
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
    # What makes a way of speaking: matches never overlap.
    sayings = _any_of([*case.wording.catchphrases, *case.wording.interjections])
    particles = _any_of(case.wording.particles)
    manner = re.compile(
        r"[（(][^（）()\n]*[）)]|(?<!\*)\*[^*\n]+\*(?!\*)"
        rf"|{_CLAUSE_START}(?:{sayings})+(?:[，,、！!…～~]+|{_CLAUSE_END})"
        rf"|(?:{particles})(?:{_CLAUSE_END}|(?=[？?])(?<!{re.escape(case.wording.asking)}))"
        r"|！+|!+|…+|～+|~+"
    )
    edits = [
        Edit(number, *match.span(), _LOUD.get(match[0][0], ""))
        for number, text in case.rounds()
        for match in manner.finditer(text)
    ]
    return _shuffled(case, edits)


def story_cut(case: Case) -> list[Edit]:
    """Sentences about the character's own past are cut, from the clause that speaks of it on."""
    edits = []
    for number, span in case.sentences():
        if with_any(case, (number, span), case.wording.story):
            parts = clauses(case.replies[number], span)
            # A word of ours may itself hold a comma, so that no clause has all of it: then the whole sentence goes.
            first = next((k for k, part in enumerate(parts) if with_any(case, (number, part), case.wording.story)), 0)
            edits += [Edit(number, *part, "") for part in parts[first:]]
    return edits


def replaced(case: Case, places: Sequence[Place], lines: Sequence[str]) -> list[Edit]:
    """Sentences replaced by lines.

    A sentence is replaced by the line that is nearest to it in length, so that the length of the text says little of
    the degradation. A line is taken once; when all are taken, all may be taken again.
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
    """A pattern for any of the words. Without words it never matches."""
    # The longest first: the first alternative that fits is taken, and a word may begin with another one.
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)"


def _shuffled(case: Case, items: Sequence[Item]) -> list[Item]:
    return case.random.sample(list(items), len(items))


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
        text[slice(*span)] for dialogue in case.others.of_role for text in dialogue.replies for span in sentences(text)
    ]
    own = [place for place in case.sentences() if with_any(case, place, case.wording.advising)]
    advice = [line for line in given if any(word in line for word in case.wording.advising)]
    return replaced(case, own, advice)


def _ended_as(case: Case, donors: tuple[Dialogue, ...], first_round: int) -> list[Edit]:
    """Sentences from the end of each reply, each replaced by as large a part of one donor's reply of that round."""
    if not donors:
        return []
    replies = case.random.choice(donors).replies
    by_round = []
    for number, text in case.rounds(first_round):
        donor = replies[min(number, len(replies) - 1)] if replies else ""
        own, given = sentences(text), sentences(donor)
        if own and given:
            # The donor's sentences are dealt out to ours in order: where it has fewer, some of ours become empty.
            cuts = [len(given) * place // len(own) for place in range(len(own) + 1)]
            parts = [given[first:last] for first, last in pairwise(cuts)]
            texts = [donor[part[0][0] : part[-1][1]] if part else "" for part in parts]
            by_round.append([Edit(number, *span, part) for span, part in zip(own, texts, strict=True)][::-1])
    return interleaved(*by_round)


STRENGTHS = ("mild", "medium", "strong")


THIRDS = (1 / 3, 2 / 3, 1.0)


QUARTERS = (1 / 4, 2 / 4, 3 / 4)


@dataclass(frozen=True, slots=True)
class Degradation:
    """How a dialogue is made worse on one metric: all edits that could be made, and the share made at each strength."""

    metric: str
    edits: Callable[[Case], list[Edit]]
    shares: tuple[float, float, float]


DEGRADATIONS: dict[str, Degradation] = {
    "dropped": Degradation("fluency", dropped, (0.03, 0.1, 0.25)),
    "repeated": Degradation("fluency", repeated, (0.05, 0.15, 0.4)),
    "shuffled": Degradation("fluency", shuffled, (0.1, 0.3, 1.0)),
    "foreign": Degradation("fluency", foreign, QUARTERS),
    "markup": Degradation("fluency", markup, (0.1, 0.3, 1.0)),
    "other_scenario": Degradation("coherency", other_scenario, THIRDS),
    "other_character": Degradation("consistency", other_character, THIRDS),
    "contradiction": Degradation("consistency", contradiction, QUARTERS),
    "borrowed_names": Degradation("character_knowledge", borrowed_names, THIRDS),
    "borrowed_story": Degradation("character_knowledge", borrowed_story, QUARTERS),
    "plain_prose": Degradation("speech_style", plain_prose, THIRDS),
    "other_voice": Degradation("speech_style", other_voice, THIRDS),
    "conduct": Degradation("behavioral_habit", conduct, QUARTERS),
    "cold": Degradation("emotional_value", cold, QUARTERS),
    "story_cut": Degradation("experience_sharing", story_cut, THIRDS),
    "other_advice": Degradation("demand_matching", other_advice, THIRDS),
    "unasked_advice": Degradation("demand_matching", unasked_advice, QUARTERS),
}


def edits_of(dialogue: Dialogue, name: str, others: Others, seed: int = 0) -> list[Edit]:
    """All edits that a degradation could make in a dialogue, in the order in which strengths take them."""
    random = Random(digest([seed, name, dialogue.id, dialogue.content_digest]))
    return DEGRADATIONS[name].edits(Case(dialogue, others, wording_for(dialogue), random))


def degrade(dialogue: Dialogue, name: str, others: Others, seed: int = 0) -> tuple[Dialogue, ...]:
    """A dialogue degraded in each of ``STRENGTHS``, mild first; none where the degradation does not apply to it.

    It applies where the three differ from each other and from the dialogue, and leave no reply empty. The same seed
    gives the same three, whatever else is degraded.
    """
    edits = edits_of(dialogue, name, others, seed)
    # Rounded up, so that one edit is made where there is any; 1e-9 keeps a whole number from becoming the next one.
    counts = [math.ceil(share * len(edits) - 1e-9) for share in DEGRADATIONS[name].shares]
    forms = tuple(edited(dialogue, edits[:count]) for count in counts)
    differ = len({form.content_digest for form in (dialogue, *forms)}) == 1 + len(STRENGTHS)
    return forms if differ and all(form.is_answered for form in forms) else ()
