"""What stands before the digit of a level: found by label mass, remembered and recorded; or refused."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from judge import Options, load_judgments, score
from judge.engines import Array, Failure
from judge.errors import UnfitJudge
from judge.models.hardware import detect
from judge.prompting.prompt_tree import BLANKS, Ids, PromptTree
from judge.scoring import setup
from judge.scoring.judge import Judge
from judge.scoring.setup import open_judge, open_model
from judge.types import TOO_LONG, Dialogue
from tests.helpers.commands import refused, typed


class Writes:
    """An engine of a model that writes a level with these label masses, by what the prompt ends with."""

    window, max_tokens, name, report = 1, 10**6, "fake", {"name": "fake"}

    def __init__(self, ends: dict[str, Ids], masses: dict[str, float]) -> None:
        self.ends, self.masses, self.calls = ends, masses, 0

    def verify(self, tree: PromptTree) -> None:
        """Right by definition."""

    def _form(self, leaf: Ids) -> str:
        # The longest end that fits, as every leaf ends with nothing.
        return max((name for name, end in self.ends.items() if leaf[len(leaf) - len(end) :] == end), key=self._length)

    def _length(self, name: str) -> int:
        return len(self.ends[name])

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array | Failure]:
        self.calls += 1
        masses = [[self.masses[self._form(leaf)] for leaf in tree.leaves] for tree in trees]
        return [np.log(np.repeat(np.array(row)[:, None], 5, axis=1) / 5) for row in masses]

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Ids]]:
        return [[self.ends["level"][:max_tokens] for _ in tree.leaves] for tree in trees]


Asked = Callable[..., tuple[Judge, Writes]]


@pytest.fixture
def asked(nameless: Path, short_rubric: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """A judge of such a model, with the engine: ``asked(none=…, space=…, newline=…, level=…, options…)``."""
    monkeypatch.setenv("ESRP_CACHE", str(tmp_path / "cache"))

    def made(masses: dict[str, float], **more: object) -> tuple[Judge, Writes]:
        options = Options(judge=str(nameless), rubric=short_rubric, **more)  # type: ignore[arg-type]
        tokenizer = open_model(options, detect()).tokenizer
        engine = Writes({name: tokenizer.encode(text) for name, text in FORMS.items()}, masses)
        monkeypatch.setattr(setup, "_engine", lambda *asked: lambda: engine)
        return open_judge(options, open_model(options, detect())), engine

    return made


FORMS = {**BLANKS, "level": "第 "}
LOW = dict.fromkeys(FORMS, 0.1)


def test_the_first_form_with_enough_mass_is_taken_or_else_the_one_with_most(asked: Asked) -> None:
    judge, _ = asked({**LOW, "space": 0.96, "level": 0.99})
    assert judge.answer_form.name == "space"
    assert judge.answer_form.masses == pytest.approx({**LOW, "space": 0.96, "level": 0.99})


def test_without_enough_mass_the_form_with_most_is_taken(asked: Asked) -> None:
    assert asked({**LOW, "none": 0.85, "level": 0.9})[0].answer_form.name == "level"


def test_what_was_found_is_remembered_until_a_prompt_changes(asked: Asked, nameless: Path) -> None:
    masses = {**LOW, "newline": 1.0}
    assert asked(masses)[1].calls > 0
    judge, engine = asked(masses)
    assert (judge.answer_form.name, engine.calls) == ("newline", 0)
    assert asked(masses, layout="question")[1].calls > 0
    assert asked(masses, orderings=2)[1].calls > 0


def test_a_note_that_is_damaged_is_found_anew(asked: Asked, tmp_path: Path) -> None:
    asked({**LOW, "level": 1.0})
    (note,) = (tmp_path / "cache" / "answer_forms").iterdir()
    note.write_text("{", encoding="utf-8")
    judge, engine = asked({**LOW, "space": 1.0})
    assert engine.calls > 0 and judge.answer_form.name == "space"


def test_the_leaves_end_with_the_form_and_the_levels_follow_it(asked: Asked, example: list[Dialogue]) -> None:
    judge, _ = asked({**LOW, "level": 1.0})
    writer = judge.writers[0]
    leaf = writer.tokenizer.text(writer.dialogue(example[0], ["fluency"]).leaves[0])
    assert leaf.endswith(FORMS["level"])
    assert [writer.tokenizer.text(ids[:1]).strip() for ids in judge.level_ids] == list("12345")


def test_a_form_is_part_of_the_identity_and_none_is_what_there_was_before(asked: Asked) -> None:
    found = {form: asked(LOW, answer_form=form)[0].identity for form in FORMS}
    assert len({identity.judge_id for identity in found.values()}) == len(FORMS)
    recorded = json.loads(json.dumps(asdict(found["none"])))
    del recorded["answer_form"]  # as a run has it that was made before there were forms
    assert found["none"].differences(recorded) == []
    assert found["space"].differences(recorded) == ["answer_form"]


def test_a_form_that_is_given_is_not_tried(asked: Asked) -> None:
    judge, engine = asked(LOW, answer_form="newline")
    assert (judge.answer_form.name, judge.answer_form.masses, engine.calls) == ("newline", {}, 0)


def test_where_no_form_will_do_the_message_says_what_each_gives_and_what_is_written_instead(asked: Asked) -> None:
    with pytest.raises(UnfitJudge) as error:
        asked({"none": 0.02, "space": 0.5, "newline": 0.03, "level": 0.04})
    for part in ("none 0.02", "space 0.5", "newline 0.03", "level 0.04", "under 0.8", "would write '第", "--min-mass"):
        assert part in str(error.value)
    assert asked({"none": 0.02, "space": 0.5, "newline": 0.03, "level": 0.04}, min_mass=0.4)[0].answer_form.name == (
        "space"
    )


def test_trees_that_an_engine_cannot_answer_do_not_count(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writes, "level_logprobs", lambda self, trees, level_ids: [Failure(TOO_LONG)] * len(trees))
    assert asked(LOW)[0].answer_form.name == "none"


def test_a_run_records_its_form_and_goes_on_with_it(nameless: Path, short_rubric: Path, tmp_path: Path) -> None:
    options = Options(judge=str(nameless), rubric=short_rubric, run=tmp_path / "run", limit=2, answer_form="space")
    score([], replace(options, min_mass=0.0))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["identity"]["answer_form"] == "space"
    before = load_judgments(tmp_path / "run")
    score([], replace(options, min_mass=0.0))
    assert load_judgments(tmp_path / "run").equals(before)
    other = ("--judge", nameless, "--prompts", short_rubric, "--run", tmp_path / "run", "--limit", "2")
    refused(typed("score", *other, "--answer-form", "none", cwd=tmp_path), "differs", "answer_form")


def test_a_base_model_is_asked_in_paragraphs_and_the_run_says_so(
    nameless: Path, short_rubric: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(nameless, tmp_path / "base"))
    (base / "chat_template.jinja").unlink()
    asked = ("score", "--judge", base, "--prompts", short_rubric, "--limit", "2", "--min-mass", "0")
    done = typed(*asked, "--run", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "has no chat template (a base model)" in done.stderr
    assert len(load_judgments(tmp_path / "run")) == 18
