"""The package as others get it: light to import, whole as a wheel."""

import subprocess
import sys
from pathlib import Path

import pytest

import calibration
import judge
from tests.helpers.paths import ROOT


def test_everything_public_can_be_had_and_says_what_it_is_for() -> None:
    for package in (judge, calibration):
        for name in package.__all__:
            value = getattr(package, name)
            assert not callable(value) or value.__doc__, name


def test_importing_judge_loads_nothing_heavy() -> None:
    code = "import judge, calibration, sys; print({'torch', 'vllm', 'transformers', 'pandas'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_everything_that_comes_late_is_public() -> None:
    for package in (judge, calibration):
        assert set(package._LAZY) <= set(package.__all__) and len(package.__all__) == len(set(package.__all__))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, installed in a folder far from the repository."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def test_the_wheel_carries_prompts_example_and_attacks(installed: Path) -> None:
    code = (
        "import judge; from judge.data.dialogues import example_dialogues;"
        "from judge.prompting.rubric import load_rubric as load;"
        "from judge.robustness.degradations import load_wording; [load_wording(language) for language in ('zh', 'en')];"
        "from judge.robustness.attacks import families;"
        "from judge.collection.role_prompt import load_role_prompt; load_role_prompt(), load_role_prompt(None, 'en');"
        "print(judge.__file__, len(example_dialogues()), len(load('zh').metrics), len(load('en').metrics),"
        " families()[-1].name)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, env={"PYTHONPATH": str(installed), "PATH": ""},
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert printed == [str(installed / "judge" / "__init__.py"), "72", "9", "9", "benign"]


def test_the_wheel_holds_the_three_packages_and_nothing_else(installed: Path) -> None:
    folders = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert folders == {"judge", "calibration", "prompts", "bin"}
