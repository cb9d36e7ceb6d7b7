"""Attention over a tree of tokens that is laid out flat: full or windowed, capped or not, with sinks or without.

A token sees its own ancestors, and of those what the model's own rule for masks allows at their places in the token's
own prompt (a causal rule allows all, a sliding window the nearest). The rule is the library's, so windows and chunks
are as the model means them.

Attention is computed in two parts. That end of the prefix which every token of the pass sees needs no mask: all rows,
and all heads that share keys, are one long query, and the prefix is never copied. What only some of them see (the
reach of a window into the prefix, the opening, the row itself) is gathered for each row, masked and small. The parts
are merged by their log-sum-exps, which is exact (cascade attention: Juravsky et al. 2024, "Hydragen", section 3.1; Ye
et al. 2024, "FlashInfer").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.masking_utils import causal_mask_function

from judge.engines.packed.tree_pass import TreePass, consecutive, padded

ALIGNMENT = 8
"""Keys of a row are padded to a multiple of this, as GPU kernels require of a mask."""


QUERIES = 128
"""Tokens of a row that attend together. Earlier blocks see fewer of the row's keys, and only those are read."""


FLASH_WIDTH = 256
"""The widest head that flash attention takes on a GPU."""


CAPPED_LOGITS = 2**24
"""How many logits of capped attention are held at once; no fused kernel caps them."""


Rule = Callable[[Any, Any, Any, Any], Any]
"""A mask function of transformers: whether the query at one place sees the key at another, given batch and head."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of attention, by what it does to logits besides scaling them: ``cap * tanh(logits / cap)``, sinks."""

    rule: Rule
    scale: float
    cap: float | None = None
    sinks: Tensor | None = None
    """Shape (heads,): a logit that takes its share of the softmax and stands for no token."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Tokens of all rows for which attention within rows is computed together.

    Rows differ in length, so a block is a rectangle in which some places hold no token.
    """

    queries: Tensor
    """Shape (rows, width): the index of the token at each place; 0 where there is none."""
    keys: slice
    """Which of a row's keys are read."""
    mask: Tensor
    """Shape (rows, 1, group x width, keys): 0 for a key that is seen, otherwise the smallest number."""
    back: Tensor
    """Shape (real tokens,): the places that hold a token, counted row after row."""
    tokens: Tensor
    """Shape (real tokens,): the indices of those tokens."""


class _View:
    """What the tokens of a pass see in layers of one rule.

    Attributes:
        shared: the first token of the prefix from which on every token of the pass sees all.
        some: which tokens of the prefix before that are seen by some; they are joined to the rows.
        keys: shape (rows, keys): which tokens each row may see, as indices of ``some``, the tokens above, its own.
        all: blocks of all tokens.
        leaves: a block of the last tokens of all leaves: in the last layer no other is read.
    """

    def __init__(self, tree: TreePass, rule: Rule, group: int, dtype: torch.dtype) -> None:
        before, own, depths = tree.prefix.tokens, tree.own, tree.depths
        real = own >= 0
        self.shared, first = 0, 0
        sees: np.ndarray | None = None
        if rule is not causal_mask_function:
            low, high = before + int(depths[real].min()), before + int(depths[real].max())
            # Line: a place in a prompt from `low` on; column: a place in the same prompt.
            sees = np.asarray(rule(torch.tensor(0), torch.tensor(0), _places(low, high)[:, None], _places(0, high)))
            by_all = sees[:, :before].all(axis=0)
            self.shared = 0 if by_all.all() else int(np.flatnonzero(~by_all)[-1]) + 1
            by_some = np.flatnonzero(sees[:, : self.shared].any(axis=0))
            first = int(by_some[0]) if len(by_some) else self.shared
        self.some = slice(first, self.shared)

        lengths = [row.above.length for row in tree.rows]
        prefix = np.tile(np.arange(self.shared - first), (len(tree.rows), 1))
        above = padded([np.arange(row.above.start, row.above.end) for row in tree.rows])
        above_depths = padded([np.arange(length) for length in lengths])
        stretches = [prefix, _moved(above, prefix.shape[1]), _moved(own, prefix.shape[1] + tree.above.tokens)]
        keys = _aligned(np.concatenate(stretches, axis=1))
        visible = _visible(tree.segments, keys >= 0, prefix.shape[1] + above.shape[1])
        if sees is not None:
            places = [first + prefix, _moved(above_depths, before), np.where(real, before + depths, -1)]
            key_places = _aligned(np.concatenate(places, axis=1))
            visible &= sees[np.where(real, before + depths - low, 0)[:, :, None], key_places[:, None, :]]
        self.keys = tree.tensor(keys.clip(0))

        def block(queries: np.ndarray, visible: np.ndarray) -> _Block:
            return _block(tree, queries, visible, group, dtype)

        starts = range(0, own.shape[1], QUERIES)
        self.all = [block(own[:, i : i + QUERIES], visible[:, i : i + QUERIES]) for i in starts]
        # In the last layer the queries are the leaves' last tokens alone, so they are numbered among themselves; what
        # each sees is taken from its line of `visible`.
        numbers = padded(consecutive([len(row.leaves) for row in tree.rows]))
        self.leaves = [block(numbers, np.take_along_axis(visible, tree.in_row.clip(0)[:, :, None], axis=1))]


