"""A model folder is data: none of its code is run and no pickle of it is read."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from judge.engines.packed.engine import PackedEngine
from judge.errors import JudgeError, readable
from judge.models.checkpoint import Checkpoint, resolve
from judge.prompting.safe_tokenizer import JudgeTokenizer


class _Trap:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once something of the model was run."""
    return tmp_path / "run"


@pytest.fixture
def folder(stand_in: Path, tmp_path: Path, mark: Path) -> Path:
    """The stand-in with code beside it that leaves the mark on import."""
    folder = Path(shutil.copytree(stand_in, tmp_path / "model"))
    for name in ("modeling_own", "configuration_own", "tokenization_own"):
        code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n"
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return folder


def change(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps(content), encoding="utf-8")


def with_own_code(folder: Path, model_type: str) -> None:
    maps = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    change(folder / "config.json", model_type=model_type, architectures=["Own"], auto_map=maps)


def refused(folder: Path) -> str:
    """In what words a folder is refused at the latest when its model is loaded."""
    with pytest.raises(JudgeError) as error:
        checkpoint = resolve(str(folder))
        _ = checkpoint.tokenizer, checkpoint.weights_digest
        PackedEngine.load(checkpoint.folder)
    assert readable(str(error.value)).count("\n") == 0
    return str(error.value)


def test_code_of_a_model_is_never_run(folder: Path, mark: Path) -> None:
    with_own_code(folder, "own")
    said = refused(folder)
    assert str(folder) in said and "code of its own" in said and "another judge" in said
    assert not mark.exists()


def test_a_model_of_a_known_kind_is_loaded_without_the_code_it_brings(folder: Path, mark: Path) -> None:
    with_own_code(folder, json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_own.Own", None]})
    tokenizer, engine = JudgeTokenizer(folder), PackedEngine.load(folder)
    assert tokenizer.encode("好") and engine.max_tokens > 0
    assert not mark.exists()


def test_a_tokenizer_with_code_of_its_own_is_refused(folder: Path, mark: Path) -> None:
    with_own_code(folder, "own")
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="Own",
        auto_map={"AutoTokenizer": ["tokenization_own.Own", None]},
    )
    refused(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_weights_in_a_pickle_are_never_read(folder: Path, mark: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Trap(mark)))
    assert "convert the weights to safetensors" in refused(folder)
    with pytest.raises(JudgeError, match="cannot be loaded"):
        PackedEngine.load(folder)
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_left_alone(folder: Path, mark: Path) -> None:
    digest = Checkpoint("", folder).weights_digest
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(mark)))
    assert PackedEngine.load(folder).max_tokens > 0
    assert Checkpoint("", folder).weights_digest == digest
    assert not mark.exists()


def test_the_trap_would_spring(tmp_path: Path, mark: Path) -> None:
    pickle.loads(pickle.dumps(_Trap(mark)))
    assert mark.exists()
