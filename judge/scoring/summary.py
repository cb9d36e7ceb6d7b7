"""From judgments to ``scores.csv``, ``leaderboard.csv`` and ``diversity.csv``.

Judgments are taken a part at a time, so that memory stays flat. Every mean here is a *judge mean*: what this judge
gives on average over dialogues like these. Its confidence interval is over scenarios and says nothing of human ratings.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise, repeat
from statistics import fmean
from typing import Any, TextIO

import numpy as np
import pandas as pd
from sacrebleu.metrics.bleu import BLEU
from scipy import stats

from judge.files import temporary_database, write_csv
from judge.types import Dialogue, Scheme

MOST_DIALOGUES = 200
"""The most dialogues of a system as a character that the text statistics are taken over."""


ANSWERS_SHOWN = 10
"""How many answers the judge is shown to rate response diversity."""


_ORDER = 4  # BLEU counts n-grams of one to four tokens


_tokenize = BLEU(tokenize="zh").tokenizer


def matched(dialogue: Dialogue, length: int = 100) -> str:
    """The character's replies joined and cut to the first ``length`` characters, so that texts compare at one length.

    A dialogue with fewer characters gives a shorter text, which counts as more varied than it is.
    """
    return "".join(dialogue.replies)[:length]


def distinct_2(texts: Sequence[str]) -> float | None:
    """Different character bigrams over all of them, in (0, 1]; higher is more varied (Li et al. 2016, distinct-2).

    Bigrams are taken within each text and pooled. None where no text has two characters.
    """
    bigrams = Counter(pair for text in texts for pair in pairwise(text))
    return len(bigrams) / bigrams.total() if bigrams else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """Mean BLEU-4 of each text with all the others as its references, in [0, 1]; higher is *less* varied.

    Zhu et al. 2018 (Texygen, section 3), on sacrebleu's Chinese tokens: each Chinese character is one token. Equal to
    the mean of ``BLEU(tokenize="zh", effective_order=True).sentence_score(text, others) / 100``, but the n-grams of
    each text are counted once, and not once for every other text. None for fewer than two texts.
    """
    if len(texts) < 2:
        return None
    tokens = [_tokenize(text).split() for text in texts]
    lengths = [len(own) for own in tokens]
    correct = _clipped_counts(tokens)
    others = Counter(lengths)
    scores = []
    for own, found in zip(lengths, correct.tolist(), strict=True):
        total = [max(own - order, 0) for order in range(_ORDER)]
        # BLEU's reference length is the one nearest to the text's own, the shorter of two equally near.
        reference = min((abs(other - own), other) for other in others if other != own or others[own] > 1)[1]
        bleu = BLEU.compute_bleu(found, total, own, reference, smooth_method="exp", effective_order=True)
        scores.append(float(bleu.score) / 100)
    return fmean(scores)


def _clipped_counts(tokens: Sequence[Sequence[str]]) -> np.ndarray:
    """How many n-grams of each text count as correct with all others as its references, shape (texts, ``_ORDER``).

    BLEU clips a text's count of an n-gram at the largest count among its references, here all the other texts. The text
    with the largest count is clipped at the second largest, and any other text is not clipped at all. So for every text
    the clipped count is the lesser of its own count and the second largest.
    """
    ids: dict[str, int] = {}
    flat = np.array([ids.setdefault(token, len(ids)) for own in tokens for token in own], int)
    owner = np.repeat(np.arange(len(tokens)), [len(own) for own in tokens])
    correct = np.zeros((len(tokens), _ORDER), int)
    ngrams = np.zeros(len(flat), int)  # by a number, the one that begins at each token
    for order in range(min(_ORDER, len(flat))):
        there = len(flat) - order
        ngrams = np.unique(ngrams[:there] * len(ids) + flat[order:], return_inverse=True)[1]
        within = owner[:there] == owner[order:]
        pairs, counts = np.unique(ngrams[within] * len(tokens) + owner[:there][within], return_counts=True)
        ngram, text = np.divmod(pairs, len(tokens))
        falling = np.lexsort((-counts, ngram))
        first = np.unique(ngram[falling], return_index=True)[1]
        second = first[first + 1 < len(ngram)] + 1
        second = second[ngram[falling][second] == ngram[falling][second - 1]]
        limits = np.zeros(there, int)
        limits[ngram[falling][second]] = counts[falling][second]
        np.add.at(correct[:, order], text, np.minimum(counts, limits[ngram]))
    return correct


def compression_ratio(texts: Sequence[str]) -> float | None:
    """UTF-8 bytes of the texts, joined by spaces, over their zlib-compressed bytes; higher is *less* varied.

    Shaib et al. 2024, "Standardizing the measurement of text diversity". Very short input gives less than 1. Builds of
    zlib differ by about one per cent. None where there is no text at all.
    """
    data = " ".join(texts).encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if data else None


def text_statistics(dialogues: Sequence[Dialogue], length: int = 100) -> dict[str, float | None]:
    """``distinct_2``, ``self_bleu`` and ``compression_ratio`` of one system's dialogues as one character.

    They are taken of the first ``length`` characters of each dialogue's replies. Dialogues without any reply are left
    out. With fewer than two left there is nothing to compare, and all three are None.
    """
    texts = [text for text in (matched(dialogue, length) for dialogue in dialogues) if text.strip()]
    statistics = {"distinct_2": distinct_2, "self_bleu": self_bleu, "compression_ratio": compression_ratio}
    return {name: statistic(texts) if len(texts) > 1 else None for name, statistic in statistics.items()}


def sample_answers(dialogues: Sequence[Dialogue]) -> tuple[str, str | None, list[str]]:
    """What the judge is shown to rate response diversity: the character, its profile, and some first replies in full.

    Args:
        dialogues: of one system as one character; the first ``ANSWERS_SHOWN`` with a reply are shown.
    """
    answers = ["".join(dialogue.replies[:1]) for dialogue in dialogues]
    shown = [answer for answer in answers if answer.strip()][:ANSWERS_SHOWN]
    return dialogues[0].character, dialogues[0].profile, shown


TARGET = "judge mean"
"""What a mean of the leaderboard estimates, as its column ``target`` says."""


MIN_SCENARIOS = 8
"""With fewer scenarios no interval is given: it would rest on too few groups."""


EQUAL = 1e-9
"""A half-width up to this counts as 0: the means are equal but for rounding."""


STATISTICS = ["distinct_2", "self_bleu", "compression_ratio"]
"""The columns of response diversity that are computed from the text alone."""


KEY = ["judge", "source", "character", "scenario"]
"""The columns that name a dialogue in a scores table."""


def scores_table(judgments: pd.DataFrame, scheme: Scheme, metrics: Sequence[str]) -> pd.DataFrame:
    """A row per dialogue, in the order of the judgments: key columns, metrics, and the means that a rubric asks for.

    A mean of several metrics is missing where one of them is.
    """
    table = judgments[KEY].drop_duplicates(ignore_index=True)
    dialogue = judgments.groupby(KEY, sort=False).ngroup().to_numpy()
    place = pd.Index(metrics).get_indexer(pd.Index(judgments["metric"]))
    scores = np.full((len(table), len(metrics)), np.nan)
    scores[dialogue[place >= 0], place[place >= 0]] = judgments["score"].to_numpy(float)[place >= 0]
    table[list(metrics)] = scores
    columns = scheme.columns(metrics)
    for name in columns:
        if name in scheme.composites:
            table[name] = table[list(scheme.composites[name])].mean(axis=1, skipna=False)
    return table[[*KEY, *columns]]


def summarise(
    parts: Iterable[pd.DataFrame], scheme: Scheme, metrics: Sequence[str], scores_csv: TextIO
) -> pd.DataFrame:
    """Write ``scores.csv`` and return the leaderboard, from parts of judgments on some of a rubric's metrics, in order.

    The leaderboard has a row per system and metric, or mean of metrics: ``judge, source, metric, mean, low, high,
    target, n, missing, scenarios``; ``n`` and ``missing`` count dialogues.
    """
    columns = scheme.columns(metrics)
    scores_csv.write(",".join([*KEY, *columns]) + "\n")
    with closing(_Sums(columns)) as sums:
        for part in parts:
            scores = scores_table(part, scheme, metrics)
            write_csv(scores, scores_csv, header=False)
            sums.add(scores)
        heads = ["judge", "source", "metric", "mean", "low", "high", "target", "n", "missing", "scenarios"]
        return pd.DataFrame(sums.leaderboard(), columns=heads)


class _Sums:
    """Sums and counts of scores by judge, system and scenario, which are all that the leaderboard needs.

    They are in a temporary SQLite table, as the logs of a platform have as many scenarios as dialogues; a scenario may
    also be spread over many parts.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns, places = columns, range(len(columns))
        fields = ["dialogues INT", *(f"sum{place} REAL" for place in places), *(f"n{place} INT" for place in places)]
        names = [field.split()[0] for field in fields]
        self._table = temporary_database()
        self._table.executescript(
            f"CREATE TABLE scenario (judge TEXT, source TEXT, scenario TEXT, {', '.join(fields)},"
            " PRIMARY KEY (judge, source, scenario)) WITHOUT ROWID; BEGIN"
        )
        more = ", ".join(f"{name} = {name} + excluded.{name}" for name in names)
        marks = ", ".join("?" * (3 + len(names)))
        self._insert = f"INSERT INTO scenario VALUES ({marks}) ON CONFLICT DO UPDATE SET {more}"

    def add(self, scores: pd.DataFrame) -> None:
        """Take in the scores of dialogues, a row each; a missing one counts as missing alone."""
        values = scores[list(self._columns)].to_numpy(float).T
        keys = (scores[name].tolist() for name in ("judge", "source", "scenario"))
        counts = (~np.isnan(values)).astype(int).tolist()
        rows = zip(*keys, repeat(1), *np.nan_to_num(values).tolist(), *counts, strict=False)
        self._table.executemany(self._insert, rows)

    def leaderboard(self) -> Iterator[dict[str, Any]]:
        """The rows of the leaderboard, by judge and system."""
        systems = self._table.execute("SELECT DISTINCT judge, source FROM scenario ORDER BY judge, source").fetchall()
        for judge, source in systems:
            where = "FROM scenario WHERE judge = ? AND source = ?"
            for place, column in enumerate(self._columns):
                totals = f"SELECT sum(n{place}), sum(dialogues) {where}"
                n, dialogues = self._table.execute(totals, (judge, source)).fetchone()
                # A scenario in which every judgment is missing has no mean, and counts as no group.
                means = f"SELECT sum{place} / n{place} {where} AND n{place} > 0"
                found = np.array([mean for (mean,) in self._table.execute(means, (judge, source))], float)
                mean, low, high = mean_interval(found)
                row = {"mean": mean, "low": low, "high": high, "target": TARGET, "n": n, "missing": dialogues - n}
                yield {"judge": judge, "source": source, "metric": column, **row, "scenarios": len(found)}

    def close(self) -> None:
        """Remove the temporary table."""
        self._table.close()


