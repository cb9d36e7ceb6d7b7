"""Packed scoring on torch and transformers: one forward pass returns every metric of a batch of dialogues.

Rules and rubrics are computed once, a character once, the opening of a dialogue once for all the sources that answer
it, and each dialogue once for all its leaves; attention lets each token see its ancestors only
(``judge.engines.tree_attention``), so the pass gives exactly what a separate call per leaf would. This is right only
where a model's attention is plain; on loading, packed is compared with plain calls, and where they differ the engine
scores plainly and says so.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from judge.engines import Array, tree_attention
from judge.engines.prefix_cache import KEPT_OPENINGS, KEPT_PREFIXES, Kept, _joined
from judge.engines.tree_attention import Layers, Row, TreePass
from judge.errors import EngineError, one_line
from judge.prompting.prompt_tree import Ids, PromptTree

LONGEST_ROW = 6144
"""Dialogues of more tokens are scored plainly, as the memory of a mask grows with the square of them."""


LONGEST_PIECE = 2048
"""A shared prefix is computed in pieces of at most so many tokens, for the same reason."""


SMALLEST_BATCH = 256
"""Fewer tokens a pass than this are not tried after running out of memory."""


MALLOC = {-3: 2**25, -1: 2**30}
"""glibc's M_MMAP_THRESHOLD, as large as it may be, and M_TRIM_THRESHOLD: what is freed is kept for the next layer."""


TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest difference of a level's probability at which packed still counts as equal to plain, by precision."""


Item = TypeVar("Item")


