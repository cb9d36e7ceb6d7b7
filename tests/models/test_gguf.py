"""A GGUF file is a judge: its weights to the bit, its tokenizer and template; what cannot be read right is refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from judge.engines.packed.engine import PackedEngine
from judge.errors import EngineError, InputError, readable
from judge.models import gguf as conversion
from judge.models.checkpoint import resolve
from judge.models.gguf import converted
from judge.prompting.safe_tokenizer import JudgeTokenizer
from tests.helpers.commands import esrp_judge, refused

gguf = pytest.importorskip("gguf", reason="gguf is not installed: make .venv/.ready-dev")
pytest.importorskip("accelerate", reason="accelerate is not installed: make .venv/.ready-dev")

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that a byte-level vocabulary writes as themselves; the others it writes as characters from 256."""
LETTERS = [chr(byte) for byte in BYTES] + [chr(256 + i) for i in range(256 - len(BYTES))]
WIDTH, HEADS, HEAD_WIDTH, LAYERS = 16, 2, 8, 2


def write(path: Path, architecture: str = "llama", head_width: int = HEAD_WIDTH, **fields: Any) -> Path:
    """A tiny model with random weights and a tokenizer of single bytes; ``fields`` are further metadata."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(4096)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(32)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(head_width)
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*controls, *LETTERS, "ĠĠ"])
    writer.add_token_types([3] * len(controls) + [1] * (len(LETTERS) + 1))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for key, value in fields.items():
        getattr(writer, f"add_{key}")(value)
    for name, weights in tensors(architecture, head_width, len(controls) + len(LETTERS) + 1).items():
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(architecture: str, head_width: int, vocabulary: int) -> dict[str, np.ndarray]:
    """Random weights by their names in the file."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (vocabulary, WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        heads, keys = HEADS * head_width, head_width
        own = {
            "attn_q": (heads, WIDTH), "attn_k": (keys, WIDTH), "attn_v": (keys, WIDTH), "attn_output": (WIDTH, heads),
            "ffn_gate": (32, WIDTH), "ffn_up": (32, WIDTH), "ffn_down": (WIDTH, 32),
            "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,),
        }  # fmt: skip
        if architecture in ("qwen3", "gemma3"):
            own |= {"attn_q_norm": (head_width,), "attn_k_norm": (head_width,)}
        if architecture == "gemma3":
            own |= {"post_attention_norm": (WIDTH,), "post_ffw_norm": (WIDTH,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in own.items()}
    return {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.gguf", chat_template=TEMPLATE)


def refusal(file: Path, error: type[Exception] = InputError) -> str:
    """In what line a file is refused."""
    with pytest.raises(error) as refused:
        converted(file)
    said = str(refused.value)
    assert readable(said).count("\n") == 0 and file.name in said
    return said


def test_weights_are_those_of_the_file_to_the_bit(tiny: Path) -> None:
    found = load_file(converted(tiny) / "model.safetensors")
    written = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny).tensors}
    for name, own in [
        ("token_embd", "embed_tokens"), ("output_norm", "norm"),
        ("blk.1.ffn_down", "layers.1.mlp.down_proj"), ("blk.0.attn_v", "layers.0.self_attn.v_proj"),
    ]:  # fmt: skip
        assert np.array_equal(found[f"model.{own}.weight"], written[f"{name}.weight"])
    # The two halves that rotate together lie side by side in a GGUF file of this architecture.
    query = written["blk.0.attn_q.weight"].reshape(HEADS, HEAD_WIDTH // 2, 2, WIDTH).swapaxes(1, 2).reshape(-1, WIDTH)
    assert np.array_equal(found["model.layers.0.self_attn.q_proj.weight"], query)


def test_a_file_is_a_judge_by_its_name_with_its_tokenizer_and_template(tiny: Path) -> None:
    checkpoint = resolve(str(tiny))
    assert checkpoint.name == "tiny" and checkpoint.quantisation is None and len(checkpoint.weights_digest) == 32
    tokenizer = checkpoint.tokenizer
    assert tokenizer.text(tokenizer.encode("你好 4<|im_end|>")) == "你好 4<|im_end|>"
    assert tokenizer.chat("rules") == (
        "<|im_start|>system\nrules<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    assert PackedEngine.load(checkpoint.folder).max_tokens == 4096


@pytest.mark.parametrize(
    ("architecture", "fields", "begins"),
    [
        ("llama", {"add_bos_token": True}, True),
        ("llama", {"add_bos_token": False}, False),
        ("llama", {}, False),
        ("gemma3", {}, True),
        ("gemma3", {"add_bos_token": False}, False),
    ],
)
def test_a_base_models_prompt_begins_as_the_file_says(
    tmp_path: Path, architecture: str, fields: dict[str, Any], begins: bool
) -> None:
    fields = {**fields, **({"sliding_window": 8} if architecture == "gemma3" else {})}
    tokenizer = JudgeTokenizer(converted(write(tmp_path / "base.gguf", architecture, **fields)))
    assert tokenizer.chat("rules")[0] == ("<|endoftext|>" if begins else "") + "rules\n\n"


def test_a_file_is_converted_once_wherever_it_lies(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = converted(tiny)
    monkeypatch.setattr(conversion, "_convert", lambda *_: pytest.fail("converted again"))
    assert converted(tiny) == folder
    assert converted(tiny.rename(tiny.with_name("other.gguf"))) == folder


def test_a_conversion_that_was_killed_is_not_taken_for_whole(tiny: Path, tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
import transformers
from judge.models import gguf
transformers.AutoTokenizer.from_pretrained = lambda *_, **__: os.kill(os.getpid(), 9)
gguf.converted(Path({str(tiny)!r}))
"""
    environment = {**os.environ, "ESRP_CACHE": str(tmp_path / "cache")}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert killed.returncode == -9
    assert list((tmp_path / "cache" / "gguf").glob(".*/model.safetensors"))  # it had got so far
    whole = f"from pathlib import Path; from judge.models.gguf import *; print(converted(Path({str(tiny)!r})))"
    done = subprocess.run([sys.executable, "-c", whole], env=environment, check=True, capture_output=True, text=True)
    assert JudgeTokenizer(Path(done.stdout.strip())).has_template
    assert done.stderr == ""  # neither bars nor warnings


@pytest.mark.parametrize("end", [6, 20, 300, 4000, -6000, -100])
def test_a_file_that_was_cut_is_fetched_again(tiny: Path, end: int) -> None:
    tiny.write_bytes(tiny.read_bytes()[:end])
    assert "cut short or damaged" in refusal(tiny) and "fetch it again" in refusal(tiny)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04" * 100, "你好".encode() * 99])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "foreign.gguf"
    file.write_bytes(content)
    assert "not a GGUF file" in refusal(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        resolve(str(tmp_path / "none.gguf"))


def test_an_architecture_that_the_loader_does_not_know_is_named(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "new.gguf", "chatglm"))
    assert "'chatglm'" in said and "safetensors" in said


def test_weights_of_another_shape_than_the_loader_takes_for_granted_are_refused(tmp_path: Path) -> None:
    """A Qwen3 whose heads are not 128 wide."""
    assert "'qwen3'" in refusal(write(tmp_path / "narrow.gguf", "qwen3"))


def test_a_file_without_some_of_its_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(*arguments: Any, all_of: Callable[..., dict[str, np.ndarray]] = tensors) -> dict[str, np.ndarray]:
        return {name: weights for name, weights in all_of(*arguments).items() if "blk.1.ffn_up" not in name}

    monkeypatch.setattr(sys.modules[__name__], "tensors", some)
    assert "weights are missing or of another shape (model.layers.1.mlp.up_proj.weight)" in refusal(
        write(tmp_path / "holes.gguf")
    )


def test_scaled_rotary_frequencies_are_refused_as_the_loader_forgets_them(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "scaled.gguf", rope_scaling_factor=8.0))
    assert "llama.rope.scaling.factor" in said and "safetensors" in said


def test_a_part_of_a_split_model_is_refused_with_what_joins_it(tiny: Path) -> None:
    part = tiny.rename(tiny.with_name("tiny-00001-of-00003.gguf"))
    assert "one of 3 parts" in refusal(part) and "llama-gguf-split --merge" in refusal(part)


def test_without_the_extra_it_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "find_spec", lambda name: None if name == "gguf" else name)
    tiny.write_bytes(tiny.read_bytes() + b" ")
    assert "needs gguf; pip install 'esrp-judge[gguf]'" in refusal(tiny)


def test_a_disk_without_room_is_the_machines_error(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_bytes(tiny.read_bytes() + b"  ")
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert "set ESRP_CACHE" in refusal(tiny, EngineError)


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "foreign.gguf").write_bytes(b"PK")
    refused(esrp_judge("doctor", "--judge", "foreign.gguf", cwd=tmp_path), "not a GGUF file")
