from dataclasses import replace

from judge.types import Dialogue, Judgment, Turn, digest
from tests.helpers.chatanime import DIMENSIONS, METRICS

DIALOGUE = Dialogue("gpt", "《铜城》的司弦", "3", (Turn("累", "歇一歇"), Turn("好", "嗯")))


def test_nine_metrics_stand_in_three_dimensions() -> None:
    assert len(METRICS) == len(set(METRICS)) == 9
    assert [len(metrics) for metrics in DIMENSIONS.values()] == [3, 3, 3]


def test_score_is_the_expected_level() -> None:
    assert Judgment({1: 0.1, 2: 0.0, 3: 0.2, 4: 0.3, 5: 0.4}, 0.9).score == 0.1 + 0.6 + 1.2 + 2.0


def test_a_missing_judgment_has_no_score() -> None:
    assert Judgment(None, None, "too_long").score is None


def test_content_digest_changes_with_what_a_judge_reads_and_nothing_else() -> None:
    read = [
        replace(DIALOGUE, character="别人"),
        replace(DIALOGUE, profile=""),
        replace(DIALOGUE, turns=DIALOGUE.turns[::-1]),
        replace(DIALOGUE, turns=(Turn("累歇", "一歇"), Turn("好", "嗯"))),
    ]
    assert len({DIALOGUE.content_digest, *(other.content_digest for other in read)}) == 5
    assert replace(DIALOGUE, source="other", scenario="9").content_digest == DIALOGUE.content_digest


def test_digest_is_the_same_on_every_machine_and_for_every_order_of_keys() -> None:
    assert digest({"b": 1, "a": "中"}) == digest({"a": "中", "b": 1}) == "d8158d9a7acf211407d1309876015fc6"
    assert digest(["中"], 12) == "c2fca499a262"
