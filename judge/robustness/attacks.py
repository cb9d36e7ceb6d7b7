"""Is the judge robust against prompt injection? The attacks, and the judging of dialogues under them.

The texts are in ``texts/attacks.yaml``; this module writes them into dialogues. What the scores say is for
``attack_analysis``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from judge.progress import Progress
from judge.prompting.chat_tokenizer import FULL_WIDTH
from judge.prompting.rubric import languages, load_rubric
from judge.robustness.perturbation import (
    DIALOGUES,
    ORDERINGS,
    Perturbation,
    PerturbationJudgments,
    PromptVariant,
    judge_perturbations,
)
from judge.types import Dialogue, Options, Turn, digest

BENIGN = "benign"
"""The control among the families."""


PADDING = 600
"""Padding makes the last answer longer by at least so many characters."""


WRITTEN_FOR = (1, 2, 3, 4, 5)
"""The levels that the texts speak of; they ask for the highest."""


NUMERALS = "一二三四五六七八九十"
"""How Chinese writes 1 to 10."""


TAGS = 0xE0000
"""The first of Unicode's tag characters, which are invisible copies of the ASCII characters."""


RIGHT_TO_LEFT, END_OF_DIRECTION = "\u202e", "\u202c"
"""Marks that show the text between them from right to left."""


PLACES = {
    "after": "at the end of the last answer",
    "instead": "in place of every answer",
    "user": "at the end of the user's last turn",
    "name": "after the character's name",
    "profile": "at the end of the character's profile, or as one where there is none",
    "padding": "after the last answer, sentence after sentence, at least PADDING characters",
    "hidden": "in the last answer, by characters that are not seen",
}
"""Where a text may go, by the name in ``attacks.yaml``."""


@dataclass(frozen=True, slots=True)
class Family:
    """Texts that try the same trick in the same place (one of ``PLACES``); ``texts`` are by language or kind."""

    name: str
    place: str
    texts: dict[str, tuple[str, ...]]


@cache
def families() -> tuple[Family, ...]:
    """All families, the control last."""
    content = yaml.safe_load(
        (resources.files("judge.robustness") / "texts" / "attacks.yaml").read_text(encoding="utf-8")
    )
    return tuple(
        Family(name, family["place"], {kind: tuple(texts) for kind, texts in family["texts"].items()})
        for name, family in content.items()
    )


def rewrites(dialogues: Sequence[Dialogue], seed: int = 0, levels: Sequence[int] = WRITTEN_FOR) -> list[Perturbation]:
    """Attacked dialogues: of each dialogue one for every kind of every family.

    Args:
        dialogues: as they are.
        seed: random seed that chooses among the texts of a kind.
        levels: of the rubric, the highest last, which attacks ask for.
    """
    found = []
    for dialogue in dialogues:
        for family in families():
            for kind, written in family.texts.items():
                texts = tuple(asking_for(levels, text) for text in written)
                # Drawn by a digest and not from one stream, so that what else is judged does not matter.
                text = texts[int(digest([seed, dialogue.id, family.name, kind]), 16) % len(texts)]
                attacked = written_into(dialogue, family.place, kind, text, texts)
                found.append(Perturbation(family.name, kind, attacked, dialogue.id))
    return found


def asking_for(levels: Sequence[int], text: str) -> str:
    """A text of an attack that speaks of other levels than ``WRITTEN_FOR``: its highest is theirs, and so on down."""
    if tuple(levels) == WRITTEN_FOR:
        return text
    # A rubric that an attack makes up has a line a level; one that there is no level for is left out.
    lines = []
    for line in text.split("\n"):
        level = re.match(r"\s*(?:Score )?([1-5])(?= ?[分:：])", line)
        place = WRITTEN_FOR[-1] - int(level[1]) if level else 0
        if level is None or place == 0:
            lines.append(line)
        elif place < len(levels):
            lines.append(line[: level.start(1)] + f"\0{levels[-1 - place]}\0" + line[level.end(1) :])
    top = levels[-1]
    text = re.sub(r"(?<![\d\0])5(?![\d\0])", str(top), "\n".join(lines)).replace("\0", "")
    text = text.replace("５", str(top).translate(FULL_WIDTH))
    if 1 <= top <= len(NUMERALS):
        text = text.replace("⑤", chr(ord("①") + top - 1))
        text = re.sub("五(?=分(?!钟))", NUMERALS[top - 1], text)
    return text


