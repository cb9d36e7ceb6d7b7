"""Which model a judge is: from a preset, a Hub id, a folder or a GGUF file to a folder on disk, and what identifies it.

Knows nothing of prompts. Weights are read as safetensors or GGUF only, and no code of a model's is ever run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judge.errors import EngineError, InputError, one_line
from judge.files import remembered_sha256
from judge.models.hardware import GIB, Hardware
from judge.models.presets import PACKAGED, PRESETS, packaged_gguf, refuse_wrong_endpoint
from judge.prompting.safe_tokenizer import JudgeTokenizer
from judge.types import ANSWER_FORMS, STAND_IN, STAND_IN_MARK, digest

FAMILIES = {
    "Qwen": ("qwen", "qwq", "tongyi", "xingchen"),
    "DeepSeek": ("deepseek",),
    "GLM": ("glm", "chatglm", "charglm"),
    "GPT": ("gpt", "o1", "o3", "o4", "chatgpt"),
    "Claude": ("claude",),
    "Gemini": ("gemini", "gemma"),
    "Doubao": ("doubao", "seed"),
    "MiniMax": ("minimax", "abab"),
    "Llama": ("llama",),
    "Mistral": ("mistral", "mixtral"),
    "InternLM": ("internlm",),
    "Baichuan": ("baichuan",),
    "ERNIE": ("ernie",),
    "Hunyuan": ("hunyuan",),
    "Kimi": ("kimi", "moonshot"),
    "Yi": ("yi",),
}
"""Families by the words their models' names begin with."""


def family(name: str) -> str | None:
    """The family of a model's name, a preset, a Hub id or a source; None where the name tells of none."""
    words = re.findall(r"[a-z]+\d?", name.lower())
    # A short name is a whole word (`yi`, `o1`), a longer one may begin one (`qwen3`, `chatglm`).
    found = (
        key
        for word in words
        for key, starts in FAMILIES.items()
        if any(
            (word == start or word.rstrip("0123456789") == start or (len(start) > 3 and word.startswith(start)))
            for start in starts
        )
    )
    return next(found, None)


def same_family(judge: str, sources: Iterable[str]) -> tuple[str, ...]:
    """The sources that are of a judge's family."""
    own = family(judge)
    return tuple(source for source in sources if own is not None and family(source) == own)


FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
"""What is fetched of a model on the Hub."""


TOKENIZER_FILES = FILES[1:]
"""What is fetched of a model that runs elsewhere."""


OF_WEIGHTS = {"config.json", "model.safetensors.index.json"}
"""Those of them that are of a model's weights."""


TRAINING = "training.json"
"""The file in the folder of a judge that ``train`` made, with all that is to be known of its training."""


