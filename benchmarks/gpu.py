"""The engine on one GPU: real shapes with random weights, prompts of ChatAnime's size.

Needs torch and transformers only; with ``--vllm`` also an interpreter that has vLLM.

    python benchmarks/gpu.py --out gpu.json            # 4B and 8B shapes on the GPU
    python benchmarks/gpu.py --vllm .venv-vllm/bin/python
    python benchmarks/gpu.py --shapes tiny tiny-hybrid --judgments 90   # tried anywhere

Each shape is measured packed and forked, against the card's own rate of bf16 matrix products, against one call per
judgment, batched calls that share nothing, and vLLM on the same prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from judge.engines.packed.engine import PackedEngine
from judge.prompting.prompt_tree import PromptTree

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("qwen3", {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 6000}),
    "tiny-hybrid": ("qwen3_5_text", {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "linear_num_key_heads": 2,
             "linear_num_value_heads": 2, "linear_key_head_dim": 64, "linear_value_head_dim": 64, "vocab_size": 6000}),
    "qwen3-0.6b": ("qwen3", {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
             "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
             "tie_word_embeddings": True}),
    "qwen3-4b": ("qwen3", {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
             "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
             "tie_word_embeddings": True}),
    "qwen3-8b": ("qwen3", {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
             "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}),
    "qwen3.5-4b": ("qwen3_5_text", {"hidden_size": 2560, "intermediate_size": 9216, "num_hidden_layers": 32,
             "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 256, "linear_num_key_heads": 16,
             "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
             "vocab_size": 248320, "tie_word_embeddings": True}),
    "gemma3-4b": ("gemma3_text", {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
             "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024,
             "vocab_size": 262208, "tie_word_embeddings": True}),
}  # fmt: skip
"""Architecture and shape."""
DEFAULT = ("qwen3-4b", "qwen3-8b", "qwen3.5-4b", "gemma3-4b")
ROOT, OPENING, DIALOGUE, LEAF, METRICS = 2540, 75, 330, 2, 9
"""Tokens of a prompt's parts, as ChatAnime's have under the default layout, and leaves a dialogue."""
SOURCES, SCENARIOS, CHATANIME = 11, 60, 118_800
"""Sources that answer the same opening; scenarios of a character; judgments of the whole data set."""
LEVELS = [(level,) for level in range(16, 21)]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=list(DEFAULT), choices=list(SHAPES))
    parser.add_argument("--judgments", type=int, default=11_880, help="how many are made packed; fewer otherwise")
    parser.add_argument("--batch-tokens", type=int, nargs="*", default=[8192, 16384, 32768])
    parser.add_argument("--vllm", type=Path, help="an interpreter that has vLLM")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--as-vllm", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_vllm:
        _as_vllm(options.as_vllm)
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    machine = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
    found: dict[str, Any] = {"machine": machine, "matmul_tflops": _matmul_rate(device), "shapes": {}}
    print(json.dumps(found["machine"]), f"{found['matmul_tflops']:.1f} TFLOP/s of bf16 matrix products", flush=True)
    for shape in options.shapes:
        found["shapes"][shape] = measured = {}
        for measure, value in _measured(shape, device, options, found["matmul_tflops"]):
            measured[measure] = value
            print(shape, measure, json.dumps(value), flush=True)
            options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _matmul_rate(device: torch.device, size: int = 8192) -> float:
    """TFLOP/s of one large product in bf16, the median of several."""
    size = size if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2e-12 * size**3 / sorted(_seconds(device, lambda: a @ b) for _ in range(11))[5]


def _seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """How long some work takes, until the GPU has done it; calls return before."""
    wait = torch.cuda.synchronize if device.type == "cuda" else torch.cpu.synchronize
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def _measured(name: str, device: torch.device, options: argparse.Namespace, peak: float) -> Any:
    """Pairs of what was measured of one shape and what came out."""
    torch.manual_seed(0)
    architecture, shape = SHAPES[name]
    config = AutoConfig.for_model(architecture, max_position_embeddings=40960, **shape)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    trees = _trees(options.judgments // METRICS, config.vocab_size)
    few = trees[: max(1, len(trees) // 40)]
    engine = PackedEngine(model)
    engine.verify(trees[0])
    yield "parameters", model.num_parameters()
    yield "method", engine.name
    plain = partial(engine._plain, read=lambda logits: logits.float())
    yield "one call per judgment", _rate(device, few[:2], plain)
    yield "batched calls, nothing shared", _rate(device, few, lambda some: _batched(model, some))
    engine.refused = {"packed": "the comparison"}
    yield "forked", _rate(device, few, lambda some: engine.level_logprobs(some, LEVELS))
    for tokens in options.batch_tokens:
        yield f"packed, batches of {tokens:,} tokens", _packed(model, tokens, trees, peak)
    if options.vllm:
        del model, engine, plain
        if device.type == "cuda":
            torch.cuda.empty_cache()
        yield "vllm", _vllm(options.vllm, config, trees)


def _packed(model: Any, tokens: int, trees: Sequence[PromptTree], peak: float) -> dict[str, float | None]:
    """What packed reaches with passes of so many tokens, on a batch of one source at a time."""
    device = model.device
    PackedEngine(model, tokens).level_logprobs(trees[:SCENARIOS], LEVELS)  # warm
    engine = PackedEngine(model, tokens)
    computed: list[int] = []
    hook = model.register_forward_pre_hook(lambda m, a, k: computed.append(k["input_ids"].numel()), with_kwargs=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batches = [trees[start : start + SCENARIOS] for start in range(0, len(trees), SCENARIOS)]
    seconds = _seconds(device, lambda: [engine.level_logprobs(batch, LEVELS) for batch in batches])
    hook.remove()
    judgments = METRICS * len(trees)
    rate = sum(computed) * _flops_a_token(model) / seconds / 1e12
    return {
        "judgments_per_second": judgments / seconds,
        "tokens_per_second": sum(computed) / seconds,
        "tflops": rate,
        "share_of_matmul_rate": rate / peak,
        "chatanime_seconds": CHATANIME / judgments * seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        "out_of_memory": float(engine.report["out_of_memory"]),
    }


def _flops_a_token(model: Any) -> float:
    """Of the layers' weights and of attention over the shared prefix, as far as a layer sees it.

    Not counted are the output head, which sees few tokens, and the states of gated delta nets.
    """
    config = model.config
    weights = sum(weight.numel() for name, weight in model.named_parameters() if ".layers." in name)
    seen = {
        "full_attention": ROOT + OPENING,
        "sliding_attention": min(ROOT + OPENING, getattr(config, "sliding_window", None) or ROOT + OPENING),
    }
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    keys = sum(seen.get(kind, 0) for kind in kinds)
    return 2.0 * weights + 4.0 * keys * config.num_attention_heads * config.head_dim


def _rate(device: torch.device, trees: Sequence[PromptTree], score: Callable[[Sequence[PromptTree]], Any]) -> float:
    """Judgments per second, after a first tree that is not timed."""
    score(trees[:1])
    return METRICS * len(trees) / _seconds(device, lambda: score(trees))


@torch.inference_mode()
def _batched(model: Any, trees: Sequence[PromptTree], rows: int = 8) -> None:
    """Every prompt computed in full, so many at a time; all have one length here, so nothing is padded."""
    prompts = [prompt for tree in trees for prompt in tree.prompts]
    for start in range(0, len(prompts), rows):
        ids = torch.tensor(prompts[start : start + rows], device=model.device)
        model(input_ids=ids, use_cache=False, logits_to_keep=1).logits.float().log_softmax(-1)


def _vllm(python: Path, config: Any, trees: Sequence[PromptTree]) -> dict[str, Any]:
    """What vLLM reaches on the same shape and prompts, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        with torch.device("meta"):
            config.architectures = [type(AutoModelForCausalLM.from_config(config)).__name__]
        config.save_pretrained(folder)
        prompts = [prompt for tree in trees for prompt in tree.prompts]
        Path(folder, "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
        command = [str(python), __file__, "--as-vllm", folder]
        environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {"error": (done.stderr.splitlines() or ["no word"])[-1]}


def _as_vllm(folder: Path) -> None:
    """In vLLM's process: its rate, as JSON."""
    from vllm import LLM, SamplingParams

    prompts = [{"prompt_token_ids": ids} for ids in json.loads((folder / "prompts.json").read_text(encoding="utf-8"))]
    model = LLM(str(folder), load_format="dummy", skip_tokenizer_init=True, max_model_len=8192, dtype="bfloat16")
    levels = [token for (token,) in LEVELS]
    asked = SamplingParams(
        max_tokens=1, temperature=0, logprob_token_ids=levels, allowed_token_ids=levels, detokenize=False
    )
    model.generate(prompts[:METRICS], asked, use_tqdm=False)
    model.reset_prefix_cache()
    started = time.perf_counter()
    answers = model.generate(prompts, asked, use_tqdm=False)
    seconds = time.perf_counter() - started
    cached = sum(answer.num_cached_tokens or 0 for answer in answers)
    computed = sum(len(prompt["prompt_token_ids"]) for prompt in prompts) - cached
    print(json.dumps({"judgments_per_second": len(prompts) / seconds, "computed_tokens": computed}))


def _trees(count: int, vocabulary: int) -> list[PromptTree]:
    """Trees of one character: each source answers each scenario's opening."""
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(32, vocabulary, (length,), generator=generator).tolist())

    root, character, leaves = ids(ROOT), ids(5), tuple(ids(LEAF) for _ in range(METRICS))
    openings = [ids(OPENING) for _ in range(SCENARIOS)]
    return [PromptTree(root, character, openings[i % SCENARIOS], ids(DIALOGUE), leaves) for i in range(count)]


if __name__ == "__main__":
    main()