class PackedEngine:
    """Scores prompt trees with a causal language model in this process.

    Args:
        model: a causal language model of transformers, on its device.
        batch_tokens: how many tokens of dialogues one forward pass takes.
    """

    window = 1

    def __init__(self, model: Any, batch_tokens: int | None = None) -> None:
        self.model, self.device = model, model.device
        self.name = "packed"
        self.batch_tokens = batch_tokens or (16384 if self.device.type == "cuda" else 4096)
        self._halved = 0
        config = model.config.get_text_config()
        self.max_tokens = int(getattr(config, "max_position_embeddings", 2**31))
        self._group = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or 1)
        self._prefixes: Kept[Layers] = Kept(KEPT_PREFIXES)
        self._openings: Kept[tuple[Layers, dict[Ids, tuple[int, int]]]] = Kept(KEPT_OPENINGS)

    @classmethod
    def load(cls, folder: Path, batch_tokens: int | None = None) -> PackedEngine:
        """The engine of a model folder (config, safetensors); EngineError where it cannot be loaded."""
        device = _device()
        if device.type == "cpu":
            # Have the C library keep the memory of a layer for the next one, instead of having it mapped and zeroed
            # anew. On a CPU a sixth of a small model's time was spent on that. Other C libraries than glibc are left
            # as they are.
            mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
            for option, value in MALLOC.items():
                if mallopt:
                    mallopt(option, value)
        return cls(_load(folder, device), batch_tokens)

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
        while True:
            try:
                return score(trees, level_ids)
            except torch.OutOfMemoryError as error:
                # Go on with half as many tokens a pass; EngineError where that is too few to be worth it.
                if self.batch_tokens < 2 * SMALLEST_BATCH or self.name != "packed":
                    raise EngineError(
                        f"out of memory: {one_line(error)}; free some or choose a smaller judge"
                    ) from error
                self._prefixes, self._openings = Kept(KEPT_PREFIXES), Kept(KEPT_OPENINGS)
                torch.cuda.empty_cache()
                self.batch_tokens //= 2
                self._halved += 1
            except RuntimeError as error:  # a lost device, a kernel that is missing
                raise EngineError(f"the model failed: {one_line(error)}; choose another judge or device") from error

    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Ids]]:
        """See ``Engine.generate``; one prompt after another, above which what they share is computed once."""
        try:
            return [[self._continued(tree, i, max_tokens) for i in range(len(tree.leaves))] for tree in trees]
        except RuntimeError as error:  # out of memory too
            raise EngineError(f"the model failed: {one_line(error)}; free some memory or choose another") from error

    @torch.inference_mode()
    def _continued(self, tree: PromptTree, leaf: int, max_tokens: int) -> Ids:
        shared = DynamicCache()
        if self.name == "packed":
            for layer, (keys, values) in enumerate(self._prefix(tree.root, tree.character)):
                shared.update(keys, values, layer)
        prompt = torch.tensor([tree.prompt(leaf)], device=self.device)
        # The likeliest token each time, whatever the model's folder says of sampling.
        end = self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        greedy = GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=end, pad_token_id=ends[0])
        found = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            past_key_values=shared,
            generation_config=greedy,
        )
        return tuple(found[0, prompt.shape[1] :].tolist())

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``."""
        return {"name": self.name, "batch_tokens": self.batch_tokens, "out_of_memory": self._halved}

    @torch.inference_mode()
    def _plain(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        return [
            np.concatenate([self._call(tree.prompt(leaf), level_ids) for leaf in range(len(tree.leaves))])
            for tree in trees
        ]

    def _call(self, prompt: Ids, level_ids: Sequence[Ids]) -> Array:
        ids = torch.tensor([prompt], device=self.device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0]
        return _to_array(_level_logprobs(logits, level_ids))

    @torch.inference_mode()
    def _packed(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        found: list[Array] = [np.empty(0)] * len(trees)
        for (root, character), group in groupby(range(len(trees)), key=lambda i: (trees[i].root, trees[i].character)):
            short = []
            for i in group:
                if max(trees[i].own, len(trees[i].opening)) > LONGEST_ROW:
                    found[i] = self._plain([trees[i]], level_ids)[0]
                else:
                    short.append(i)
            for i, row in self._below(self._prefix(root, character), short, trees, level_ids):
                found[i] = row
        return found

    def _below(
        self, prefix: Layers, indices: list[int], trees: Sequence[PromptTree], level_ids: Sequence[Ids]
    ) -> Iterator[tuple[int, Array]]:
        """Score trees that share their prefix; the results are fetched when all batches are on their way."""
        if not indices:
            return
        above, places = self._computed_openings([trees[i] for i in indices], prefix)
        batches = list(
            _by_budget(sorted(indices, key=lambda i: trees[i].own), lambda i: trees[i].own, self.batch_tokens)
        )
        rows = [self._forward([trees[i] for i in batch], prefix, above, places, level_ids) for batch in batches]
        for batch, found in zip(batches, rows, strict=True):
            array, leaves = _to_array(found), [len(trees[i].leaves) for i in batch]
            yield from zip(batch, np.split(array, list(accumulate(leaves))[:-1]), strict=True)

    def _prefix(self, root: Ids, character: Ids) -> Layers:
        """The keys and values of root and character, computed once; the last few are kept."""
        start = self._prefixes.get(root, lambda: self._extended([], root))
        return self._prefixes.get(root + character, lambda: self._extended(start, character))

    def _extended(self, prefix: Layers, ids: Ids) -> Layers:
        for start in range(0, len(ids), LONGEST_PIECE):
            piece = ids[start : start + LONGEST_PIECE]
            prefix = _joined([prefix, self._run(piece, [Row(len(piece))], prefix, [])[1]])
        return prefix

    def _computed_openings(
        self, trees: Sequence[PromptTree], prefix: Layers
    ) -> tuple[Layers, dict[Ids, tuple[int, int]]]:
        """Keys and values of the openings of some trees, and which stretch of them each opening is.

        All of these trees' openings are computed together, so that what comes out depends on these trees alone and
        not on what was computed before; the sources that answer the same openings find them done.
        """
        openings = tuple(sorted({tree.opening for tree in trees if tree.opening}, key=lambda ids: (len(ids), ids)))
        key = (trees[0].root, trees[0].character, openings)
        return self._openings.get(key, lambda: self._compute_openings(openings, prefix))

    def _compute_openings(self, openings: Sequence[Ids], prefix: Layers) -> tuple[Layers, dict[Ids, tuple[int, int]]]:
        ends = list(accumulate(map(len, openings)))
        places = {ids: (end - len(ids), end) for ids, end in zip(openings, ends, strict=True)}
        passes = [
            self._run([token for ids in batch for token in ids], [Row(len(ids)) for ids in batch], prefix, [])[1]
            for batch in _by_budget(openings, len, self.batch_tokens)
        ]
        return _joined(passes), places

    def _forward(
        self,
        trees: list[PromptTree],
        prefix: Layers,
        above: Layers,
        places: dict[Ids, tuple[int, int]],
        level_ids: Sequence[Ids],
    ) -> Tensor:
        """Log-probabilities of the levels at the leaves of all trees, shape (leaves, 5), on the model's device."""
        ids = [token for tree in trees for part in (tree.dialogue, *tree.leaves) for token in part]
        rows = [
            Row(len(tree.dialogue), tuple(map(len, tree.leaves)), places.get(tree.opening, (0, 0))) for tree in trees
        ]
        return _level_logprobs(self._run(ids, rows, prefix, above)[0], level_ids)

    def _run(self, ids: Sequence[int], rows: Sequence[Row], prefix: Layers, above: Layers) -> tuple[Tensor, Layers]:
        """One pass: the logits at the leaves, shape (leaves, vocabulary), and the keys and values of all its tokens."""
        layers = self.model.config.get_text_config().num_hidden_layers
        tree = TreePass(rows, prefix, above, self._group, layers, self.device, self.model.dtype)
        with tree_attention.used_by(self.model), tree_attention.last_mlp_at(self.model, tree.last):
            output = self.model(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=tree.positions,
                attention_mask=torch.zeros(1, 1, 1, 1, device=self.device),  # shaped as a ready one: none is made
                use_cache=False,
                logits_to_keep=tree.last,
                tree=tree,
            )
        return output.logits[0], tree.computed


def _by_budget(items: Sequence[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Consecutive items whose sizes add up to at most ``most``; an item that is larger stands alone."""
    batch: list[Item] = []
    for item in items:
        if batch and sum(map(size, batch)) + size(item) > most:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _device() -> torch.device:
    """The visible GPU with most memory free, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return torch.device("cuda", free.index(max(free)))


def _level_logprobs(logits: Tensor, level_ids: Sequence[Ids]) -> Tensor:
    """Log-probability of each level over the whole vocabulary: shape (positions, 5) from (positions, vocabulary)."""
    logits = logits.float()
    levels = [logits[:, list(ids)].logsumexp(dim=-1) for ids in level_ids]
    return torch.stack(levels, dim=-1) - logits.logsumexp(dim=-1, keepdim=True)


def _to_array(logprobs: Tensor) -> Array:
    return np.asarray(logprobs.double().cpu().numpy())


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
        own = "it needs code of its own, which is never run; choose another judge"
        reason = own if "custom code" in str(error) else one_line(error)
        raise EngineError(f"{folder}: the model cannot be loaded: {reason}") from error