NOTED = {"base", "judge", "data_digest", "split", "options", "held_out_losses", "figures"}
"""What is always in it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A judge's model on disk, and what it was asked for by."""

    asked: str
    folder: Path

    @property
    def name(self) -> str:
        """The name that its judgments carry: the stand-in's is always its own."""
        return STAND_IN if self.config.get(STAND_IN_MARK) else self.asked

    @property
    def tokenizer(self) -> JudgeTokenizer:
        """Its tokenizer; InputError where it has none that can be used."""
        return JudgeTokenizer(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The model's ``config.json``; InputError where there is none or it cannot be read."""
        try:
            content = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            message = f"{self.folder}: no config.json that can be read; a judge is a folder with weights and tokenizer"
            raise InputError(message) from error
        return dict(content)

    @property
    def weights_digest(self) -> str:
        """Hash of the weight files' sha256, sorted: the same for a Hub, mirror or local copy."""
        files = sorted(self.folder.glob("*.safetensors"))
        if not files:
            raise InputError(
                f"{self.folder}: no *.safetensors in it; convert the weights to safetensors, or name a .gguf file"
            )
        return digest(sorted(remembered_sha256(file) for file in files))

    @property
    def config_digest(self) -> str:
        """Hash of the configuration, without what says where it came from."""
        ignored = {"transformers_version", "_name_or_path"}
        return digest({key: value for key, value in self.config.items() if key not in ignored})

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the model knows; None where its configuration does not say."""
        size = (self.config.get("text_config") or self.config).get("vocab_size")
        return size if isinstance(size, int) else None

    @property
    def training(self) -> dict[str, Any] | None:
        """What is noted of its training; None of a model that ``train`` did not make."""
        try:
            content = dict(json.loads((self.folder / TRAINING).read_text(encoding="utf-8")))
            whole = content.keys() >= NOTED and content["judge"].keys() >= {"dtype"}
            known = content["judge"]["answer_form"] in ANSWER_FORMS and content["base"].keys() >= {"name", "weights"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # another program's file of that name
            return None
        return content if known and whole else None

    def dtype(self, hardware: Hardware) -> str:
        """The precision in which it is run."""
        return "bfloat16" if hardware.gpus else "float32"

    @property
    def quantisation(self) -> str | None:
        """How the weights are quantised, or None."""
        found = self.config.get("quantization_config") or {}
        return str(found.get("quant_method", "unknown")) if found else None


def resolve(judge: str, files: Sequence[str] = FILES, option: str = "--judge") -> Checkpoint:
    """The checkpoint of ``stand-in``, a preset, a model folder, a GGUF file or a Hub id (fetched where not cached).

    ``files`` are the patterns of what is fetched, ``option`` is what names the model, for messages.

    Raises:
        InputError: there is no such judge.
        EngineError: it cannot be fetched.
    """
    if judge == "stand-in":
        return stand_in()
    if judge and os.path.isdir(judge):
        return _of_folder(Path(judge).resolve().name, Path(judge))
    if judge.lower().endswith(".gguf"):
        if not os.path.isfile(judge):
            raise InputError(f"{option} {judge}: no such file; check the path")
        from judge.models.gguf import converted

        return Checkpoint(Path(judge).stem, converted(Path(judge)))
    if judge == PACKAGED:
        from judge.models.gguf import converted

        return Checkpoint(judge, converted(packaged_gguf()))
    if judge in PRESETS:
        return Checkpoint(judge, _fetch(PRESETS[judge].repository, files, option))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", judge) and not judge.startswith("."):
        return _of_folder(judge, _fetch(judge, files, option))
    presets = ", ".join((*PRESETS, PACKAGED, "stand-in"))
    raise InputError(f"{option} {judge}: neither a preset ({presets}), a model folder, a .gguf file nor a Hub id")


def _of_folder(asked: str, folder: Path) -> Checkpoint:
    """The checkpoint of a folder with a model, or with an adapter, which is merged into its base."""
    from judge.models.adapter import CONFIG, base_of, is_adapter, merged

    found = Checkpoint(asked, folder)
    if not is_adapter(folder):
        return found
    base, training = resolve(base_of(folder), option=f"{folder}: its base"), found.training
    if training and training["base"]["weights"] != base.weights_digest:
        raise InputError(
            f"{folder}: {base.asked} has other weights than the base it was trained on; name that base in {CONFIG}"
        )
    if base.quantisation:
        raise InputError(
            f"{folder}: its base is quantised ({base.quantisation}) and nothing can be merged into it; name the model "
            f"before it was quantised in {CONFIG}"
        )
    # The adapter's own tokenizer and templates before those of its base, whose training is not this judge's.
    beside = {
        file.name: file
        for place in (base.folder, folder)
        for pattern in TOKENIZER_FILES
        for file in sorted(place.glob(pattern))
        if file.name not in {*OF_WEIGHTS, CONFIG} and (file.name != TRAINING or place == folder)
    }
    # As it was trained: in a narrower precision the merged weights would be those of another judge.
    dtype = training["judge"]["dtype"] if training else "auto"
    identity = digest([base.weights_digest, base.config_digest])
    return Checkpoint(asked, merged(folder, base.folder, identity, dtype, beside))


def stand_in(levels: tuple[int, ...] | None = None) -> Checkpoint:
    """The stand-in, which answers with one of ``levels``; those of the packaged rubric by default."""
    from judge.models.stand_in import stand_in_folder

    return Checkpoint(STAND_IN, stand_in_folder(levels))


def _fetch(repository: str, files: Sequence[str], option: str) -> Path:
    """The folder of a model of the Hub or the mirror in ``HF_ENDPOINT``, fetched into ``HF_HOME`` where it is new."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    refuse_wrong_endpoint()
    try:
        _check_space(repository, files)
        return Path(snapshot_download(repository, allow_patterns=list(files)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"{option} {repository}: the Hub has no such model, or it is gated; check the id, or set HF_TOKEN"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # of the disk, and not of the network
            raise EngineError(
                f"{repository} cannot be kept in {constants.HF_HUB_CACHE} ({error.strerror}: {error.filename}); set "
                f"HF_HOME to a folder that is yours, or give {option} a local folder"
            ) from error
        way = "unset HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "set HF_ENDPOINT to a mirror"
        remedy = f"{way}, or give {option} a local folder"
        raise EngineError(f"{repository} cannot be fetched ({one_line(error)}); {remedy}") from error


def _check_space(repository: str, patterns: Sequence[str]) -> None:
    """EngineError where the disk has no room for what is still to be fetched; nothing where the Hub cannot be asked."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        files = snapshot_download(repository, allow_patterns=list(patterns), dry_run=True)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        return
    finally:
        enable_progress_bars()
    needed = sum(file.file_size for file in files if file.will_download)
    home = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise EngineError(
            f"{repository} needs {needed / GIB:.1f} GiB, {existing} has {free / GIB:.1f} GiB free; "
            "free some or set HF_HOME to another disk"
        )
