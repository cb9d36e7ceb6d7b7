"""The rubric files: whole, distinct, and every fault named by file and field."""

import shutil
from importlib import resources
from pathlib import Path

import pytest
import yaml

from judge.errors import InputError
from judge.prompting.rubric import load_rubric
from tests.helpers.chatanime import LANGUAGES, LEVELS, METRICS


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the Chinese rubric to break."""
    return Path(shutil.copytree(str(resources.files("prompts") / "chatanime" / "zh"), tmp_path / "own"))


def change(path: Path, **fields: object) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) | fields
    kept = {name: value for name, value in content.items() if value is not ...}
    path.write_text(yaml.safe_dump(kept, allow_unicode=True), encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_metric_has_a_definition_and_five_different_anchors(language: str) -> None:
    rubric = load_rubric(language)
    assert tuple(rubric.metrics) == METRICS
    for metric in rubric.all_metrics:
        assert tuple(metric.levels) == LEVELS
        assert len({metric.definition, *metric.levels.values()}) == 6
        assert metric.title in metric.question and metric.answer.startswith(metric.title)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_definition_sends_the_rater_to_a_neighbouring_metric(language: str) -> None:
    metrics = load_rubric(language).metrics
    titles = {metric.title for metric in metrics.values()}
    pointing = [m.id for m in metrics.values() if any(title in m.definition for title in titles - {m.title})]
    assert set(METRICS) - set(pointing) == {"fluency"}  # fluency sends what is not language to all the others


def test_levels_are_listed_upwards_or_downwards() -> None:
    rubric = load_rubric("zh")
    up, down = (rubric.section(rubric.metrics["fluency"], ascending) for ascending in (True, False))
    assert up.splitlines()[-5:] == down.splitlines()[-5:][::-1]
    assert up.splitlines()[-5].startswith("1 分：")


def test_a_users_own_folder_is_used_and_changes_the_digest(own: Path) -> None:
    assert load_rubric("zh", own).digest == load_rubric("zh").digest
    change(own / "fluency.yaml", title="通顺")
    changed = load_rubric("zh", own)
    assert changed.metrics["fluency"].title == "通顺"
    assert changed.digest != load_rubric("zh").digest


FAULTS = {
    "definition": ({"definition": ...}, "field definition: field required"),
    "extra": ({"colour": "red"}, "field colour: unexpected"),
    "kind": ({"title": 5}, "field title: input should be a valid string"),
    "levels": ({"levels": {1: "a", 2: "b", 3: "c", 4: "d"}}, "field levels: has [1, 2, 3, 4]"),
    "level kind": ({"levels": {"one": "a"}}, "field levels.one"),
    "id": ({"id": "flow"}, "field id: is 'flow', not 'fluency'"),
    "dimension": ({"dimension": "style"}, "field dimension: is 'style'"),
    "empty": ({"answer": " "}, "a text is empty"),
    "reserved": ({"definition": "a\ue000b"}, "U+E000"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_file_and_field(own: Path, fault: str) -> None:
    fields, message = FAULTS[fault]
    change(own / "fluency.yaml", **fields)
    with pytest.raises(InputError) as error:
        load_rubric("zh", own)
    assert str(own / "fluency.yaml") in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_faults_are_listed_together(own: Path) -> None:
    (own / "fluency.yaml").unlink()
    (own / "coherency.yaml").write_text("a: [", encoding="utf-8")
    (own / "consistency.yaml").write_bytes("题: 目".encode("gbk"))
    change(own / "system.yaml", rules=...)
    with pytest.raises(InputError) as error:
        load_rubric("zh", own)
    for part in (
        "4 problems",
        "fluency.yaml: missing",
        "coherency.yaml: not YAML",
        "not UTF-8",
        "field rules: field required",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("turn", ["{round}", "第几轮", "{number.x}", "{"])
def test_a_placeholder_that_is_missing_or_that_nothing_fills_is_named(own: Path, turn: str) -> None:
    change(own / "system.yaml", turn=turn)
    with pytest.raises(InputError, match=r"system.yaml: field turn: \{number\} must stand in it"):
        load_rubric("zh", own)


@pytest.mark.parametrize(("language", "folder"), [("fr", None), ("zh", "nowhere")])
def test_an_unknown_language_or_folder_is_refused(language: str, folder: str | None) -> None:
    with pytest.raises(InputError, match=folder or language):
        load_rubric(language, folder or "chatanime")
