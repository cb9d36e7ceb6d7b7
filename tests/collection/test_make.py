"""What `make judge` calls for a model that is collected from."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

if shutil.which("make") is None:
    pytest.skip("make is not installed", allow_module_level=True)


def called(tmp_path: Path, *arguments: str, **environment: str) -> str:
    """The command that make would run."""
    ours = ("MODEL", "MAKE", "DATA", "JUDGE", "RUN", "ARGS")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    folder = Path(__file__).parents[2]
    printed = subprocess.run(
        ["make", "--no-print-directory", "-n", "judge", f"VENV={tmp_path}", *arguments],
        cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return printed[printed.rindex("/bin/esrp-judge") :].replace("\\\n", "")


def test_a_model_of_the_environment_collects_nothing(tmp_path: Path) -> None:
    assert called(tmp_path, MODEL="gpt").startswith("/bin/esrp-judge score")
    for named in ("MODEL=gpt", "MODEL_URL=http://x"):
        assert called(tmp_path, named).startswith("/bin/esrp-judge collect")
    assert '--model "gpt"' in called(tmp_path, "MODEL=gpt")


def test_patterns_reach_the_command_as_they_are(tmp_path: Path) -> None:
    found = called(tmp_path, "MODEL_URL=http://x", "DATA=logs/*.jsonl more.json", 'ARGS=--judge-url "http://y"')
    assert "--from 'logs/*.jsonl' --from 'more.json'" in found and '--url "http://x"' in found
    assert '--judge "auto"' in found and '--judge-url "http://y"' in found
