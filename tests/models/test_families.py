"""Which family of models a name tells of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judge.models.checkpoint import FAMILIES, family, same_family


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3-8b", "Qwen"),
        ("Qwen/Qwen3-0.6B", "Qwen"),
        ("QwQ-32B", "Qwen"),
        ("deepseek-v3", "DeepSeek"),
        ("THUDM/chatglm3-6b", "GLM"),
        ("glm-4.5", "GLM"),
        ("gpt-4.1", "GPT"),
        ("gpt4o", "GPT"),
        ("o1-mini", "GPT"),
        ("claude-sonnet-4", "Claude"),
        ("google/gemma-3-4b", "Gemini"),
        ("doubao-1.5-pro", "Doubao"),
        ("minimax-text-01", "MiniMax"),
        ("abab6.5", "MiniMax"),
        ("meta-llama/Llama-3.1-8B", "Llama"),
        ("mistralai/Mixtral-8x7B", "Mistral"),
        ("01-ai/Yi-34B", "Yi"),
        ("Yi1.5", "Yi"),
        ("internlm2", "InternLM"),
        ("moonshot-v1", "Kimi"),
        ("ERNIE-4", "ERNIE"),
    ],
)
def test_names_tell_their_family(name: str, expected: str):
    assert family(name) == expected


@pytest.mark.parametrize("name", ["human", "STAND-IN", "the judge", "", "司弦", "yiddish-1b", "foo1", "glmx", "plain"])
def test_other_names_tell_of_none(name: str):
    assert family(name) is None


def test_every_way_to_begin_is_of_one_family():
    for name, starts in FAMILIES.items():
        for start in starts:
            assert family(start) == name


def test_the_sources_of_a_judges_family():
    sources = ["qwen-max", "human", "gpt-4.1", "QwQ"]
    assert same_family("Qwen/Qwen3-8B", sources) == ("qwen-max", "QwQ")
    assert same_family("llama-3", sources) == ()


def test_a_judge_of_no_family_shares_none_with_other_unknowns():
    assert same_family("STAND-IN", ["human", "plain"]) == ()


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=20))
def test_any_name_is_of_a_family_or_of_none(name: str):
    assert family(name) in {None, *FAMILIES}
    assert family(name.swapcase()) == family(name) or not name.isascii()
