"""What `make judge` calls, with paths of any letters, and for a model that is collected from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if shutil.which("make") is None:
    pytest.skip("make is not installed", allow_module_level=True)

PRINTS = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
ROOT = Path(__file__).parents[2]


def called(folder: Path, *arguments: str, target: str = "judge", **environment: str) -> list[str]:
    """The arguments that the command gets from make."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "esrp-judge").write_text(PRINTS, encoding="utf-8")
    (folder / "bin" / "esrp-judge").chmod(0o755)
    for name in (".torch", ".ready"):
        (folder / name).touch()
    ours = ("MODEL", "MAKE", "DATA", "JUDGE", "RUN", "ARGS")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    printed = subprocess.run(
        ["make", "--no-print-directory", target, f"VENV={folder}", *arguments],
        cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    return list(json.loads(printed.stdout))


def test_a_model_of_the_environment_collects_nothing(tmp_path: Path) -> None:
    assert called(tmp_path, MODEL="gpt") == ["score"]
    for named in ("MODEL=gpt", "MODEL_URL=http://x"):
        assert called(tmp_path, named)[0] == "collect"
    assert called(tmp_path, "MODEL=gpt")[1:3] == ["--model", "gpt"]


def test_patterns_reach_the_command_as_they_are(tmp_path: Path) -> None:
    found = called(tmp_path, "MODEL_URL=http://x", "DATA=logs/*.jsonl more.json", 'ARGS=--judge-url "http://y"')
    wanted = "collect --from logs/*.jsonl --from more.json --url http://x --judge auto --judge-url http://y"
    assert found == wanted.split()


STRANGE = [
    "my data (1).jsonl",
    'l\'été "quoted".jsonl',
    "对话 记录［一］.jsonl",
    "a&b;c|d#e!.jsonl",
    "$HOME `x` $(y).jsonl",
]


@pytest.mark.parametrize("name", STRANGE)
def test_a_path_of_any_letters_reaches_the_command_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("", encoding="utf-8")
    assert called(tmp_path, f"DATA={path}", f"RUN={path}-run", "JUDGE=a b") == [
        "score", str(path), "--judge", "a b", "--run", f"{path}-run"
    ]  # fmt: skip
    assert called(tmp_path, "MODEL=m", f"DATA={path}")[1:3] == ["--from", str(path)]
    assert called(tmp_path, f"RUN={path}", target="report") == ["report", str(path)]
    served = called(tmp_path, f"JUDGE={path}", f"SERVING={tmp_path}", target="serve")
    assert served == ["serve", "--judge", str(path), "--port", "8000"]


def test_several_paths_have_blanks_between_them_and_quotes_around_one_with_a_blank(tmp_path: Path) -> None:
    assert called(tmp_path, "DATA=a.json 'b c.json' s3://x/*.jsonl \"d(1).json\"") == [
        "score", "a.json", "b c.json", "s3://x/*.jsonl", "d(1).json"
    ]  # fmt: skip
    assert called(tmp_path, "DATA=it's.json b.json") == ["score", "it's.json", "b.json"]
    assert called(tmp_path, "DATA=~/a.json", HOME="/home/x") == ["score", "/home/x/a.json"]
    assert called(tmp_path, "RUN=r", "ARGS=--limit 3") == ["score", "--run", "r", "--limit", "3"]
