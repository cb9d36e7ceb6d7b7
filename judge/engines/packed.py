"""Packed scoring on torch and transformers: one forward pass returns every metric of a batch of dialogues.

Each token of the prompt tree is computed once: rules and rubrics once, a character once, the opening of a dialogue
once for all systems that answer it, and each dialogue once for all its leaves. Attention lets each token see its
ancestors only (``judge.engines.tree_attention``), so that a pass gives what a separate call per leaf would give.

This is right only where a model's attention is plain. On loading, packed is compared with plain calls on a short tree,
and where the two differ the engine scores plainly from then on and says why: one call per leaf, which goes on from
transformers' own cache of what stands above it. Knows token ids and nothing of dialogues or metrics.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from judge.engines import Array, silent, tree_attention
from judge.engines.prefix_cache import KEPT_OPENINGS, KEPT_PREFIXES, Kept, joined
from judge.engines.tree_attention import Layers, Row, TreePass
from judge.errors import EngineError, one_line
from judge.prompting.prompt_tree import Ids, PromptTree

LONGEST_ROW = 6144
"""Tokens. A longer dialogue is scored plainly, as the memory of a mask grows with the square of the length."""


CHECKED = 24
"""Tokens of each part of a tree on which packed is compared with plain."""


LONGEST_PIECE = 2048
"""Tokens. A shared prefix is computed in pieces of at most this length, for the same reason."""


SMALLEST_BATCH = 256
"""Tokens a pass, below which a pass that ran out of memory is not tried again."""


MALLOC = {-3: 2**25, -1: 2**30}
"""Bytes for glibc's M_MMAP_THRESHOLD, at its maximum, and for M_TRIM_THRESHOLD."""


TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""By precision, the largest difference of a token's probability at which packed counts as equal to plain."""


Item = TypeVar("Item")


Read = Callable[[Tensor], Tensor]
"""What is taken of logits, a row per leaf: shape (leaves, any) from (leaves, vocabulary)."""


