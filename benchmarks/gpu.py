"""The packed engine on one GPU: real shapes with random weights, prompts of ChatAnime's size.

Needs torch and transformers only.

    python benchmarks/gpu.py --out gpu.json            # Qwen3-0.6B and Qwen3-8B on the GPU
    python benchmarks/gpu.py --shapes tiny --judgments 90   # tried anywhere

Each shape is measured against the card's own rate of bf16 matrix products, against one call per judgment, and against
batched calls that share nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, Qwen3Config

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from judge.engines.packed.engine import PackedEngine
from judge.prompting.prompt_tree import PromptTree

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 6000},
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
                   "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True},
    "qwen3-8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
                 "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
}  # fmt: skip
ROOT, OPENING, DIALOGUE, LEAF, METRICS = 2540, 75, 330, 2, 9
"""Tokens of a prompt's parts, as ChatAnime's have under the default layout, and leaves a dialogue."""
SOURCES, SCENARIOS, CHATANIME = 11, 60, 118_800
"""Sources that answer the same opening; scenarios of a character; judgments of the whole data set."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=["qwen3-0.6b", "qwen3-8b"], choices=list(SHAPES))
    parser.add_argument("--judgments", type=int, default=11_880, help="how many the packed engine makes")
    parser.add_argument("--batch-tokens", type=int, nargs="*", default=[8192, 16384, 32768])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    machine = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
    found = {"machine": machine, "matmul_tflops": _matmul_rate(device), "shapes": {}}
    print(json.dumps(found["machine"]), f"{found['matmul_tflops']:.1f} TFLOP/s of bf16 matrix products", flush=True)
    for name in options.shapes:
        found["shapes"][name] = _measure(name, device, options, found["matmul_tflops"])
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


def _measure(name: str, device: torch.device, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    """Rates of one shape; each line is printed as it is measured."""
    torch.manual_seed(0)
    config = Qwen3Config(max_position_embeddings=40960, **SHAPES[name])
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    trees = _trees(options.judgments // METRICS, config.vocab_size)
    levels = [(level,) for level in range(16, 21)]
    few = trees[: max(1, len(trees) // 40)]
    measured = {
        "parameters": model.num_parameters(),
        "one call per judgment": _rate(device, few[:2], lambda t: PackedEngine(model)._plain(t, levels)),
        "batched calls, nothing shared": _rate(device, few, lambda t: _batched(model, t)),
    }
    for tokens in options.batch_tokens:
        packed = _packed(model, tokens, trees, levels, peak)
        measured[f"packed, batches of {tokens:,} tokens"] = packed
        print(name, tokens, json.dumps(packed), flush=True)
    print(name, json.dumps(measured), flush=True)
    return measured


def _packed(
    model: Any, tokens: int, trees: Sequence[PromptTree], levels: Sequence[tuple[int, ...]], peak: float
) -> dict[str, float | None]:
    """What the packed engine reaches with passes of so many tokens, on a batch of one source at a time."""
    device, config = model.device, model.config
    PackedEngine(model, tokens).level_logprobs(trees[:SCENARIOS], levels)  # warm
    engine = PackedEngine(model, tokens)
    computed: list[int] = []
    hook = model.register_forward_pre_hook(lambda m, a, k: computed.append(k["input_ids"].numel()), with_kwargs=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batches = [trees[start : start + SCENARIOS] for start in range(0, len(trees), SCENARIOS)]
    seconds = _seconds(device, lambda: [engine.level_logprobs(batch, levels) for batch in batches])
    hook.remove()
    judgments = METRICS * len(trees)
    # Counted are the layers' weights and attention over the shared prefix. The output head is not: it sees few tokens.
    layers = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name)
    attention = 4 * (ROOT + OPENING) * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    rate = sum(computed) * (2 * layers + attention) / seconds / 1e12
    return {
        "judgments_per_second": judgments / seconds,
        "tokens_per_second": sum(computed) / seconds,
        "tflops": rate,
        "share_of_matmul_rate": rate / peak,
        "chatanime_seconds": CHATANIME / judgments * seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        "out_of_memory": float(engine.report["out_of_memory"]),
    }


def _rate(device: torch.device, trees: Sequence[PromptTree], score: Callable[[Sequence[PromptTree]], Any]) -> float:
    """Judgments per second, after a first tree that is not timed."""
    score(trees[:1])
    return METRICS * len(trees) / _seconds(device, lambda: score(trees))


@torch.inference_mode()
def _batched(model: Any, trees: Sequence[PromptTree], rows: int = 8) -> None:
    """Every prompt computed in full, so many at a time; all have one length here, so nothing is padded."""
    prompts = [tree.prompt(leaf) for tree in trees for leaf in range(METRICS)]
    for start in range(0, len(prompts), rows):
        ids = torch.tensor(prompts[start : start + rows], device=model.device)
        model(input_ids=ids, use_cache=False, logits_to_keep=1).logits.float().log_softmax(-1)


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
