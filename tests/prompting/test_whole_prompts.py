"""Every prompt holds the rubric and the dialogue, whole and once; a judge that would be asked otherwise is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from judge import load_judgments
from judge.data.dialogues import example_dialogues
from judge.models.stand_in import CHAT_TEMPLATE
from judge.prompting.chat_tokenizer import bare
from judge.prompting.prompt_tree import PromptWriter
from judge.prompting.rubric import load_rubric
from judge.prompting.safe_tokenizer import JudgeTokenizer
from tests.helpers.chatanime import METRICS
from tests.helpers.commands import Result, refused, typed

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WITHOUT_SYSTEM = CHATML.replace("messages %}", "messages if m.role != 'system' %}") + OPENED
TEMPLATES = {
    "drops system messages": WITHOUT_SYSTEM,
    "cuts system messages": CHATML.replace("m.content", "m.content[:200] if m.role == 'system' else m.content")
    + OPENED,
    "prints them behind the user's": CHATML.replace("messages %}", "messages if m.role != 'system' %}")
    + "{{ messages[0].content if messages[0].role == 'system' }}"
    + OPENED,
    "takes blanks away": CHATML.replace("m.content", "m.content | trim") + OPENED,
}
"""Templates by which the rubric is asked for all the same: where it is not whole it stands in the user's message."""
BAD = {
    "drops all but the last line": CHATML.replace("m.content", "m.content.split('\\n')[-1]") + OPENED,
    "cuts every message": CHATML.replace("m.content", "m.content[-200:]") + OPENED,
    "doubles system messages": CHATML.replace("m.content", "m.content * (2 if m.role == 'system' else 1)") + OPENED,
    "repeats them behind": CHATML + "{{ messages[0].content if messages[0].role == 'system' }}" + OPENED,
    "rewrites them": CHATML.replace("m.content", "m.content | replace('。', '')") + OPENED,
    "doubles the user's": CHATML.replace("m.content", "m.content * (2 if m.role == 'user' else 1)") + OPENED,
    "drops the user's": CHATML.replace("m.content", "'' if m.role == 'user' else m.content") + OPENED,
}


@pytest.fixture
def judge(nameless: Path, tmp_path: Path) -> Path:
    """A judge of the user's own, in a folder that may be changed."""
    return Path(shutil.copytree(nameless, tmp_path / "my-judge"))


def with_template(judge: Path, template: str) -> Path:
    (judge / "chat_template.jinja").write_text(template, encoding="utf-8")
    return judge


def ask(judge: Path, *more: str) -> tuple[object, ...]:
    few = ("--metrics", "fluency", "--limit", "2", "--layout", "prefill", "--answer-form", "none", "--no-report")
    return ("score", "--judge", judge, "--run", judge.parent / "run", *few, *more, "--min-mass", "0")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_rubric_that_a_template_leaves_out_is_asked_for_in_the_users_message(judge: Path, name: str) -> None:
    rubric = load_rubric("zh")
    rules = bare(rubric.texts.rules)
    tokenizer = JudgeTokenizer(with_template(judge, TEMPLATES[name]))
    for one in example_dialogues()[:3]:
        for prompt in PromptWriter(rubric, tokenizer).dialogue(one, METRICS).prompts:
            text = bare(tokenizer.text(prompt))
            assert text.count(rules) == 1 and text.index(rules) < text.index(bare(str(one.turns[0].user)))
            assert all(text.count(bare(rubric.section(metric))) == 1 for metric in rubric.metrics.values())
    result = typed(*ask(judge), "--json", cwd=judge.parent)
    assert result.returncode == 0 and json.loads(result.stdout)["judgments"] == 2


@pytest.mark.parametrize("name", BAD)
def test_a_template_that_drops_doubles_or_cuts_is_refused_before_anything_is_scored(judge: Path, name: str) -> None:
    result = typed(*ask(with_template(judge, BAD[name])), cwd=judge.parent)
    refused(result, "its chat template", "correct the template" if "user" not in name else "user's message once")
    assert not (judge.parent / "run").exists()
    with_template(judge, CHAT_TEMPLATE)
    assert typed(*ask(judge), cwd=judge.parent).returncode == 0