class PackedEngine:
    """Scores prompt trees with a causal language model in this process.

    Args:
        model: a causal language model of transformers, on its device.
        batch_tokens: how many tokens of dialogues one forward pass takes at most.
    """

    window = 1  # one batch of work, so that a run that goes on makes the same passes as one that was never stopped

    def __init__(self, model: Any, batch_tokens: int | None = None) -> None:
        self.model, self.device = model, model.device
        self.fallback: str | None = None
        self.on_progress: Callable[[int], None] = silent
        self.batch_tokens = batch_tokens or (16384 if self.device.type == "cuda" else 4096)
        self._halved = 0
        config = model.config.get_text_config()
        self.max_tokens = int(getattr(config, "max_position_embeddings", 2**31))
        self._group = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or 1)
        self._forget()

    @classmethod
    def load(cls, folder: Path, batch_tokens: int | None = None) -> PackedEngine:
        """The engine of a model folder (config, safetensors), on the visible GPU with most memory free or on the CPU.

        Raises:
            EngineError: the model cannot be loaded.
        """
        device, dtype = torch.device("cpu"), torch.float32
        if torch.cuda.is_available():
            free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
            device, dtype = torch.device("cuda", free.index(max(free))), torch.bfloat16
        elif sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
            # By default glibc returns a freed layer to the system, and the next layer is mapped and zeroed anew. That
            # was a sixth of a small model's time. Other C libraries have no mallopt and are left as they are.
            for option, value in MALLOC.items():
                mallopt(option, value)
        disable_progress_bar()
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, local_files_only=True
            )
            model = model.to(device).eval()
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            own = "it needs code of its own, which is never run; choose another judge"
            reason = own if "custom code" in str(error) else one_line(error)
            raise EngineError(f"{folder}: the model cannot be loaded: {reason}") from error
        return cls(model, batch_tokens)

    def _forget(self) -> None:
        """Let go of what was computed and kept: keys and values of packed passes, and caches of plain calls."""
        self._prefixes: Kept[Layers] = Kept(KEPT_PREFIXES)
        self._openings: Kept[tuple[Layers, dict[Ids, tuple[int, int]]]] = Kept(KEPT_OPENINGS)
        self._caches: Kept[Any] = Kept(KEPT_PREFIXES)

    @property
    def is_packed(self) -> bool:
        """Whether it scores packed; otherwise ``fallback`` says why it does not."""
        return self.fallback is None

    @property
    def name(self) -> str:
        """``packed``, or ``plain`` with the reason."""
        return "packed" if self.is_packed else f"plain ({self.fallback})"

    def verify(self, tree: PromptTree) -> None:
        """Compare packed with plain on a short piece of a tree, and fall back to plain, for good, where they differ.

        Two leaves of some hundred tokens are enough: a wrong mask or position shows in the first token after it. The
        whole vocabulary is compared, since on so little text the levels may have no probability that could differ.
        """
        self.fallback = self.fallback or _unsuited(self.model.config.get_text_config())
        if self.fallback is not None:
            return
        shared = (part[-CHECKED:] for part in (tree.root, tree.character, tree.opening, tree.dialogue))
        root, character, opening, dialogue = shared
        short = PromptTree(root, character, opening, dialogue, tuple(leaf[-CHECKED:] for leaf in tree.leaves[:2]))

        def probabilities(logits: Tensor) -> Tensor:
            # And not their logarithms: a token of no probability may differ in its logarithm by anything.
            return logits.float().softmax(dim=-1)

        try:
            plain = self._plain([short], probabilities)[0]
        except RuntimeError as error:
            raise EngineError(f"the model fails on this machine: {one_line(error)}; choose another judge") from error
        try:
            packed = self._packed([short], probabilities)[0]
        except torch.OutOfMemoryError as error:
            raise EngineError(f"the model leaves too little memory: {one_line(error)}; free some") from error
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            # Models that call attention in a way of their own fail in many ways here, and are still right plainly.
            self.fallback = f"packed scoring fails on this model: {one_line(error)}"
            return
        if (largest := float(np.abs(packed - plain).max())) > TOLERANCE[self.model.dtype]:
            self.fallback = f"packed differs from plain by {largest:.2g} in probability"

    def level_logprobs(self, trees: Sequence[PromptTree], level_ids: Sequence[Ids]) -> list[Array]:
        """See ``Engine.level_logprobs``."""
        score = self._packed if self.is_packed else self._plain
        while True:
            try:
                return score(trees, partial(_level_logprobs, level_ids=level_ids))
            except torch.OutOfMemoryError as error:
                if self.batch_tokens < 2 * SMALLEST_BATCH or not self.is_packed:
                    lack = f"out of memory: {one_line(error)}; free some or choose a smaller judge"
                    raise EngineError(lack) from error
                # What is kept of earlier batches goes first: it is the memory that can be had back for sure.
                self._forget()
                torch.cuda.empty_cache()
                self.batch_tokens //= 2
                self._halved += 1
            except RuntimeError as error:  # a lost device, a kernel that is missing
                raise EngineError(f"the model failed: {one_line(error)}; choose another judge or device") from error

    @torch.inference_mode()
    def generate(self, trees: Sequence[PromptTree], max_tokens: int) -> list[list[Ids]]:
        """See ``Engine.generate``; one prompt after another, but what they share is computed once."""
        # The likeliest token each time, whatever the model's folder says of sampling.
        end = self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        greedy = GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=end, pad_token_id=ends[0])

        def continued(tree: PromptTree, leaf: int) -> Ids:
            above = DynamicCache()  # a new one each time, as generating appends to it
            if self.is_packed:
                for layer, (keys, values) in enumerate(self._prefix(tree.root, tree.character)):
                    above.update(keys, values, layer)
            prompt = torch.tensor([tree.prompt(leaf)], device=self.device)
            mask = torch.ones_like(prompt)
            found = self.model.generate(prompt, attention_mask=mask, past_key_values=above, generation_config=greedy)
            return tuple(found[0, prompt.shape[1] :].tolist())

        try:
            return [[continued(tree, leaf) for leaf in range(len(tree.leaves))] for tree in trees]
        except RuntimeError as error:  # out of memory too
            raise EngineError(f"the model failed: {one_line(error)}; free some memory or choose another") from error

    @property
    def report(self) -> dict[str, Any]:
        """See ``Engine.report``."""
        return {"name": self.name, "batch_tokens": self.batch_tokens, "out_of_memory": self._halved}

    @torch.inference_mode()
    def _plain(self, trees: Sequence[PromptTree], read: Read) -> list[Array]:
        """What is read off each tree's logits, by a call per leaf on a copy of transformers' cache of all above it.

        The cache is the model's own, so this is right for windows, recurrent layers and whatever else it has.
        """

        def extended(cache: Any, ids: Ids) -> Any:
            cache = deepcopy(cache)  # calls append to it, and others go on from the same one
            for start in range(0, len(ids), LONGEST_PIECE):
                piece = torch.tensor([ids[start : start + LONGEST_PIECE]], device=self.device)
                self.model(input_ids=piece, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return cache

        config, found = self.model.config.get_text_config(decoder=True), []
        for tree in trees:
            begun = self._caches.get(tree.root, partial(extended, DynamicCache(config=config), tree.root))
            played = self._caches.get(tree.root + tree.character, partial(extended, begun, tree.character))
            above = extended(played, tree.opening + tree.dialogue)
            rows = []
            for leaf in tree.leaves:
                ids = torch.tensor([leaf], device=self.device)
                output = self.model(input_ids=ids, past_key_values=deepcopy(above), use_cache=True, logits_to_keep=1)
                rows.append(_to_array(read(output.logits[0])))
            found.append(np.concatenate(rows))
            self.on_progress(len(tree.leaves))
        return found

    @torch.inference_mode()
    def _packed(self, trees: Sequence[PromptTree], read: Read) -> list[Array]:
        """What is read off each tree's logits, by one pass per batch of trees that share root and character."""
        found: list[Array] = [np.empty(0)] * len(trees)
        for (root, character), group in groupby(range(len(trees)), key=lambda i: (trees[i].root, trees[i].character)):
            short = []
            for i in group:
                if max(trees[i].own, len(trees[i].opening)) > LONGEST_ROW:
                    found[i] = self._plain([trees[i]], read)[0]
                else:
                    short.append(i)
            if not short:
                continue
            prefix = self._prefix(root, character)
            above, places = self._computed_openings([trees[i] for i in short], prefix)
            # By length, so that the rows of a batch are about as long as each other: masks are as wide as the longest.
            short.sort(key=lambda i: trees[i].own)
            batches = list(_by_budget(short, lambda i: trees[i].own, self.batch_tokens))
            # On a GPU all batches are on their way before the first result is fetched, since fetching waits for it.
            passes = (read(self._leaf_logits([trees[i] for i in batch], prefix, above, places)) for batch in batches)
            for batch, taken in zip(batches, passes if self.device.type == "cpu" else list(passes), strict=True):
                ends = list(accumulate(len(trees[i].leaves) for i in batch))
                for i, own in zip(batch, np.split(_to_array(taken), ends[:-1]), strict=True):
                    found[i] = own
                    self.on_progress(len(own))
        return found

    def _leaf_logits(
        self, trees: Sequence[PromptTree], prefix: Layers, above: Layers, places: dict[Ids, tuple[int, int]]
    ) -> Tensor:
        """Logits at the leaves of all trees, shape (leaves, vocabulary), on the model's device."""
        ids = [token for tree in trees for part in (tree.dialogue, *tree.leaves) for token in part]
        rows = [
            Row(len(tree.dialogue), tuple(map(len, tree.leaves)), places.get(tree.opening, (0, 0))) for tree in trees
        ]
        return self._run(ids, rows, prefix, above)[0]

    def _prefix(self, root: Ids, character: Ids) -> Layers:
        """The keys and values of root and character, computed once; the last few are kept."""

        def extended(prefix: Layers, ids: Ids) -> Layers:
            for start in range(0, len(ids), LONGEST_PIECE):
                piece = ids[start : start + LONGEST_PIECE]
                prefix = joined([prefix, self._run(piece, [Row(len(piece))], prefix, [])[1]])
            return prefix

        start = self._prefixes.get(root, lambda: extended([], root))
        return self._prefixes.get(root + character, lambda: extended(start, character))

    def _computed_openings(
        self, trees: Sequence[PromptTree], prefix: Layers
    ) -> tuple[Layers, dict[Ids, tuple[int, int]]]:
        """Keys and values of the openings of some trees, and from where to where in them each opening stands.

        Systems that answer the same openings find them computed.
        """
        openings = tuple(sorted({tree.opening for tree in trees if tree.opening}, key=lambda ids: (len(ids), ids)))

        def compute() -> tuple[Layers, dict[Ids, tuple[int, int]]]:
            ends = list(accumulate(map(len, openings)))
            places = {ids: (end - len(ids), end) for ids, end in zip(openings, ends, strict=True)}
            passes = [
                self._run([token for ids in batch for token in ids], [Row(len(ids)) for ids in batch], prefix, [])[1]
                for batch in _by_budget(openings, len, self.batch_tokens)
            ]
            return joined(passes), places

        # Looked up as a whole set and never one by one. The last bits of a float depend on what is computed beside
        # it, so openings taken from an earlier batch would make these scores depend on what was judged before.
        return self._openings.get((trees[0].root, trees[0].character, openings), compute)

    def _run(self, ids: Sequence[int], rows: Sequence[Row], prefix: Layers, above: Layers) -> tuple[Tensor, Layers]:
        """One forward pass over some rows.

        Args:
            ids: the tokens of all rows, one row after another.
            rows: how the tokens belong together.
            prefix, above: keys and values that were computed before: of what all rows share, and of the openings.

        Returns:
            The logits at the ends of the leaves, shape (leaves, vocabulary), and the keys and values of all tokens.
        """
        layers = self.model.config.get_text_config().num_hidden_layers
        tree = TreePass(rows, prefix, above, self._group, layers, self.device, self.model.dtype)
        with tree_attention.used_by(self.model), tree_attention.last_mlp_at(self.model, tree.last):
            output = self.model(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=tree.positions,
                # Four dimensions are a mask that is ready, so transformers makes none; ours is in `tree`.
                attention_mask=torch.zeros(1, 1, 1, 1, device=self.device),
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


def _level_logprobs(logits: Tensor, level_ids: Sequence[Ids]) -> Tensor:
    """Log-probability of each level over the whole vocabulary: shape (positions, 5) from (positions, vocabulary)."""
    logits = logits.float()
    levels = [logits[:, list(ids)].logsumexp(dim=-1) for ids in level_ids]
    return torch.stack(levels, dim=-1) - logits.logsumexp(dim=-1, keepdim=True)


def _to_array(logprobs: Tensor) -> Array:
    return np.asarray(logprobs.double().cpu().numpy())


def _unsuited(config: Any) -> str | None:
    """Why packed scoring cannot be right for a model, where its configuration says so; otherwise None.

    The comparison on two dialogues would not find these: they are shorter than a window, or than the length from
    which on the embedding changes.
    """
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