class TreeAttention:
    """The attention of one pass.

    Args:
        last: the number of the model's last layer.
        dtype: the precision of its attention.
    """

    def __init__(self, tree: TreePass, last: int, dtype: torch.dtype) -> None:
        self._tree, self._last, self._dtype = tree, last, dtype
        self._views: dict[tuple[Rule, int], _View] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, kind: Kind, layer: int) -> Tensor:
        """Attention of all tokens in one layer: shape (1, heads, tokens, width) in, with the values' width out.

        In the last layer only the result of the leaves' last tokens is ever read; that of the others is 0.
        """
        tree, group = self._tree, query.shape[1] // key.shape[1]
        tree.computed.keys_values[layer] = (key, value)
        view = self._views.get((kind.rule, group))
        if view is None:
            view = self._views[kind.rule, group] = _View(tree, kind.rule, group, self._dtype)
        if layer != self._last:
            return self._attend(query, key, value, kind, layer, view, view.all)
        output = query.new_zeros((*query.shape[:3], value.shape[3]))
        if len(tree.last):
            output[:, :, tree.last] = self._attend(query[:, :, tree.last], key, value, kind, layer, view, view.leaves)
        return output

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, kind: Kind, layer: int, view: _View, blocks: list[_Block]
    ) -> Tensor:
        """Attention of the tokens in some blocks to all that they see."""
        above, prefix = self._tree.above.keys_values.get(layer), self._tree.prefix.keys_values.get(layer)
        parts = [(key, value)]
        if above is not None:
            parts.insert(0, above)
        if prefix is not None and view.some.stop > view.some.start:
            parts.insert(0, (prefix[0][:, :, view.some], prefix[1][:, :, view.some]))
        keys, values = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]
        output, lse = _attend_rows(query, keys, values, kind, view.keys, blocks)
        if prefix is not None and view.shared < self._tree.prefix.tokens:
            # Without a mask the order of queries is free, so the query heads of a group are laid end to end: one kernel
            # call reads the keys of the prefix once for all of them, instead of a copy of them for each row and head.
            folded = query.reshape(1, key.shape[1], -1, query.shape[3])
            shared_keys, shared_values = (part[:, :, view.shared :] for part in prefix)
            shared, shared_lse = attention(folded, shared_keys, shared_values, None, kind)
            # Softmax over both parts: each counts by its sum of exponentials, so the part within rows has the weight
            # e^within / (e^within + e^shared), which is the sigmoid of the difference and cannot overflow.
            shared_lse = shared_lse.reshape(lse.shape)
            weight = torch.sigmoid(lse - shared_lse)[..., None]
            output = torch.lerp(shared.reshape(output.shape).to(weight.dtype), output.to(weight.dtype), weight)
            lse = torch.logaddexp(lse, shared_lse)
        if kind.sinks is not None:
            output = output * torch.sigmoid(lse - kind.sinks.float()[None, :, None])[..., None]
        return output.to(query.dtype)


def _attend_rows(
    query: Tensor, key: Tensor, value: Tensor, kind: Kind, key_tokens: Tensor, blocks: list[_Block]
) -> tuple[Tensor, Tensor]:
    """Attention within rows, with its log-sum-exps: shapes (1, heads, tokens, width) and (1, heads, tokens)."""
    # A group of query heads shares a key head. Its queries stand one head after another in one long query, so that
    # keys need not be repeated for each head.
    heads, key_heads, size = query.shape[1], key.shape[1], query.shape[3]
    group = heads // key_heads
    keys, values = (tensor[0][:, key_tokens].transpose(0, 1) for tensor in (key, value))
    output = query.new_empty((*query.shape[:3], value.shape[3]))
    lse = query.new_empty(query.shape[:3], dtype=torch.float32)
    for block in blocks:
        rows, width = block.queries.shape
        queries = query[0].view(key_heads, group, -1, size)[:, :, block.queries].permute(2, 0, 1, 3, 4)
        queries = queries.reshape(rows, key_heads, group * width, size)
        found, sums = attention(queries, keys[:, :, block.keys], values[:, :, block.keys], block.mask, kind)
        found = found.reshape(rows, heads, width, -1).transpose(0, 1).reshape(heads, rows * width, -1)
        output[0, :, block.tokens] = found[:, block.back]
        lse[0, :, block.tokens] = sums.reshape(rows, heads, width).transpose(0, 1).reshape(heads, -1)[:, block.back]
    return output, lse


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kind: Kind) -> tuple[Tensor, Tensor]:
    """Attention by torch's fused kernels, with the log-sum-exp of each query's logits.

    ``scaled_dot_product_attention`` does not return the log-sum-exps, so the kernels below it are called themselves.

    Args:
        query: shape (rows, heads, queries, width); ``key`` and ``value`` with as many heads.
        mask: numbers to add, shape (rows, 1, queries, keys), or None.

    Returns:
        The output, shaped as the query but as wide as the values, and the log-sum-exps, shape (rows, heads, queries),
        float32.
    """
    if kind.cap is not None:
        return _capped_attention(query, key, value, mask, kind.scale, kind.cap)
    # The kernels want one width. Zeros change neither the products of queries and keys nor the other values.
    width = value.shape[3]
    widest = max(query.shape[3], width)
    query, key, value = (pad(x, (0, widest - x.shape[3])) if x.shape[3] < widest else x for x in (query, key, value))
    aten: Any = torch.ops.aten
    if query.device.type == "cpu":
        output, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, scale=kind.scale
        )
    elif mask is None and query.dtype != torch.float32 and widest <= FLASH_WIDTH:
        output, lse = aten._scaled_dot_product_flash_attention(query, key, value, scale=kind.scale)[:2]
    else:
        # Flash attention takes no mask and no float32; this kernel takes both.
        bias = None if mask is None else mask.expand(-1, query.shape[1], -1, -1)
        output, lse = aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, scale=kind.scale)[:2]
    return output[..., :width], lse[..., : query.shape[2]]  # the last kernel pads them


