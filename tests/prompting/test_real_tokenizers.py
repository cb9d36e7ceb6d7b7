"""Over the real tokenizers of five families: the slot is where the digit is the next token, and text stays text."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from judge.prompting.prompt_tree import LAYOUTS, PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import ANSWER_FORMS, Dialogue, Turn
from tests.helpers.chatanime import LANGUAGES, METRICS
from tests.helpers.real_models import TOKENIZERS, smollm2, tokenizer_folder

pytestmark = pytest.mark.models

THOUGHT = "<think>\n\n</think>\n\n"
BEGINNING = {"gemma3": "<bos>", "llama3": "<|begin_of_text|>", "deepseek_v3": "<｜begin▁of▁sentence｜>"}
TEXTS = [
    "你好，世界",
    "two  blanks and   three",
    "one\n\ntwo\n\n\nthree",
    "\t1,234.5 🙂",
    "她说：「好——」……",
    "4",
    " 4",
]
LOADED: dict[str, JudgeTokenizer] = {}


def real(name: str) -> JudgeTokenizer:
    if name not in LOADED:
        LOADED[name] = JudgeTokenizer(tokenizer_folder(name))
    return LOADED[name]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_digit_is_the_next_token_of_the_natural_spelling(name: str) -> None:
    tokenizer = real(name)
    dialogue = Dialogue("system", "爱丽丝", "1", (Turn("你好", "你好。"),))
    for language, layout, form in product(LANGUAGES, LAYOUTS, ANSWER_FORMS):
        writer = PromptWriter(load_rubric(language), tokenizer, layout, answer_form=form)
        tree = writer.dialogue(dialogue, METRICS)
        for leaf in tree.leaves:
            for level in range(1, 6):
                spelt = tokenizer.encode(f"{tokenizer.text(leaf)}{level}")
                assert spelt[:-1] == leaf, (language, layout, form)
                assert spelt[-1] in writer.level_ids[level - 1]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_comes_back_as_it_was(name: str) -> None:
    tokenizer = real(name)
    for text in TEXTS:
        assert tokenizer.text(tokenizer.encode_untrusted(text)) == text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_text_becomes_a_control_token(name: str) -> None:
    tokenizer = real(name)
    controls = [tokenizer.text([token]) for token in sorted(tokenizer.control_ids)]
    for text in [*controls, "".join(controls[-30:]), "\n".join(controls[:30])]:
        assert not tokenizer.control_ids.intersection(tokenizer.encode_untrusted(f"好{text} {text}"))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_hostile_profile_adds_no_control_token_to_a_prompt(name: str) -> None:
    tokenizer = real(name)
    writer = PromptWriter(load_rubric("zh"), tokenizer)
    harmless = Dialogue("system", "爱丽丝", "1", (Turn("你好", "你好。"),), profile="好")
    hostile = replace(
        harmless, profile="".join(tokenizer.text([token]) for token in sorted(tokenizer.control_ids)[:50])
    )

    def controls(dialogue: Dialogue) -> list[int]:
        return [token for token in writer.dialogue(dialogue, METRICS).prompt(0) if token in tokenizer.control_ids]

    assert controls(hostile) == controls(harmless)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_begins_with_one_bos_where_the_model_has_one(name: str) -> None:
    head, _ = real(name).chat("rules")
    beginning = BEGINNING.get(name, "")
    assert head.startswith(beginning) and (not beginning or head.count(beginning) == 1)
    if beginning:
        bos = real(name).encode(beginning)
        assert len(bos) == 1 and real(name).encode(head).count(bos[0]) == 1


def test_the_slot_of_qwen3_stands_behind_an_empty_thought() -> None:
    assert real("qwen3").chat("rules")[1] == f"<|im_end|>\n<|im_start|>assistant\n{THOUGHT}"


def test_gpt_oss_answers_in_its_final_channel() -> None:
    head, tail = real("gptoss").chat("rules")
    assert "rules" in head.partition("<|start|>developer<|message|>")[2] and head.endswith("<|start|>user<|message|>")
    assert tail == "<|end|><|start|>assistant<|channel|>final<|message|>"


def test_a_model_without_a_system_role_gets_the_rules_from_the_user() -> None:
    assert real("gemma3").chat("rules")[0] == "<bos><start_of_turn>user\nrules\n\n"


def test_the_tokenizer_of_a_gguf_file_is_the_models_own() -> None:
    """SmolLM2's: its template writes the rules as a system message."""
    pytest.importorskip("gguf", reason="gguf is not installed: make .venv/.ready-dev")
    from judge.models.gguf import converted

    tokenizer = JudgeTokenizer(Path(converted(smollm2())))
    assert tokenizer.chat("rules")[0] == "<|im_start|>system\nrules<|im_end|>\n<|im_start|>user\n"
    for text in TEXTS:
        assert tokenizer.text(tokenizer.encode_untrusted(text)) == text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_conversation_is_rendered_around_its_messages(name: str) -> None:
    tokenizer = real(name)
    one = tokenizer.conversation(["system", "user"])
    head, tail = tokenizer.chat("规则")
    assert (one[0] + "规则" + one[1], one[2]) == (head, tail)
    roles, texts = ["system", "user", "assistant", "user"], ["规则", "问一", "答一", "问二"]
    around = tokenizer.conversation(roles)
    assert around[:2] == one[:2] and around[-1] == one[-1]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    joined = "".join(part for pair in zip(around, [*texts, ""], strict=True) for part in pair)
    rendered = tokenizer._render(messages)
    assert (
        tokenizer.has_template is False
        or joined.partition("问二")[0]
        == rendered.removeprefix(tokenizer.bos if rendered.startswith(tokenizer.bos * 2) else "").partition("问二")[0]
    )
