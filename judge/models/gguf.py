"""GGUF files as judges: transformers' own loader turns one into a model folder in the cache, once.

Weights are dequantised to float32, so that what is scored is what the file says. The loader is lenient: scaled rotary
frequencies are forgotten. Here they are refused, as are weights that it does not find (``judge.models.weights``).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.errors import EngineError, InputError, one_line
from judge.files import cache_folder, made_folder, remembered_sha256
from judge.models.hardware import GIB

if TYPE_CHECKING:
    from gguf import GGUFReader

SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
"""How the name of one part of a split model ends."""


def converted(file: Path) -> Path:
    """The model folder of a GGUF file: float32 weights as safetensors, configuration, tokenizer and chat template.

    It stands in the cache under the file's sha256, so a file that was moved or renamed is not converted again.

    Raises:
        InputError: the file is damaged, a part of a split model, or of an architecture that the loader does not know
            or does not read rightly; or the extra ``gguf`` is not installed.
        EngineError: the cache has no room for the folder, or cannot be written.
    """
    if (part := SPLIT.search(file.name)) and part[1] != "00001":
        raise InputError(
            f"{file}: one of {int(part[1])} parts; join them with `llama-gguf-split --merge` and name that file"
        )
    folder = cache_folder() / "gguf" / remembered_sha256(file)
    try:
        return made_folder(folder, lambda beside: _convert(file, beside))
    except OSError as error:
        raise EngineError(
            f"{file}: cannot be converted into {folder} ({one_line(error)}); set ESRP_CACHE to a folder with room"
        ) from error


def _convert(file: Path, folder: Path) -> None:
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise InputError(f"{file}: reading it needs {' and '.join(missing)}; pip install 'esrp-judge[gguf]'")
    reader = _read(file)
    architecture = str(_value(reader, "general.architecture", ""))
    _refuse_what_is_read_wrongly(file, reader, architecture)
    needed, free = 4 * sum(int(tensor.n_elements) for tensor in reader.tensors), shutil.disk_usage(folder).free
    if needed > free:
        raise EngineError(
            f"{file} needs {needed / GIB:.1f} GiB as float32, {folder.parent} has {free / GIB:.1f} GiB free; "
            "free some or set ESRP_CACHE to another disk"
        )
    from judge.models.weights import quiet

    # Alone in a folder, as the loader would also read a tokenizer or an adapter that lies beside the file.
    with tempfile.TemporaryDirectory() as alone, quiet():
        (Path(alone) / "model.gguf").symlink_to(file.resolve())
        try:
            _save_model_and_tokenizer(Path(alone), folder)
        except OSError:
            raise
        except Exception as error:  # what the loader does not understand fails in many ways inside it
            raise InputError(
                f"{file}: transformers cannot read this file of architecture {architecture!r} ({one_line(error)}); "
                "name the model's folder with safetensors instead"
            ) from error
    # Whether every text begins with BOS is lost in conversion, and a base model asked without it writes rubbish. It is
    # as the file says, or else as llama.cpp takes for granted.
    is_sentencepiece = _value(reader, "tokenizer.ggml.model", "") == "llama"
    if _value(reader, "tokenizer.ggml.add_bos_token", is_sentencepiece or architecture.startswith("gemma")):
        path = folder / "tokenizer_config.json"
        content = json.loads(path.read_text(encoding="utf-8")) | {"add_bos_token": True}
        path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def _read(file: Path) -> GGUFReader:
    """What the file says of itself; InputError where it is no GGUF file, or not a whole one."""
    from gguf import GGUFReader

    with file.open("rb") as content:
        if content.read(4) != b"GGUF":
            raise InputError(f"{file}: not a GGUF file, whatever its name says; name another file")
    try:
        reader = GGUFReader(file)
    except Exception as error:  # a cut or damaged file fails wherever it is cut
        raise InputError(f"{file}: cut short or damaged ({one_line(error)}); fetch it again") from error
    if not reader.tensors:
        raise InputError(f"{file}: holds no weights; fetch the model's file")
    return reader


def _value(reader: GGUFReader, key: str, default: Any) -> Any:
    field = reader.get_field(key)
    return field.contents() if field and field.data else default


def _refuse_what_is_read_wrongly(file: Path, reader: GGUFReader, architecture: str) -> None:
    """InputError where the loader would leave out what changes scores, without a word."""
    scaled = [tensor.name for tensor in reader.tensors if tensor.name.startswith("rope_")]
    factor = f"{architecture}.rope.scaling.factor"
    if architecture != "gpt-oss" and _value(reader, factor, 1.0) not in (0.0, 1.0):
        scaled.append(factor)
    if scaled:
        raise InputError(
            f"{file}: its rotary frequencies are scaled ({scaled[0]}), which transformers leaves out of a GGUF file; "
            "name the model's folder with safetensors instead"
        )


def _save_model_and_tokenizer(alone: Path, folder: Path) -> None:
    """Write what the loader makes of the file; ValueError where a weight of the model is not in the file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from judge.models.weights import load_model

    loaded = load_model(alone, torch.float32, gguf_file="model.gguf")
    # What was loaded counts as quantised and refuses to be saved: a model without that takes over its weights.
    settings = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf", trust_remote_code=False).save_pretrained(folder)
