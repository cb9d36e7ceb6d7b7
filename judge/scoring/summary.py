"""From judgments to ``scores.csv`` and ``leaderboard.csv``: a part at a time, so that memory stays flat.

Every mean here is a *judge mean*: what this judge gives on average over dialogues like these. Its interval is over
scenarios and says nothing of what people would give.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TextIO

import numpy as np
import pandas as pd
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.helpers import extract_all_word_ngrams
from scipy import stats

from judge.files import write_csv
from judge.types import DIMENSIONS, METRICS, OVERALL, RESPONSE_DIVERSITY, Dialogue

MOST_DIALOGUES = 200
"""The most dialogues of a source as a character that the statistics are taken over."""


ANSWERS_SHOWN = 10
"""How many answers the judge is shown to rate response diversity."""


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
    # BLEU's reference length: the one nearest to the text's own, the shorter of two equally near.
    closest = [
        min(lengths[:i] + lengths[i + 1 :], key=lambda other, own=own: (abs(other - own), other))  # type: ignore[misc]
        for i, own in enumerate(lengths)
    ]
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


def _bleu(ngrams: Counter[tuple[str, ...]], limits: dict[tuple[str, ...], int], length: int, reference: int) -> float:
    """BLEU of one text in [0, 1], from its n-gram counts, the counts they are clipped at, and the two lengths."""
    correct, total = [0] * _ORDER, [0] * _ORDER
    for ngram, count in ngrams.items():
        total[len(ngram) - 1] += count
        correct[len(ngram) - 1] += min(count, limits[ngram])
    score = BLEU.compute_bleu(correct, total, length, reference, smooth_method="exp", effective_order=True).score
    return float(score) / 100


TARGET = "judge mean"


MIN_SCENARIOS = 8
"""Below so many scenarios no interval is given: it would rest on too few groups."""


EQUAL = 1e-9
"""A half-width up to this is that of equal means, and rounding."""


STATISTICS = ["distinct_2", "self_bleu", "compression_ratio"]
"""The columns of response diversity that come from the text alone."""


KEY = ["judge", "source", "character", "scenario"]


def scale_columns(metrics: Sequence[str]) -> list[str]:
    """The columns of a scores table: metrics, then the dimensions and the overall mean they make up whole."""
    whole = [name for name, members in DIMENSIONS.items() if set(members) <= set(metrics)]
    return [*(m for m in METRICS if m in metrics), *whole, *([OVERALL] if set(METRICS) <= set(metrics) else [])]


def scores_table(judgments: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row per dialogue, in the order given: key columns, metrics, dimension means, overall mean.

    A mean of several metrics is missing where one of them is.
    """
    order = judgments[KEY].drop_duplicates()
    wide = judgments.pivot(index=KEY, columns="metric", values="score").reindex(columns=list(metrics))
    for dimension, members in DIMENSIONS.items():
        if set(members) <= set(metrics):
            wide[dimension] = wide[list(members)].mean(axis=1, skipna=False)
    if set(METRICS) <= set(metrics):
        wide[OVERALL] = wide[list(METRICS)].mean(axis=1, skipna=False)
    wide = wide.loc[pd.MultiIndex.from_frame(order)].reset_index()
    return wide[[*KEY, *scale_columns(metrics)]]


def summarise(parts: Iterable[pd.DataFrame], metrics: Sequence[str], scores_csv: TextIO) -> pd.DataFrame:
    """Write ``scores.csv`` and return the leaderboard, from parts of judgments in order.

    The leaderboard has a row per source and metric, dimension or overall: ``judge, source, metric, mean, low, high,
    target, n, missing, scenarios``; ``n`` and ``missing`` count dialogues.
    """
    sums: pd.DataFrame | None = None
    scores_csv.write(",".join([*KEY, *scale_columns(metrics)]) + "\n")
    for part in parts:
        scores = scores_table(part, metrics)
        write_csv(scores, scores_csv, header=False)
        # Per judge, source and scenario: sum, count and missing of each column.
        columns = scale_columns(metrics)
        groups = scores.groupby(["judge", "source", "scenario"], sort=False)[columns]
        filled = groups.count()
        missing = filled.rsub(groups.size(), axis=0)
        cells = pd.concat([groups.sum(), filled, missing], axis=1, keys=["sum", "n", "missing"])
        sums = cells if sums is None else sums.add(cells, fill_value=0)
    return _leaderboard(sums, metrics)


def _leaderboard(sums: pd.DataFrame | None, metrics: Sequence[str]) -> pd.DataFrame:
    rows = []
    if sums is not None:
        for (judge, source), cells in sums.groupby(level=["judge", "source"], sort=True):
            for column in scale_columns(metrics):
                counts = cells["n"][column]
                means = (cells["sum"][column] / counts.where(counts > 0)).dropna().to_numpy()
                mean, low, high = mean_interval(means)
                row = {"mean": mean, "low": low, "high": high, "target": TARGET, "n": int(counts.sum())}
                missing = int(cells["missing"][column].sum())
                names = {"judge": judge, "source": source, "metric": column}
                rows.append({**names, **row, "missing": missing, "scenarios": len(means)})
    columns = ["judge", "source", "metric", "mean", "low", "high", "target", "n", "missing", "scenarios"]
    return pd.DataFrame(rows, columns=columns)


def diversity_table(ratings: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Response diversity from its parts: a row per source and character (``level`` is ``character``), then a row per
    source (``level`` is ``source``) whose values are means over its characters; ``response_diversity`` is the judge's.
    """
    columns = ["level", "judge", "source", "character", "dialogues", *STATISTICS, RESPONSE_DIVERSITY, "mass", "error"]
    if not ratings:
        return pd.DataFrame(columns=columns)
    roles = pd.concat(ratings, ignore_index=True).rename(columns={"score": RESPONSE_DIVERSITY})
    roles = roles.sort_values(["source", "character"]).assign(level="character")
    grouped = roles.groupby(["judge", "source"], as_index=False)
    means = grouped.agg({"dialogues": "sum", **dict.fromkeys([*STATISTICS, RESPONSE_DIVERSITY, "mass"], "mean")})
    return pd.concat([roles[columns], means.assign(level="source")], ignore_index=True)[columns]


def mean_interval(group_means: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None, float | None]:
    """Mean of group means with Student's t interval over groups, k - 1 degrees of freedom: mean, low, high.

    No interval under ``MIN_SCENARIOS`` groups, or where all means are equal, which does not say how far off they are;
    no mean without a group: None in their place.
    """
    k = len(group_means)
    if k == 0:
        return None, None, None
    mean = float(np.mean(group_means))
    if k < MIN_SCENARIOS:
        return mean, None, None
    half = float(stats.t.ppf((1 + level) / 2, k - 1) * np.std(group_means, ddof=1) / np.sqrt(k))
    return (mean, mean - half, mean + half) if half > EQUAL else (mean, None, None)