def _capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, cap: float
) -> tuple[Tensor, Tensor]:
    """As ``attention``, with logits capped (Gemma 2; Bello et al. 2016): so many queries at a time as memory allows."""
    outputs, sums = [], []
    step = max(1, CAPPED_LOGITS // (query.shape[0] * query.shape[1] * key.shape[2]))
    for start in range(0, query.shape[2], step):
        logits = (query[:, :, start : start + step] @ key.transpose(2, 3)).float() * scale
        logits = logits.div_(cap).tanh_().mul_(cap)
        if mask is not None:
            logits += mask[:, :, start : start + step]
        sums.append(logits.logsumexp(dim=-1))
        outputs.append(logits.sub_(sums[-1][..., None]).exp_().to(value.dtype) @ value)
    return torch.cat(outputs, dim=2), torch.cat(sums, dim=2)


def _block(tree: TreePass, queries: np.ndarray, visible: np.ndarray, group: int, dtype: torch.dtype) -> _Block:
    """The block of some queries.

    Args:
        queries: shape (rows, width): indices of tokens, -1 for none.
        visible: shape (rows, width, keys): which keys of its row each sees.
    """
    real = queries >= 0
    # From the first key to the last that any of them sees.
    seen = np.flatnonzero((visible & real[:, :, None]).any(axis=(0, 1)))
    first, last = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
    keys = slice(first - first % ALIGNMENT, last + -last % ALIGNMENT)
    is_seen = tree.tensor(visible[:, :, keys])
    mask = torch.zeros(is_seen.shape, dtype=dtype, device=tree.device)
    # The smallest number and not minus infinity: a place without a token sees nothing, and would become NaN.
    mask.masked_fill_(~is_seen, torch.finfo(dtype).min)
    return _Block(
        queries=tree.tensor(queries.clip(0)),
        keys=keys,
        mask=mask.repeat(1, group, 1)[:, None],  # once for each query head of a group, see _attend_rows
        back=tree.tensor(np.flatnonzero(real)),
        tokens=tree.tensor(queries[real]),
    )


def _visible(segments: np.ndarray, real: np.ndarray, above: int) -> np.ndarray:
    """Which keys each token of a row sees by the tree alone, shape (rows, tokens, keys).

    Args:
        segments: shape (rows, tokens): the part of its row that a token belongs to, 0 for the trunk.
        real: shape (rows, keys): the keys that are there; the others are padding.
        above: how many keys stand above the row. All tokens see them.
    """
    tokens, keys = segments.shape[1], real.shape[1]
    own = np.zeros((*segments.shape, keys), dtype=bool)
    own[:, :, :above] = True
    # An ancestor comes earlier, and is in the trunk or in the same leaf.
    query, key = segments[:, :, None], segments[:, None, :]
    causal = np.tril(np.ones((tokens, tokens), dtype=bool))
    own[:, :, above : above + tokens] = causal & ((key == 0) | (key == query))
    own &= real[:, None, :]
    return own


def _places(first: int, last: int) -> Tensor:
    return torch.arange(first, last + 1)


def _moved(indices: np.ndarray, by: int) -> np.ndarray:
    """Indices counted from elsewhere; -1 stays what it is."""
    return np.where(indices >= 0, indices + by, -1)


def _aligned(keys: np.ndarray) -> np.ndarray:
    return np.pad(keys, ((0, 0), (0, -keys.shape[1] % ALIGNMENT)), constant_values=-1)
