"""Packed scoring on torch and transformers: one forward pass returns every metric of a batch of dialogues.

A row holds the tokens of a dialogue and then all its leaves; a mask lets each leaf see its ancestors and itself only,
so the pass gives exactly what a separate call per leaf would. The keys and values of what comes before the dialogue
(rules and rubrics, then the character) are computed once and shared by all rows. This is right only where attention
is plain; on loading, packed is compared with plain calls, and where they differ the engine scores plainly and says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.utils.logging import disable_progress_bar

from judge.errors import EngineError, one_line
from judge.prompt import Ids, PromptTree
from judge.scoring import Array

Prefix = list[tuple[Tensor, Tensor]]
"""Keys and values of a shared prefix, a pair a layer, each of shape (1, heads, tokens, width)."""

LONGEST_ROW = 6144
"""Dialogues of more tokens are scored plainly, as the memory of a mask grows with the square of them."""
KEPT_PREFIXES = 4
"""How many shared prefixes are kept: the roots in use, and the characters met last."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest difference of a level's probability at which packed still counts as equal to plain, by precision."""


class PackedEngine:
    """Scores prompt trees with a causal language model in this process.

    Args:
        folder: a model folder (config, safetensors).
        batch_tokens: how many tokens of dialogues, padding included, one forward pass takes.

    Raises:
        EngineError: the model cannot be loaded.
    """

    def __init__(self, folder: Path, batch_tokens: int | None = None) -> None:
        self.device = _device()
        self.model = _load(folder, self.device)
        self.name = "packed"
        self.max_tokens = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 2**31))
        self.batch_tokens = batch_tokens or (16384 if self.device.type == "cuda" else 4096)
        self._prefixes: OrderedDict[Ids, Prefix] = OrderedDict()

    def verify(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> None:
        """Compare packed with plain on ``trees`` and fall back to plain, for good, where they differ."""
        if not trees:
            return
        problem = _unsuited(self.model.config.get_text_config()) or self._difference(trees, level_ids)
        if problem:
            self.name = f"plain ({problem})"

    def _difference(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> str | None:
        try:
            plain = np.exp(np.stack(self._plain(trees, level_ids)))
        except RuntimeError as error:
            raise EngineError(f"the model fails on this machine: {one_line(error)}; choose another judge") from error
        try:
            packed = np.exp(np.stack(self._packed(trees, level_ids)))
        except torch.OutOfMemoryError as error:
            raise EngineError(f"the model leaves too little memory: {one_line(error)}; free some") from error
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            return f"packed scoring fails on this model: {one_line(error)}"
        largest = float(np.abs(packed - plain).max())
        if largest <= TOLERANCE[self.model.dtype]:
            return None
        return f"packed differs from plain by {largest:.2g} in probability"

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        """See ``Engine.level_logprobs``."""
        score = self._packed if self.name == "packed" else self._plain
        try:
            return score(trees, level_ids)
        except RuntimeError as error:  # out of memory, a lost device, a kernel that is missing
            raise EngineError(f"the model failed: {one_line(error)}; free memory or choose a smaller judge") from error

    @torch.inference_mode()
    def _plain(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        return [
            np.concatenate([self._call(tree.prompt(leaf), level_ids) for leaf in range(len(tree.leaves))])
            for tree in trees
        ]

    def _call(self, prompt: Ids, level_ids: Sequence[Ids]) -> Array:
        ids = torch.tensor([prompt], device=self.device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        found: Array = _level_logprobs(logits, level_ids)[0]
        return found

    @torch.inference_mode()
    def _packed(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        found: list[Array] = [np.empty(0)] * len(trees)
        order = range(len(trees))
        for (root, character), group in groupby(order, key=lambda i: (trees[i].root, trees[i].character)):
            prefix = self._prefix(root, character)
            indices = list(group)
            for i in indices:
                if _row_length(trees[i]) > LONGEST_ROW:
                    found[i] = self._plain([trees[i]], level_ids)[0]
            for batch in self._batches([i for i in indices if _row_length(trees[i]) <= LONGEST_ROW], trees):
                rows = self._forward([trees[i] for i in batch], prefix, level_ids)
                for i, row in zip(batch, rows, strict=True):
                    found[i] = row
        return found

    def _batches(self, indices: list[int], trees: Sequence[PromptTree]) -> Iterator[list[int]]:
        """Trees of like shape and length together, as many as the token budget takes once padded."""

        def shape(i: int) -> tuple[tuple[int, ...], int]:
            return tuple(map(len, trees[i].leaves)), len(trees[i].dialogue)

        for _, group in groupby(sorted(indices, key=shape), key=lambda i: shape(i)[0]):
            batch: list[int] = []
            for i in group:
                if batch and (len(batch) + 1) * _row_length(trees[i]) > self.batch_tokens:
                    yield batch
                    batch = []
                batch.append(i)
            yield batch

    def _prefix(self, root: Ids, character: Ids) -> Prefix:
        """The keys and values of root and character, computed once; the last few are kept."""
        if root not in self._prefixes:
            self._prefixes[root] = self._extend([], root)
        whole = root + character
        if whole not in self._prefixes:
            self._prefixes[whole] = self._extend(self._prefixes[root], character)
        self._prefixes.move_to_end(root)
        self._prefixes.move_to_end(whole)
        while len(self._prefixes) > KEPT_PREFIXES:
            self._prefixes.popitem(last=False)
        return self._prefixes[whole]

    def _extend(self, prefix: Prefix, ids: Ids) -> Prefix:
        if not ids:
            return prefix
        cache = DynamicCache(prefix) if prefix else DynamicCache()
        tokens = torch.tensor([ids], device=self.device)
        self.model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _forward(self, trees: list[PromptTree], prefix: Prefix, level_ids: Sequence[Ids]) -> Array:
        """Log-probabilities of the levels, shape (trees, leaves, 5), of trees whose leaves have the same lengths."""
        leaves = [len(leaf) for leaf in trees[0].leaves]
        trunks = [len(tree.dialogue) for tree in trees]
        before = prefix[0][0].shape[-2]
        segments = torch.tensor([_segments(trunk, leaves, max(trunks)) for trunk in trunks], device=self.device)
        logits = self.model(
            input_ids=torch.tensor([_row(tree, max(trunks)) for tree in trees], device=self.device),
            position_ids=before + _positions(segments),
            attention_mask=_mask(segments, before, self.model.dtype),
            past_key_values=Cache(layers=[SharedLayer(*pair) for pair in prefix]),
            use_cache=True,
            logits_to_keep=max(trunks) - 1 + torch.tensor(leaves, device=self.device).cumsum(0),
        ).logits
        return _level_logprobs(logits, level_ids)


class SharedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values of a prefix that every row of a batch shares; what is added is never kept."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self.dtype, self.device = keys.dtype, keys.device

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The prefix, repeated for each row, with the new keys and values after it."""
        rows = key_states.shape[0]
        keys = torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2)
        return keys, values


def _device() -> torch.device:
    """The visible GPU with most memory free, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return torch.device("cuda", free.index(max(free)))


def _row_length(tree: PromptTree) -> int:
    return len(tree.dialogue) + sum(map(len, tree.leaves))


def _row(tree: PromptTree, trunk: int) -> list[int]:
    """The dialogue, padded on the left to ``trunk`` tokens so that all rows' leaves stand alike, then the leaves."""
    padding = [tree.leaves[0][-1]] * (trunk - len(tree.dialogue))
    return [*padding, *tree.dialogue, *(token for leaf in tree.leaves for token in leaf)]


def _segments(trunk: int, leaves: list[int], width: int) -> list[int]:
    """Which part of the tree each token of a row belongs to: -1 padding, 0 the dialogue, 1.. the leaves."""
    numbered = [number for number, length in enumerate(leaves, start=1) for _ in range(length)]
    return [-1] * (width - trunk) + [0] * trunk + numbered


def _positions(segments: Tensor) -> Tensor:
    """The place of each token on its own path, counted from the end of the prefix: shape (rows, tokens)."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    padding = (segments < 0).sum(dim=1, keepdim=True)
    trunk = (segments == 0).sum(dim=1, keepdim=True)
    starts = torch.searchsorted(segments.contiguous(), segments.contiguous())
    return torch.where(segments > 0, trunk + index - starts, (index - padding).clamp(min=0))


def _mask(segments: Tensor, before: int, dtype: torch.dtype) -> Tensor:
    """What each token may attend to, as numbers to add: shape (rows, 1, tokens, before + tokens)."""
    rows, tokens = segments.shape
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=segments.device).tril()
    allowed = causal & ((query == key) | ((key == 0) & (query > 0)))
    mask = torch.zeros(rows, 1, tokens, before + tokens, dtype=dtype, device=segments.device)
    mask[:, 0, :, before:].masked_fill_(~allowed, torch.finfo(dtype).min)
    return mask


def _level_logprobs(logits: Tensor, level_ids: Sequence[Ids]) -> Array:
    """Log-probability of each level over the whole vocabulary: shape (rows, positions, 5) in float64."""
    logprobs = logits.float().log_softmax(dim=-1)
    levels = [logprobs[..., list(ids)].logsumexp(dim=-1) for ids in level_ids]
    return np.asarray(torch.stack(levels, dim=-1).double().cpu().numpy())


def _unsuited(config: Any) -> str | None:
    """Why packed scoring cannot be right for a model, where its configuration tells."""
    rope = str(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or "")
    if "longrope" in rope or "dynamic" in rope:
        return "its rotary embedding changes with the length of the prompt"
    kinds = sorted(set(getattr(config, "layer_types", None) or []) - {"full_attention"})
    if kinds:
        return f"its layers use {', '.join(kinds)}"
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        return f"its attention has a sliding window of {window} tokens"
    return None


def _load(folder: Path, device: torch.device) -> Any:
    disable_progress_bar()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, local_files_only=True
        )
        return model.to(device).eval()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise EngineError(f"{folder}: the model cannot be loaded: {one_line(error)}") from error