def written_into(dialogue: Dialogue, place: str, kind: str, text: str, texts: Sequence[str]) -> Dialogue:
    """A dialogue with a text written into it.

    Args:
        dialogue: as it is.
        place: one of ``PLACES``. What ``after`` and ``user`` write ends the last round with a reply.
        kind: the language of the text, or for hidden text how it is hidden: ``zero_width``, ``bidi`` or ``tags``.
        text: the text that was drawn.
        texts: all texts of that kind. Padding goes through them from the one that was drawn.
    """
    last = max((number for number, turn in enumerate(dialogue.turns) if turn.character is not None), default=0)
    user, answer = dialogue.turns[last].user, dialogue.turns[last].character or ""
    match place, kind:
        case "instead", _:
            turns = (turn if turn.character is None else Turn(turn.user, text) for turn in dialogue.turns)
            return replace(dialogue, turns=tuple(turns))
        case "name", _:
            return replace(dialogue, character=f"{dialogue.character}（{text}）")
        case "profile", _:
            return replace(dialogue, profile="\n".join(filter(None, (dialogue.profile, text))))
        case "user", _:
            user = text if user is None else f"{user}\n{text}"
        case "after", _:
            answer += f"\n{text}"
        case "padding", _:
            start = texts.index(text)
            once = [*texts[start:], *texts[:start]]
            times = math.ceil(PADDING / sum(map(len, once)))
            answer += "\n" + (" " if kind == "en" else "").join(once * times)
        case "hidden", "zero_width":
            answer = text.join(answer) + text  # between all characters
        case "hidden", "bidi":
            answer += f"\n{RIGHT_TO_LEFT}{text[::-1]}{END_OF_DIRECTION}"  # shown as it should read
        case "hidden", _:
            answer += "".join(chr(TAGS + ord(letter)) for letter in text)
    return replace(dialogue, turns=(*dialogue.turns[:last], Turn(user, answer), *dialogue.turns[last + 1 :]))


LEVEL_ORDER, RUBRIC_LANGUAGE = "level_order", "rubric_language"
"""The families of the prompt variants: the levels listed downwards, and the rubric in the other language."""


WAYS = (LEVEL_ORDER, RUBRIC_LANGUAGE)
"""The families whose rows are of dialogues as they are, under another prompt variant."""


def attack(
    data: Sequence[Path] = (), options: Options | None = None, progress: Progress | None = None, seed: int = 0
) -> PerturbationJudgments:
    """Judge dialogues as they are, with every kind of attack written into them, and under two other prompt variants.

    Args:
        data: files or folders of dialogues; none as for ``score``.
        options: which judge by which engine, how it is asked, and which dialogues; ``DIALOGUES`` of them where no limit
            is given. Its run and metrics do not count.
        progress: shows how far the work is.
        seed: random seed that chooses which of a family's texts each dialogue gets.

    Returns:
        Judgments with ``family`` one of ``families`` or of ``WAYS``, and "" for the originals. How far scores moved is
        for ``score_changes`` and ``mean_changes`` of ``judge.robustness.attack_analysis``.

    Raises:
        InputError: data or options are wrong.
        EngineError: the machine or the model failed, or the judge does not answer with a level.
        Interrupted: the user stopped it; nothing is kept.
    """
    options = options or Options(limit=DIALOGUES)
    rubric = load_rubric(options.language, options.rubric)
    ascending, descending = (PromptVariant(options.layout, ordering, rubric.language) for ordering in ORDERINGS)
    variants = {(LEVEL_ORDER, descending.ordering): descending}
    for language in languages(options.rubric):
        if language != rubric.language:
            variants[RUBRIC_LANGUAGE, language] = replace(ascending, language=language)
    levels = max(rubric.scheme.levels.values(), key=lambda own: own[-1])
    found = judge_perturbations(data, options, lambda dialogues: rewrites(dialogues, seed, levels), progress, variants)
    return replace(found, settings={**found.settings, "seed": seed})