@pytest.mark.parametrize(
    "limit",
    [
        {"truncation": {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}},
        {
            "padding": {
                "strategy": {"Fixed": 64},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<|endoftext|>",
            }
        },
    ],
)
def test_the_length_of_texts_in_training_neither_cuts_nor_fills_up_prompts(
    stand_in: Path, judge: Path, limit: dict[str, object]
) -> None:
    path = judge / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **limit}), encoding="utf-8")
    trees = [
        PromptWriter(load_rubric("zh"), JudgeTokenizer(folder)).dialogue(example_dialogues()[0], METRICS)
        for folder in (stand_in, judge)
    ]
    assert trees[0] == trees[1]


class Cutting(JudgeTokenizer):
    """A tokenizer that cuts every text of a dialogue."""

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        return super().encode_untrusted(text)[:20]


class Doubling(JudgeTokenizer):
    """One that says every text of a dialogue twice."""

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        return super().encode_untrusted(text) * (2 if len(text) > 1 else 1)


class Dropping(JudgeTokenizer):
    """One that has no Chinese, as Llama's class had none for a vocabulary of DeepSeek's."""

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        return super().encode_untrusted("".join(char for char in text if char.isascii()))


class WithoutHangul(JudgeTokenizer):
    """One that has no Korean."""

    def encode_untrusted(self, text: str) -> tuple[int, ...]:
        return super().encode_untrusted("".join(char for char in text if not "가" <= char <= "힣"))


def test_a_dialogue_of_letters_that_a_tokenizer_lacks_is_a_missing_judgment_unless_all_are_so(
    judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judge.models.checkpoint.JudgeTokenizer", WithoutHangul)

    def asked(*answers: str) -> Result:
        rows = [
            {"source": source, "character": "阿福", "scenario": str(i), "question_r1": "你好", "answer_r1": answer}
            for i, answer in enumerate(answers)
            for source in answer[:1]
        ]
        data = judge.parent / "data.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        how = ("--metrics", "fluency,response_diversity", "--layout", "prefill", "--answer-form", "none")
        run = judge.parent / "run"
        return typed("score", data, "--judge", judge, "--run", run, *how, "--min-mass", "0", cwd=judge.parent)

    korean = "안녕하세요 저는 아푸입니다 " * 5
    alone = asked(korean, korean)
    assert alone.returncode == 2 and not (judge.parent / "run").exists()
    assert re.search(
        r"no dialogue can be judged: .* cannot write \d+ of the \d+ characters of the dialogue 안/阿福/0; use another",
        alone.stderr.splitlines()[-1],
    )
    mixed = asked("今天天气很好", "今天我很高兴", korean, korean + "요")
    assert mixed.returncode == 1 and "missing: 3 judgments, unknown_letters" in mixed.stdout, mixed.stderr
    found = load_judgments(judge.parent / "run")
    assert set(found.loc[found["error"].notna(), "source"]) == {"안"} and found["score"].notna().sum() == 2
    assert "unknown_letters" in (judge.parent / "run" / "report.html").read_text(encoding="utf-8")
    assert asked("今天天气很好", "今天我很高兴", korean, korean + "요").returncode == 1  # and judges nothing again


@pytest.mark.parametrize(
    ("kind", "said"), [(Cutting, "as it stands"), (Doubling, "as it stands"), (Dropping, "cannot write")]
)
def test_a_tokenizer_that_cuts_doubles_or_lacks_a_dialogue_is_refused(
    judge: Path, monkeypatch: pytest.MonkeyPatch, kind: type[JudgeTokenizer], said: str
) -> None:
    monkeypatch.setattr("judge.models.checkpoint.JudgeTokenizer", kind)
    result = typed(*ask(judge), cwd=judge.parent)
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert "its tokenizer" in line and said in line and "the dialogue" in line and "use another judge" in line
