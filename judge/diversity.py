"""How varied one source's answers as one character are: statistics of the text alone, which need no judge.

Pure: strings in, numbers out. Every statistic depends on how many texts there are and how long they are, so sources
are compared over the same scenarios and over excerpts of the same length (``matched``). An undefined statistic is
None, never NaN.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.helpers import extract_all_word_ngrams

from judge.types import Dialogue

MOST_DIALOGUES = 200
"""The most dialogues of a source as a character that the statistics are taken over."""
ANSWERS_SHOWN = 10
"""How many answers the judge is shown to rate response diversity."""

__all__ = ["compression_ratio", "distinct_2", "matched", "sample_answers", "self_bleu", "text_statistics"]

_ORDER = 4  # n-grams of up to four tokens, as BLEU has it
_tokenize = BLEU(tokenize="zh").tokenizer


def matched(dialogue: Dialogue, length: int = 100) -> str:
    """The character's replies joined, cut to the first ``length`` characters, so that texts compare at one length.

    A dialogue with less to say gives a shorter text, which counts as more varied than it is.
    """
    return "".join(turn.character for turn in dialogue.turns)[:length]


def distinct_2(texts: Sequence[str]) -> float | None:
    """Different character bigrams over all of them, in (0, 1]; higher is more varied (Li et al. 2016, distinct-2).

    Bigrams are taken within each text and pooled. None where no text has two characters.
    """
    bigrams = Counter(pair for text in texts for pair in pairwise(text))
    return len(bigrams) / bigrams.total() if bigrams else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """Mean BLEU-4 of each text with all the others as its references, in [0, 1]; higher is *less* varied.

    Zhu et al. 2018 (Texygen, section 3), on sacrebleu's Chinese tokens: each Chinese character one token. Equal to the
    mean of ``BLEU(tokenize="zh", effective_order=True).sentence_score(text, others) / 100``, only each text is counted
    once instead of once for every other text. None for fewer than two texts.
    """
    if len(texts) < 2:
        return None
    counted = [extract_all_word_ngrams(_tokenize(text), 1, _ORDER) for text in texts]
    counts, lengths = [ngrams for ngrams, _ in counted], [length for _, length in counted]
    limits = _second_largest(counts)
    closest = [_closest(length, lengths[:i] + lengths[i + 1 :]) for i, length in enumerate(lengths)]
    return fmean(_bleu(ngrams, limits, *pair) for ngrams, *pair in zip(counts, lengths, closest, strict=True))


def compression_ratio(texts: Sequence[str]) -> float | None:
    """UTF-8 bytes of the texts, joined by spaces, over their zlib-compressed bytes; higher is *less* varied.

    Shaib et al. 2024, "Standardizing the measurement of text diversity". Very short input gives less than 1, and builds
    of zlib differ in the last per cent or so. None where there is no text at all.
    """
    data = " ".join(texts).encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if data else None


def text_statistics(dialogues: Sequence[Dialogue], length: int = 100) -> dict[str, float | None]:
    """``distinct_2``, ``self_bleu`` and ``compression_ratio`` of one source's dialogues as one character.

    Of the first ``length`` characters of each dialogue's replies. Dialogues without any reply are left out; with fewer
    than two others there is nothing to compare, and all three are None.
    """
    texts = [text for text in (matched(dialogue, length) for dialogue in dialogues) if text.strip()]
    statistics = {"distinct_2": distinct_2, "self_bleu": self_bleu, "compression_ratio": compression_ratio}
    return {name: statistic(texts) if len(texts) > 1 else None for name, statistic in statistics.items()}


def sample_answers(dialogues: Sequence[Dialogue]) -> tuple[str, str | None, list[str]]:
    """What the judge is shown to rate response diversity: the character, its profile, and some first replies in full.

    The dialogues are those of one source as one character; the first ``ANSWERS_SHOWN`` with a reply are taken.
    """
    answers = [dialogue.turns[0].character for dialogue in dialogues]
    shown = [answer for answer in answers if answer.strip()][:ANSWERS_SHOWN]
    return dialogues[0].character, dialogues[0].profile, shown


def _second_largest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], int]:
    """The second largest count of each n-gram over the texts.

    BLEU clips a text's count at the largest of its references. Where those are all the other texts, the lesser of its
    count and this one is that clipped count, whichever text it is.
    """
    first: dict[tuple[str, ...], int] = {}
    second: dict[tuple[str, ...], int] = {}
    for ngrams in counts:
        for ngram, count in ngrams.items():
            largest = first.get(ngram, 0)
            first[ngram] = max(largest, count)
            second[ngram] = max(second.get(ngram, 0), min(largest, count))
    return second


def _closest(length: int, others: Sequence[int]) -> int:
    """BLEU's reference length: the one nearest to the text's own, the shorter of two equally near."""
    return min(others, key=lambda other: (abs(other - length), other))


def _bleu(ngrams: Counter[tuple[str, ...]], limits: dict[tuple[str, ...], int], length: int, reference: int) -> float:
    """BLEU of one text in [0, 1], from its n-gram counts, the counts they are clipped at, and the two lengths."""
    correct, total = [0] * _ORDER, [0] * _ORDER
    for ngram, count in ngrams.items():
        total[len(ngram) - 1] += count
        correct[len(ngram) - 1] += min(count, limits[ngram])
    score = BLEU.compute_bleu(correct, total, length, reference, smooth_method="exp", effective_order=True).score
    return float(score) / 100
