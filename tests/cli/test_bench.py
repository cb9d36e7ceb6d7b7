"""The benchmark's arithmetic and its table; nothing here is timed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.table import BEGIN, END, inserted, markdown, ratios, summarise
from benchmarks.tokens import unique_tokens

ENTRY = {"key": "packed", "title": "packed", "remark": "As it is."}


def _repeat(seconds: float, judgments: int = 90, failed: int = 0, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "judgments": judgments, "failed": failed, "peak_mb": 500, **more}


def _results(*contestants: dict[str, Any]) -> dict[str, Any]:
    measured = {
        "date": "2025-01-01",
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 24, "system": "Linux", "python": "3.11"},
        "versions": {"torch": "2.13.0"},
        "data": "200 dialogues of ChatAnime",
        "model": {"parameters": 7_800_000, "is_random": True},
        "vllm": {
            "chosen": {"dtype": "float32", "block_size": 32},
            "tried": [
                {"dtype": "float32", "block_size": 32, **_repeat(3)},
                {"dtype": "bfloat16", "block_size": None, "error": "lost"},
            ],
        },
        "contestants": contestants,
    }
    return {"qwen3": measured, "gemma": {"error": "not installed"}}


def test_what_prompts_share_counts_once() -> None:
    assert unique_tokens([]) == 0
    assert unique_tokens([(1, 2, 3), (1, 2, 4), (1, 2)]) == 4
    assert unique_tokens([(1, 2), (2, 1), (1, 2)]) == 4


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=8))
def test_unique_tokens_are_the_different_beginnings(prompts: list[list[int]]) -> None:
    beginnings = {tuple(prompt[:length]) for prompt in prompts for length in range(1, len(prompt) + 1)}
    assert unique_tokens(prompts) == len(beginnings)


def test_a_rate_is_the_median_of_the_repeats_and_counts_only_judgments_with_a_score() -> None:
    figures = summarise(ENTRY, [_repeat(1), _repeat(3), _repeat(9), {"error": "lost"}])
    assert figures["rate"] == {"median": 30, "min": 10, "max": 90}
    assert summarise(ENTRY, [_repeat(9, failed=45)])["rate"]["median"] == 5


def test_ratios_are_to_packed_and_none_for_what_has_no_rate() -> None:
    slow = summarise({**ENTRY, "key": "slow"}, [_repeat(30)])
    never = summarise({**ENTRY, "key": "never"}, [_repeat(30, failed=90)])
    broken = summarise({**ENTRY, "key": "broken"}, [{"error": "lost"}])
    assert ratios([summarise(ENTRY, [_repeat(1)]), slow, never, broken]) == {"packed": 1, "slow": 30}
    assert ratios([slow]) == {}
    assert ratios([slow, summarise({**ENTRY, "key": "forked"}, [_repeat(15)])]) == {"slow": 2, "forked": 1}


def test_the_table_shows_what_was_computed_beside_what_had_to_be_and_says_why_a_contestant_failed() -> None:
    packed = summarise(ENTRY, [_repeat(3, unique_tokens=2000, computed_tokens=2100, forward_seconds=2.7)])
    broken = summarise({**ENTRY, "key": "broken", "title": "broken"}, [{"error": "no such package"}])
    text = markdown(_results(packed, broken))
    assert "| packed | 90 | 30.0 (30.0–30.0) | 1.0 × | 2,000 | 1.05 | 500 | 0 |" in text
    assert (
        "float32 and blocks of 32 tokens, the fastest of those tried (float32 and blocks of 32 tokens: 30.0/s)." in text
    )
    assert "90% of the time is inside the model" in text
    assert "7.8 million random weights; 200 dialogues of ChatAnime, nine metrics each. vLLM with float32" in text
    assert "### gemma\n\nNot measured: not installed" in text
    assert "- broken: As it is. **No score**: no such package" in text


def test_the_table_replaces_the_one_before_and_nothing_else() -> None:
    page = f"# Above\n\n{BEGIN}\nold\n{END}\n\nbelow\n"
    assert inserted(page, "new") == f"# Above\n\n{BEGIN}\nnew\n{END}\n\nbelow\n"
    assert inserted(inserted("# Above\n", "one"), "two") == f"# Above\n\n{BEGIN}\ntwo\n{END}\n"
