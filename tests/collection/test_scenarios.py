"""Whose scenarios are played: each once, the same at every call, and rubbish refused by file and field."""

import json
import shutil
from pathlib import Path

import pytest

from judge import CollectOptions, InputError, collect, plan_collection
from judge.collection.role_prompt import load_role_prompt
from judge.collection.scenarios import choose, read_scenes
from judge.types import Turn
from tests.helpers.paths import EXAMPLE


def dialogue(source: str, *texts: str, character: str = "甲", scenario: str = "1", **more: str) -> str:
    sides = [f"{side}_r{number}" for number in range(1, 9) for side in ("question", "answer")]
    names = {"source": source, "character": character, "scenario": scenario}
    return json.dumps({**names, **dict(zip(sides, texts, strict=False)), **more})


def file_of(tmp_path: Path, *lines: str) -> list[Path]:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return [path]


def test_the_question_is_that_of_most_systems_and_follow_ups_those_of_the_first(tmp_path: Path) -> None:
    paths = file_of(
        tmp_path,
        dialogue("a", "另问", "答", "甲二", "答"),
        dialogue("d", "问", "答", "丁二", "答", profile="资料"),
        dialogue("c", "问", "答", "丙二", "答"),
        dialogue("b", "问", "答"),
    )
    (scene,) = read_scenes(paths).scenes
    assert (scene.question, scene.follow_ups, scene.profile) == ("问", ("丙二",), "资料")


def test_of_questions_that_are_asked_as_often_it_is_the_first_systems(tmp_path: Path) -> None:
    paths = file_of(tmp_path, dialogue("b", "乙问", "答"), dialogue("a", "甲问", "答"))
    (scene,) = read_scenes(paths).scenes
    assert scene.question == "甲问"


def test_the_packaged_example_has_thirty_six_scenarios() -> None:
    found = read_scenes(EXAMPLE)
    assert len(found.scenes) == 36 and found.sources == {"plain", "steady"}
    assert all(scene.profile and len(scene.follow_ups) == 1 for scene in found.scenes)
    assert [scene.scenario for scene in found.scenes[:12]] == [str(number) for number in range(1, 13)]


def test_chatanime_has_twelve_hundred(shared_data: Path) -> None:
    found = read_scenes(sorted((shared_data / "chatanime").glob("*.json")))
    assert len(found.scenes) == 1200 and len(found.sources) == 11
    assert {len(scene.follow_ups) for scene in found.scenes} == {1}


def test_a_limit_draws_the_same_scenarios_from_any_order(tmp_path: Path) -> None:
    scenes = read_scenes(EXAMPLE).scenes
    few, more = choose(scenes, limit=5), choose(scenes[::-1], limit=9)
    assert len(few) == 5 and set(few) < set(more) and few == [scene for scene in scenes if scene in few]
    who = scenes[0].character
    assert {scene.name for scene in choose(scenes, [who], ["1", "3"])} == {f"{who}/1", f"{who}/3"}
    for wrong in ({"characters": ["nobody"]}, {"scenarios": ["99"]}, {"limit": 0}):
        with pytest.raises(InputError, match=f"--{next(iter(wrong))}"):
            choose(scenes, **wrong)