def diversity_table(ratings: Sequence[pd.DataFrame], set_metric: str) -> pd.DataFrame:
    """Response diversity from its parts: a row per system and character, then a row per system.

    ``level`` says which: ``character`` or ``source``. The values of a system are means over its characters. The judge's
    rating is in the column of the rubric's ``set_metric``.
    """
    columns = ["level", "judge", "source", "character", "dialogues", *STATISTICS, set_metric, "mass", "error"]
    if not ratings:
        return pd.DataFrame(columns=columns)
    roles = pd.concat(ratings, ignore_index=True).rename(columns={"score": set_metric})
    roles = roles.sort_values(["source", "character"]).assign(level="character")
    grouped = roles.groupby(["judge", "source"], as_index=False)
    means = grouped.agg({"dialogues": "sum", **dict.fromkeys([*STATISTICS, set_metric, "mass"], "mean")})
    return pd.concat([roles[columns], means.assign(level="source")], ignore_index=True)[columns]


def mean_interval(group_means: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None, float | None]:
    """Mean of group means with Student's t interval over the k groups, k - 1 degrees of freedom: mean, low, high.

    There is no interval (None) under ``MIN_SCENARIOS`` groups. Nor is there one where all means are equal: it would
    have no width, though the mean is not known exactly. Without a group there is no mean either.

    Args:
        group_means: shape (k,).
        level: the confidence level.
    """
    k = len(group_means)
    if k == 0:
        return None, None, None
    mean = float(np.mean(group_means))
    if k < MIN_SCENARIOS:
        return mean, None, None
    half = float(stats.t.ppf((1 + level) / 2, k - 1) * np.std(group_means, ddof=1) / np.sqrt(k))
    return (mean, mean - half, mean + half) if half > EQUAL else (mean, None, None)
