"""Text that speaks to the judge and not to the user: which known patterns a dialogue holds.

A flag is a reason for a person to look; it never alters a score. It is made of code alone, since defences that rest
on a model's judgment were broken by attackers who adapted (arXiv 2604.23887), and it knows only what it was taught:
no flag is no proof. The time is linear in the length of the text.

What is looked for, by the name that stands in the column ``suspicious``:

order          someone who rates is told what to give, or to forget the instructions
verdict        a score in the form of an answer slot (``流畅性：５``, ``[[5]]``)
rubric         another rubric: titles of several metrics, anchors of levels, criteria that are to hold instead
system         a turn or heading that is not of the dialogue's speakers (``system:``, "end of the dialogue")
control_token  tokens of chat templates (``<|im_end|>``, ``[INST]``, ``<think>``)
claim          somebody of standing is said to have given full marks
address        someone who rates is spoken to
praise         praise upon praise in a sentence, of no person
invisible      characters that are not seen: zero-width, direction marks, tags
gibberish      symbols or letters that are no words, as searched-for suffixes are
repetition     one character, or the same text, again and again; the same answer in every round
emoji          a heap of emoji
near_empty     an answer of one letter or none
opener         an answer that only begins one (``Thought process:``)
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from judge.patterns import PATTERNS, RULES, Rule, opener, praise, titles, verdict
from judge.types import Dialogue

LEAST_TITLES = 3
"""So many titles of metrics, or anchors of levels, in one text are a rubric."""
LEAST_PRAISE = 4
MOST_EMOJI = 12
MOST_RUN = 30
"""A character so often in a row is repetition."""
MOST_COMPRESSION = 4.0
"""Bytes of a text per byte compressed; answers of ChatAnime have up to 1.7."""
LEAST_BYTES = 300
"""Of a text whose compression says something."""
SYMBOL_CHUNK, MOST_SYMBOLS = 60, 8
"""So many kinds of symbols in so many characters are gibberish; texts of ChatAnime have up to 2."""
OPENER_LENGTH = 40

_STYLED = [*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800), *range(0x2460, 0x249C), 0x3000]
_HIDDEN = "\u00ad\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\U000e0000-\U000e007f"
_JOINERS = "\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef"
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007f]{1,8}")
"""Flags of regions (Scotland) are written with tags."""
_UNSEEN = re.compile(f"[{_HIDDEN}{_JOINERS}]")
_INVISIBLE = re.compile(f"[{_HIDDEN}]|[{_JOINERS}]{{3}}")
_JOINED = re.compile("[\u4e00-\u9fffA-Za-z0-9][\u200c\u200d]")
_EMOJI = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
_SENTENCE_END = re.compile(r"[。!?;\n]|\.[ \n]")
_SYMBOL = re.compile(r"[\\{}\[\]()*#@!$%^&+=<>|~\"/_`;]")


def suspicious(dialogue: Dialogue) -> str | None:
    """The names of the patterns found in a dialogue, in alphabetical order with commas; None where there are none.

    Looked at are the answers, the user's turns, the character's name and the profile.
    """
    answers = [turn.character for turn in dialogue.turns]
    others = [*(turn.user for turn in dialogue.turns), dialogue.character, dialogue.profile or ""]
    found = {name for text in (*answers, *others) for name in _in_text(text)}
    found |= {name for answer in answers for name in _in_answer(answer)}
    if len(answers) > 1 and len(set(answers)) == 1:
        found.add("repetition")
    return ",".join(sorted(found)) or None


def _in_text(text: str) -> Iterator[str]:
    """What makes any text suspicious, an answer or not."""
    plain = _plain(text)
    sentences = _SENTENCE_END.split(plain)
    yield from (name for name, pattern in PATTERNS.items() if pattern.search(plain))
    yield from (name for name, rules in RULES.items() if any(_breaks(rule, plain, sentences) for rule in rules))
    yield from (name for name, check in CHECKS.items() if check(text))
    if verdict().search(plain):
        yield "verdict"
    if _is_rubric(plain):
        yield "rubric"
    if any(len(praise().findall(sentence)) >= LEAST_PRAISE for sentence in sentences):
        yield "praise"


def _in_answer(answer: str) -> Iterator[str]:
    """What makes an answer suspicious that may stand anywhere else."""
    plain = _plain(answer).strip()
    letters = sum(1 for _ in zip(re.finditer(r"\w", plain), range(2), strict=False))
    if letters < 2:
        yield "near_empty"
    elif len(plain) <= OPENER_LENGTH and opener().search(plain):
        yield "opener"


def _breaks(rule: Rule, plain: str, sentences: Sequence[str]) -> bool:
    """Whether a sentence has all that a rule names; the text as a whole is asked first, which is quicker."""
    return all(pattern.search(plain) for pattern in rule.together) and any(
        all(pattern.search(sentence) for pattern in rule.together) and not rule.harmless.search(sentence)
        for sentence in sentences
    )


@cache
def _folding() -> dict[int, str]:
    """Full-width, mathematical and circled characters as the plain ones they stand for."""
    return {code: unicodedata.normalize("NFKC", chr(code)) for code in _STYLED}


def _plain(text: str) -> str:
    """Text in small letters, without what is not seen, and with styled characters made plain: so they hide nothing."""
    return _UNSEEN.sub("", text).translate(_folding()).lower()


def _is_rubric(plain: str) -> bool:
    """Whether a text names several metrics, or says what several levels mean."""
    anchors = {match[1] for match in re.finditer(r"([1-5]) ?(?:分|points?|stars?)[ \t]{0,2}[:=]", plain)}
    anchors |= {match[1] for match in re.finditer(r"\b(?:score|level|rating) ?([1-5])[ \t]{0,2}[:=]", plain)}
    named = sum(title in plain for title in titles())
    return max(len(anchors), named) >= LEAST_TITLES


def _is_invisible(text: str) -> bool:
    seen = _FLAG.sub("", text)
    return bool(_INVISIBLE.search(seen)) or len(_JOINED.findall(seen)) >= 3


def _is_repetition(text: str) -> bool:
    if re.search(rf"(\S)\1{{{MOST_RUN - 1}}}", text):
        return True
    data = text.encode("utf-8", "surrogatepass")
    return len(data) >= LEAST_BYTES and len(data) > MOST_COMPRESSION * len(zlib.compress(data, 1))


def _is_symbols(text: str) -> bool:
    """Whether some stretch of a text has many kinds of symbols."""
    starts = range(0, max(1, len(text) - SYMBOL_CHUNK // 2), SYMBOL_CHUNK // 2)
    return any(len(set(_SYMBOL.findall(text, start, start + SYMBOL_CHUNK))) >= MOST_SYMBOLS for start in starts)


CHECKS: dict[str, Callable[[str], bool]] = {
    "invisible": _is_invisible,
    "repetition": _is_repetition,
    "gibberish": _is_symbols,
    "emoji": lambda text: len(_EMOJI.findall(text)) >= MOST_EMOJI,
}
"""By name: what is suspicious in the text as it is."""
