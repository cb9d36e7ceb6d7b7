"""Scoring by the library's own caches: for models whose layers have no way along a tree.

What leaves share is computed once and its cache copied at each branch; the leaves of a dialogue are one batch. The
cache is the model's own, so this is right wherever the library is, whatever the architecture keeps.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin

from judge.engines.packed.kept import KEPT_PREFIXES, Kept
from judge.prompting.prompt_tree import Ids, PromptTree

LONGEST_PIECE = 2048
"""Tokens. What is shared is computed in pieces of at most this length, as the memory of a mask grows with it."""


class ForkedCaches:
    """The caches of a model: of roots, of characters, and of the opening that was asked for last."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # What the model calls its cache; some recurrent ones have another name for it.
        self._name = (
            "cache_params" if "cache_params" in inspect.signature(model.forward).parameters else "past_key_values"
        )
        self.forget()

    def forget(self) -> None:
        """Let go of all that is kept."""
        self._prefixes: Kept[Any] = Kept(KEPT_PREFIXES)
        self._openings: Kept[Any] = Kept(1)

    def prefix(self, tree: PromptTree) -> Any:
        """The cache of a tree's root and character, to be copied."""
        root = self._prefixes.get(tree.root, lambda: self._extended(None, tree.root))
        whole = tree.root + tree.character
        return self._prefixes.get(whole, lambda: self._extended(root, tree.character))

    def leaf_logits(self, tree: PromptTree, at_once: int) -> Tensor:
        """Logits at the leaves of a tree, shape (leaves, vocabulary); so many leaves a batch."""
        opening = tree.root, tree.character, tree.opening
        opened = self._openings.get(opening, lambda: self._extended(self.prefix(tree), tree.opening))
        above = self._extended(opened, tree.dialogue)
        found = []
        for start in range(0, len(tree.leaves), at_once):
            leaves = tree.leaves[start : start + at_once]
            longest = max(map(len, leaves))
            # What follows a leaf's end cannot change what is read there.
            ids = torch.tensor([leaf + leaf[-1:] * (longest - len(leaf)) for leaf in leaves])
            cache = deepcopy(above)
            cache.reorder_cache(torch.zeros(len(leaves), dtype=torch.long, device=self._model.device))
            places, which = np.unique([len(leaf) - 1 for leaf in leaves], return_inverse=True)
            logits, _ = self._call(ids, cache, torch.from_numpy(places).to(self._model.device))
            found.append(logits[torch.arange(len(leaves)), torch.from_numpy(which)])
        return torch.cat(found)

    def kept(self, tree: PromptTree) -> set[tuple[str, int]]:
        """What the library keeps of a tree's prefix: fields of ``Computed``, each with the number of a layer."""
        found = set()
        for number, layer in enumerate(getattr(self.prefix(tree), "layers", ())):
            fields = {
                "keys_values": isinstance(getattr(layer, "keys", None), Tensor),
                "inputs": any(getattr(layer, "is_conv_states_initialized", {}).values()),
                "states": any(getattr(layer, "is_recurrent_states_initialized", {}).values()),
            }
            found |= {(name, number) for name, is_there in fields.items() if is_there}
        return found

    @property
    def token_bytes(self) -> float:
        """Bytes that are kept of a token of a prefix."""
        sizes = [_bytes(vars(cache)) / len(ids) for ids, cache in self._prefixes.items() if ids]
        return max(sizes, default=0.0)

    def _extended(self, cache: Any, ids: Ids) -> Any:
        """A copy of a cache (none: the model makes one) with more tokens."""
        cache = deepcopy(cache)
        for start in range(0, len(ids), LONGEST_PIECE):
            cache = self._call(torch.tensor([ids[start : start + LONGEST_PIECE]]), cache, 1)[1]
        return cache

    def _call(self, ids: Tensor, cache: Any, places: int | Tensor) -> tuple[Tensor, Any]:
        """Logits at some places, and the cache with these tokens."""
        more = {self._name: cache, "use_cache": True, "logits_to_keep": places}
        output = self._model(input_ids=ids.to(self._model.device), **more)
        return output.logits, output[self._name]


def _bytes(value: Any) -> int:
    """The memory of all tensors in a value of the library's."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes, value))
    return _bytes(vars(value)) if isinstance(value, CacheLayerMixin | LinearAttentionCacheLayerMixin) else 0
