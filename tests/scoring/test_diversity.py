"""Response diversity: fractions worked out by hand, and agreement with the published figures."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from scipy.stats import pearsonr, spearmanr

from judge.scoring.summary import compression_ratio, distinct_2, matched, self_bleu, text_statistics
from judge.types import Dialogue, Turn

ChatAnime = dict[str, dict[str, list[Dialogue]]]
NOTHING = {"distinct_2": None, "self_bleu": None, "compression_ratio": None}


def dialogue(*replies: str) -> Dialogue:
    return Dialogue("s", "c", "1", tuple(Turn("问", reply) for reply in replies))


def test_matched_joins_the_characters_replies_and_nothing_of_the_users():
    assert matched(dialogue("甲乙", "丙")) == "甲乙丙"


def test_matched_cuts_at_the_length_asked_for_and_at_100_characters_unasked():
    assert matched(dialogue("甲乙", "丙丁"), length=3) == "甲乙丙"
    assert matched(dialogue("甲" * 60, "乙" * 60)) == "甲" * 60 + "乙" * 40


def test_distinct_2_is_different_bigrams_over_all_bigrams():
    # 甲乙 乙甲 甲乙 | 甲乙 乙丙: five bigrams, of which 甲乙, 乙甲 and 乙丙 differ
    assert distinct_2(["甲乙甲乙", "甲乙丙"]) == 3 / 5


def test_distinct_2_counts_no_bigram_across_two_texts():
    assert distinct_2(["甲乙", "甲乙"]) == 1 / 2  # joined they would be 甲乙 乙甲 甲乙: two of three


@pytest.mark.parametrize("texts", [[], [""], ["甲", "乙", ""]])
def test_distinct_2_is_undefined_without_a_bigram(texts):
    assert distinct_2(texts) is None


def test_self_bleu_of_two_texts_that_differ_in_their_last_character():
    # each against the other: 4/5 of the 1-grams match, 3/4, 2/3 and 1/2; the lengths are equal, so no brevity penalty
    assert self_bleu(["甲乙丙丁戊", "甲乙丙丁己"]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))


def test_self_bleu_is_1_for_one_text_repeated_and_0_where_no_two_share_a_character():
    assert self_bleu(["甲乙丙丁戊"] * 3) == pytest.approx(1)
    assert self_bleu(["甲乙丙丁", "戊己庚辛", "壬癸子丑"]) == 0


def test_self_bleu_takes_all_other_texts_as_references():
    # the third has 甲乙丙丁 from the first and 戊己庚辛 from the second; only the 2-, 3- and 4-grams across the middle
    # are its own: 8/8, 6/7, 4/6, 2/5. The first two, inside the third: 4/4 at each order, closest length their own.
    third = (8 / 8 * 6 / 7 * 4 / 6 * 2 / 5) ** (1 / 4)
    assert self_bleu(["甲乙丙丁", "戊己庚辛", "甲乙丙丁戊己庚辛"]) == pytest.approx((1 + 1 + third) / 3)


@given(st.lists(st.text("甲乙丙。 a", max_size=12), min_size=2, max_size=6))
@settings(deadline=None)
def test_self_bleu_equals_sacrebleus_sentence_score_against_all_the_others(texts):
    bleu = BLEU(tokenize="zh", effective_order=True)
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score / 100 for i, text in enumerate(texts)]
    assert self_bleu(texts) == pytest.approx(fmean(scores), abs=1e-12)


@pytest.mark.parametrize("texts", [[], ["甲乙丙丁"]])
def test_self_bleu_is_undefined_for_fewer_than_two_texts(texts):
    assert self_bleu(texts) is None


def test_compression_ratio_of_two_letters():
    # "a b" in deflate's fixed code: 3 header bits, 3 letters of 8 bits, 7 to end the block: 34 bits, 5 bytes; and the
    # container's 2 bytes before and 4 after
    assert compression_ratio(["a", "b"]) == 3 / 11


def test_compression_ratio_counts_utf8_bytes_and_is_higher_for_repetition():
    assert compression_ratio(["甲乙丙"]) == 9 / len(zlib.compress("甲乙丙".encode()))
    repeated, varied = ["甲乙丙丁"] * 4, ["甲乙丙丁", "戊己庚辛", "壬癸子丑", "寅卯辰巳"]
    assert compression_ratio(repeated) > compression_ratio(varied)


def test_compression_ratio_is_undefined_for_no_text_and_survives_half_a_surrogate_pair():
    assert compression_ratio([]) is None
    assert compression_ratio([""]) is None
    assert compression_ratio(["\ud83d"]) == pytest.approx(3 / 11)


def test_statistics_are_of_the_matched_texts():
    dialogues = [dialogue("甲乙", "丙丁戊"), dialogue("甲乙丙丁己")]
    texts = ["甲乙丙丁", "甲乙丙丁"]
    expected = {"distinct_2": 1 / 2, "self_bleu": self_bleu(texts), "compression_ratio": compression_ratio(texts)}
    assert text_statistics(dialogues, length=4) == expected
    assert text_statistics(dialogues)["self_bleu"] == pytest.approx(0.2**0.25)
    long = [dialogue("甲" * 99 + last + "丙" * 9) for last in "甲乙"]
    assert text_statistics(long)["distinct_2"] == 2 / 198  # of 99 bigrams each, all 甲甲 but one 甲乙


@pytest.mark.parametrize("dialogues", [[], [dialogue("甲乙丙")], [dialogue("甲乙丙"), dialogue("", " "), dialogue()]])
def test_statistics_of_fewer_than_two_answers_are_none(dialogues):
    assert text_statistics(dialogues) == NOTHING


def test_a_statistic_that_has_nothing_to_count_is_none_beside_those_that_have():
    statistics = text_statistics([dialogue("甲"), dialogue("甲")])
    assert statistics["distinct_2"] is None
    assert statistics["self_bleu"] == pytest.approx(1)


def test_a_missing_reply_changes_nothing():
    dialogues = [dialogue("甲乙丙丁戊"), dialogue("甲乙丙丁己")]
    assert text_statistics([*dialogues, dialogue("")]) == text_statistics(dialogues)


@pytest.mark.long
def test_distinct_2_orders_chatanimes_sources_as_published(chatanime: ChatAnime, shared_data: Path):
    with (shared_data / "chatanime_published_means.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "response_diversity"]
    published = {row["source"]: float(row["value"]) for row in rows}
    ours = [fmean(text_statistics(group)["distinct_2"] for group in chatanime[s].values()) for s in published]
    assert len(published) == 6
    assert spearmanr(ours, list(published.values())).statistic == pytest.approx(0.943, abs=0.0005)
    assert pearsonr(ours, list(published.values())).statistic == pytest.approx(0.959, abs=0.0005)


@pytest.mark.long
def test_people_are_the_most_varied_of_chatanimes_sources_by_every_statistic(chatanime: ChatAnime):
    sources = {}
    for source, characters in chatanime.items():
        each = [text_statistics(group) for group in characters.values()]
        sources[source] = {name: fmean(statistics[name] for statistics in each) for name in NOTHING}
    people = sources.pop("human")
    assert all(people["distinct_2"] > other["distinct_2"] for other in sources.values())
    assert all(people["self_bleu"] < other["self_bleu"] for other in sources.values())
    assert all(people["compression_ratio"] < other["compression_ratio"] for other in sources.values())
