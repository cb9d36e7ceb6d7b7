"""No text can leave its slot: over three kinds of tokenizers, and as messages for a server.

``make torture`` does the same with texts by the hundred thousand.
"""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from judge.prompting.message_tokenizer import ANSWER, BRACKETS, SYSTEM, USER, TextTokenizer, messages
from judge.prompting.prompt_tree import QUOTE, PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from tests.helpers.chatanime import METRICS
from tests.torture.guard import REAL, failures, guarded, naive, slots
from tests.torture.hostile import CONTROLS, texts
from tests.torture.tokenizers import FORMS, folders

NAMES = ["chatml", "llama", "unigram"]
SHORT = 400


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return folders(tmp_path_factory.mktemp("tokenizers"))


@pytest.mark.parametrize("name", NAMES)
def test_a_slot_holds_its_text_and_nothing_else_whatever_it_says(homes: dict[str, Path], name: str) -> None:
    tokenizer = JudgeTokenizer(homes[name])
    assert list(failures(slots(guarded(tokenizer), tokenizer, FORMS[name]), SHORT, seed=3)) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", [False, True])
def test_a_prompt_encoded_as_one_string_does_not_hold(homes: dict[str, Path], name: str, split: bool) -> None:
    """Neither does transformers' own remedy, ``split_special_tokens``."""
    tokenizer, fast = JudgeTokenizer(homes[name]), AutoTokenizer.from_pretrained(homes[name])
    encoded = naive(tokenizer, lambda t: fast.encode(t, add_special_tokens=False, split_special_tokens=split))
    found = list(failures(slots(encoded, tokenizer, FORMS[name]), SHORT // 2, seed=3))
    assert any("a control token" in one for one in found)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(CONTROLS), st.text(max_size=5)), max_size=8).map("".join))
def test_no_text_reads_otherwise_than_it_is_written(homes: dict[str, Path], text: str) -> None:
    for name in NAMES[1:]:
        tokenizer = _loaded(homes[name])
        ids = tokenizer.encode_untrusted(text)
        assert not tokenizer.control_ids.intersection(ids)
        said = tokenizer.trusted.decode([*tokenizer.encode("天"), *ids], skip_special_tokens=False)
        assert said == "天" + FORMS[name](text)


LOADED: dict[Path, JudgeTokenizer] = {}


def _loaded(folder: Path) -> JudgeTokenizer:
    return LOADED.setdefault(folder, JudgeTokenizer(folder))


def test_text_that_spells_a_byte_is_not_that_byte(homes: dict[str, Path]) -> None:
    tokenizer = JudgeTokenizer(homes["unigram"])
    line_break = tokenizer.trusted.token_to_id("<0x0A>")
    assert tokenizer.untrusted.encode("<0x0A>").ids == [line_break]  # a naive encoder is fooled
    for text in ("<0x0A>", "好<0x0A>好", "＜0x0A＞", "<0x0A><0x0A>"):
        assert line_break not in tokenizer.encode_untrusted(text)
    assert tokenizer.encode_untrusted("\n") == (line_break,)


def test_no_blank_stands_before_a_text_in_the_midst_of_a_prompt(homes: dict[str, Path]) -> None:
    tokenizer = JudgeTokenizer(homes["llama"])
    assert tokenizer.trusted.encode("你好", add_special_tokens=False).tokens[0].startswith("▁")
    assert [tokenizer.trusted.id_to_token(i) for i in tokenizer.encode_untrusted("你好")] == ["你", "好"]


@pytest.mark.parametrize("name", NAMES)
def test_source_and_scenario_are_not_in_a_prompt(homes: dict[str, Path], name: str) -> None:
    writer = PromptWriter(load_rubric("zh"), JudgeTokenizer(homes[name]))
    renamed = replace(REAL, source="<|im_end|>", scenario="</s>")
    assert writer.dialogue(renamed, METRICS) == writer.dialogue(REAL, METRICS)


@pytest.mark.parametrize("layout", ["question", "separate"])
def test_messages_for_a_server_are_two_and_spell_no_control_token(layout: str) -> None:
    writer = PromptWriter(load_rubric("zh"), TextTokenizer(), layout)
    empty = messages(writer.dialogue(replace(REAL, profile=""), ["fluency"]).prompt(0))
    head, tail = empty[1]["content"].split(f"\n{QUOTE}\n", 1)
    for text in texts(2000, seed=4):
        system, user = messages(writer.dialogue(replace(REAL, profile=text), ["fluency"]).prompt(0))
        assert (system["role"], user["role"]) == ("system", "user") and system == empty[0]
        content = user["content"]
        assert content.startswith(f"{head}\n{QUOTE}") and content.endswith(f"\n{tail}")
        said = content[len(head) : len(content) - len(tail)]
        assert not any(mark in content for mark in SYSTEM + USER + ANSWER)
        assert all(line.startswith(QUOTE) for line in said.strip("\n").split("\n"))
        for form in ("NFC", "NFKC"):
            assert not set(unicodedata.normalize(form, said.replace(QUOTE, ""))) & set("<>[]")


def test_every_character_that_a_normaliser_makes_a_bracket_is_replaced() -> None:
    everything = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    brackets = {char for char in everything if set(unicodedata.normalize("NFKC", char)) & set("<>[]")}
    assert brackets == set("".join(BRACKETS))


def test_texts_are_the_same_for_a_seed_and_hold_no_half_characters() -> None:
    once, again, other = list(texts(300, 1)), list(texts(300, 1)), list(texts(300, 2))
    assert once == again != other
    "".join(once).encode("utf-8")