def test_a_dialogue_that_the_character_begins_is_no_scenario(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    turns = [{"role": "assistant", "content": "你好"}, {"role": "user", "content": "嗯"}]
    path.write_text(
        json.dumps({"source": "a", "character": "甲", "scenario": "1", "messages": turns}), encoding="utf-8"
    )
    with pytest.raises(InputError, match="a/甲/1: begins without a question"):
        read_scenes([path])


WRONG = {
    "characters: [{name: 甲}]": "field scenarios",
    "characters: [{name: 甲}]\nscenarios: []": "no characters or no scenarios",
    "characters: [{name: 甲}, {name: 甲}]\nscenarios: [{id: 1, question: 问}]": "'甲' stands twice",
    "characters: [{name: 甲}]\nscenarios: [{id: 1, question: 问}, {id: '1', question: 问}]": "'1' stands twice",
    "characters: [{name: 甲}]\nscenarios: [{id: 1, question: ' '}]": "is empty",
    "characters: [{name: 甲}]\nscenarios: [{id: 1, question: 问, follow_ups: ['']}]": "is empty",
    'characters: [{name: "甲\\n乙"}]\nscenarios: [{id: 1, question: 问}]': "holds a line break",
    "characters: [{name: 甲, age: 3}]\nscenarios: [{id: 1, question: 问}]": "age",
    "characters: [{name: 3}]\nscenarios: [{id: 1, question: 问}]": "characters.0.name",
    "characters: {": "not YAML",
    "a: &a [1]\nb: *a": "alias",
    "": "holds no fields",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_of_scenarios_that_is_wrong_is_refused_by_its_field(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scenarios.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_scenes([path])
    assert str(path) in str(error.value) and WRONG[text] in str(error.value)


def test_a_file_of_scenarios_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stands alone"):
        read_scenes([*EXAMPLE, tmp_path / "scenarios.yaml"])
    with pytest.raises(InputError, match="missing"):
        read_scenes([tmp_path / "scenarios.yaml"])


def test_names_and_texts_are_put_into_the_prompt_as_they_are() -> None:
    for language in ("zh", "en"):
        prompt = load_role_prompt(language=language)
        system, asked = prompt.for_character("{user}", "{dialogue}\n%s", [Turn("{character}", None)])
        assert "{user}" in system.content and system.content.endswith("{dialogue}\n%s")
        assert (asked.role, asked.content) == ("user", "{character}")
        _, transcript = prompt.for_user("甲", [Turn("{text}", "{}")])
        assert "{text}" in transcript.content and "甲" in transcript.content and "{}" in transcript.content
        assert "{" not in prompt.for_character("甲", None, [])[0].content


def test_a_prompt_of_ones_own_takes_the_place_of_ours(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(__file__).parents[2] / "prompts" / "collect", tmp_path / "mine"))
    assert load_role_prompt(folder) == load_role_prompt() and load_role_prompt(folder / "en.yaml").language == "en"
    text = (folder / "zh.yaml").read_text(encoding="utf-8")
    for changed, named in (
        (text.replace("{profile}", "资料"), "field profile"),
        (text.replace("{dialogue}", "{dialog}"), "field transcript"),
        (text.replace("language: zh", "language: ''"), "field language"),
        (text.replace("profile:", "profil:"), "profil"),
        (text.replace("请你扮演", "\ue000"), "mark slots"),
    ):
        (folder / "zh.yaml").write_text(changed, encoding="utf-8")
        with pytest.raises(InputError, match=named):
            load_role_prompt(folder)
    with pytest.raises(InputError, match="--language fr"):
        load_role_prompt(folder, "fr")
    with pytest.raises(InputError, match="missing"):
        load_role_prompt(folder / "none.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no prompts in it"):
        load_role_prompt(tmp_path / "empty")


def test_a_plan_counts_what_would_be_asked() -> None:
    plan = plan_collection([], CollectOptions(model="stand-in", limit=5, rounds=3))
    assert (plan.dialogues, plan.replies, plan.user_replies, plan.fewer) == (5, 15, 10, 0)
    recorded = plan_collection([], CollectOptions(model="stand-in", limit=5, rounds=3, follow_up="recorded"))
    assert (recorded.replies, recorded.user_replies, recorded.fewer) == (10, 0, 5)
    assert [message.role for message in plan.first] == ["system", "user"]


def test_a_model_that_is_not_there_is_refused_by_the_option_that_named_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--model nowhere: neither a preset"):
        collect([], CollectOptions(model="nowhere", out=tmp_path / "out"))
    with pytest.raises(InputError, match=r"^--user-model nowhere: neither a preset"):
        collect([], CollectOptions(model="stand-in", user_model="nowhere", out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rounds": 0}, "--rounds"),
        ({"follow_up": "none"}, "--follow-up"),
        ({"temperature": -1.0}, "--temperature"),
        ({"top_p": 0.0}, "--top-p"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"concurrency": 3}, "--concurrency"),
        ({"engine": "server"}, "--engine"),
        ({"model": "auto"}, "no model is named"),
        ({"follow_up": "recorded", "user_model": "x"}, "--user-model"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        CollectOptions(**{"model": "stand-in", **wrong})
