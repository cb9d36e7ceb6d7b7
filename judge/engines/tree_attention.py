"""Attention over a tree of tokens that is laid out flat: no token is computed twice, none is padding.

The tokens of a pass stand in one sequence, row after row. A row is a stretch of the tree (a dialogue, say) with its
leaves. Its tokens see three things: a prefix that all rows share, a stretch above the row that was computed in an
earlier pass (``above``), and their own ancestors in the row.

Attention is computed in two parts. Over the prefix it needs no mask: all rows, and all heads that share keys, are one
long query, and the prefix is never copied. Within rows it is masked and small. The parts are merged by their
log-sum-exps, which is exact (cascade attention: Juravsky et al. 2024, "Hydragen", section 3.1; Ye et al. 2024,
"FlashInfer").

Knows rows of tokens and nothing of prompts. A model calls it through transformers' attention interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "esrp_tree"
"""The name under which transformers knows this attention."""


ALIGNMENT = 8
"""Keys of a row are padded to a multiple of this, as GPU kernels require of a mask."""


QUERIES = 128
"""Tokens of a row that attend together. Earlier blocks see fewer of the row's keys, and only those are read."""


Layers = list[tuple[Tensor, Tensor]]
"""Keys and values: for each layer a pair of tensors of shape (1, key heads, tokens, width)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stretch of the tree, by numbers of tokens: a trunk, and leaves that see the trunk but not each other.

    ``above`` is what the row hangs from: start and end within the tokens of ``TreePass.above``.
    """

    trunk: int
    leaves: tuple[int, ...] = ()
    above: tuple[int, int] = (0, 0)

    @property
    def length(self) -> int:
        """Tokens of the row itself."""
        return self.trunk + sum(self.leaves)


@dataclass(frozen=True, slots=True)
class _Block:
    """Tokens of all rows for which attention within rows is computed together.

    Rows differ in length, so a block is a rectangle in which some places hold no token.
    """

    queries: Tensor
    """Shape (rows, width): the index of the token at each place; 0 where there is none."""
    mask: Tensor
    """Shape (rows, 1, group x width, keys): 0 for a key that is seen, otherwise the smallest number."""
    back: Tensor
    """Shape (real tokens,): the places that hold a token, counted row after row."""
    tokens: Tensor
    """Shape (real tokens,): the indices of those tokens."""


@dataclass(slots=True)
class TreePass:
    """All that attention must know of one pass over some rows.

    Args:
        rows: the rows, in the order of their tokens.
        prefix, above: keys and values from earlier passes; empty for none.
        group: how many query heads share a key head.
        layers: how many layers the model has.
        computed: gets the keys and values of the pass's own tokens, layer after layer.
    """

    rows: Sequence[Row]
    prefix: Layers
    above: Layers
    group: int
    layers: int
    device: torch.device
    dtype: torch.dtype
    computed: Layers = field(default_factory=list)
    positions: Tensor = field(init=False)
    """Shape (1, tokens): the place of each token in its own prompt."""
    last: Tensor = field(init=False)
    """Shape (all leaves,): the index of the last token of every leaf, where the answer is read."""
    _keys: Tensor = field(init=False)
    """Shape (rows, keys): which tokens each row may see, the stretch above it first, then its own."""
    _all: list[_Block] = field(init=False)
    """All tokens."""
    _leaves: list[_Block] = field(init=False)
    """The last tokens of all leaves: in the last layer no other is read."""

    def __post_init__(self) -> None:
        # Every array below has a line per row; -1 stands where a row is shorter than the longest one.
        #
        # `segments`: which part of its row a token belongs to, 0 the trunk, 1.. the leaves. `places`: how many of the
        # row's tokens come before it on its own path. Leaves are alternatives, so each begins right after the trunk.
        segments = _padded([np.repeat(np.arange(len(row.leaves) + 1), (row.trunk, *row.leaves)) for row in self.rows])
        leaves = [[np.arange(row.trunk, row.trunk + leaf) for leaf in row.leaves] for row in self.rows]
        trunks = [np.arange(row.trunk) for row in self.rows]
        places = _padded([np.concatenate([trunk, *own]) for trunk, own in zip(trunks, leaves, strict=True)])
        above = _padded([np.arange(*row.above) for row in self.rows])
        own = _padded(_consecutive([row.length for row in self.rows]))
        real = own >= 0

        before = self.prefix[0][0].shape[2] if self.prefix else 0
        depth = np.array([row.above[1] - row.above[0] for row in self.rows])
        self.positions = self._tensor((before + depth[:, None] + places)[real][None])

        # A row gathers its keys from the tokens above and the pass's own, which stand one after the other.
        offset = self.above[0][0].shape[2] if self.above else 0
        keys = np.concatenate([above, np.where(real, own + offset, -1)], axis=1)
        keys = np.pad(keys, ((0, 0), (0, -keys.shape[1] % ALIGNMENT)), constant_values=-1)
        visible = _visible(segments, keys >= 0, above.shape[1])
        self._keys = self._tensor(keys.clip(0))
        starts = range(0, own.shape[1], QUERIES)
        self._all = [self._block(own[:, i : i + QUERIES], visible[:, i : i + QUERIES]) for i in starts]

        first = np.cumsum([0, *(row.length for row in self.rows[:-1])])
        ends = [row.trunk + np.cumsum(row.leaves, dtype=int) - 1 for row in self.rows]
        last = _padded([start + end for start, end in zip(first, ends, strict=True)])
        self.last = self._tensor(last[last >= 0])
        # In the last layer the queries are the leaves' last tokens alone, so they are numbered among themselves; what
        # each sees is taken from its line of `visible`.
        numbers = _padded(_consecutive([len(row.leaves) for row in self.rows]))
        in_row = (last - own[:, :1]).clip(0)
        self._leaves = [self._block(numbers, np.take_along_axis(visible, in_row[:, :, None], axis=1))]

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)

    def _block(self, queries: np.ndarray, visible: np.ndarray) -> _Block:
        """The block of some queries.

        Args:
            queries: shape (rows, width): indices of tokens, -1 for none.
            visible: shape (rows, width, keys): which keys of its row each sees.
        """
        real = queries >= 0
        # No further keys than the farthest that any of them sees.
        seen = np.flatnonzero((visible & real[:, :, None]).any(axis=(0, 1)))
        keys = -(-(seen[-1] + 1 if len(seen) else 0) // ALIGNMENT) * ALIGNMENT
        is_seen = self._tensor(visible[:, :, :keys])
        mask = torch.zeros(is_seen.shape, dtype=self.dtype, device=self.device)
        # The smallest number and not minus infinity: a place without a token sees nothing, and would become NaN.
        mask.masked_fill_(~is_seen, torch.finfo(self.dtype).min)
        return _Block(
            queries=self._tensor(queries.clip(0)),
            mask=mask.repeat(1, self.group, 1)[:, None],  # once for each query head of a group, see _attend_rows
            back=self._tensor(np.flatnonzero(real)),
            tokens=self._tensor(queries[real]),
        )

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        """Attention of all tokens in one layer: shape (1, heads, tokens, width) in and out.

        In the last layer only the result of the leaves' last tokens is ever read; that of the others is 0.
        """
        self.computed.append((key, value))
        if layer < self.layers - 1:
            return self._attend(query, key, value, scale, layer, self._all)
        output = torch.zeros_like(query)
        if len(self.last):
            output[:, :, self.last] = self._attend(query[:, :, self.last], key, value, scale, layer, self._leaves)
        return output

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int, blocks: list[_Block]
    ) -> Tensor:
        """Attention of the tokens in some blocks to all that they see."""
        keys, values = key, value
        if self.above:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self.above[layer], (key, value), strict=True))
        within, within_lse = self._attend_rows(query, keys, values, scale, blocks)
        if not self.prefix:
            return within
        # Without a mask the order of queries is free, so the query heads of a group are laid end to end: one kernel
        # call reads the keys of the prefix once for all of them, instead of a copy of them for each row and head.
        folded = query.reshape(1, key.shape[1], -1, query.shape[3])
        shared, shared_lse = attention(folded, *self.prefix[layer], None, scale)
        # Softmax over both parts: each counts by its sum of exponentials, so the part within rows has the weight
        # e^within / (e^within + e^shared), which is the sigmoid of the difference and cannot overflow.
        weight = torch.sigmoid(within_lse - shared_lse.reshape(within_lse.shape))[..., None]
        merged = torch.lerp(shared.reshape(within.shape).to(weight.dtype), within.to(weight.dtype), weight)
        return merged.to(query.dtype)

    def _attend_rows(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, blocks: list[_Block]
    ) -> tuple[Tensor, Tensor]:
        """Attention within rows, with its log-sum-exps: shapes (1, heads, tokens, width) and (1, heads, tokens)."""
        # A group of query heads shares a key head. Its queries stand one head after another in one long query, so that
        # keys need not be repeated for each head.
        heads, key_heads, size = query.shape[1], key.shape[1], query.shape[3]
        keys, values = (tensor[0][:, self._keys].transpose(0, 1) for tensor in (key, value))
        output, lse = torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.float32)
        for block in blocks:
            (rows, width), seen = block.queries.shape, block.mask.shape[3]
            queries = query[0].view(key_heads, self.group, -1, size)[:, :, block.queries].permute(2, 0, 1, 3, 4)
            queries = queries.reshape(rows, key_heads, self.group * width, size)
            found, sums = attention(queries, keys[:, :, :seen], values[:, :, :seen], block.mask, scale)
            found = found.reshape(rows, heads, width, size).transpose(0, 1).reshape(heads, rows * width, size)
            output[0, :, block.tokens] = found[:, block.back]
            lse[0, :, block.tokens] = sums.reshape(rows, heads, width).transpose(0, 1).reshape(heads, -1)[:, block.back]
        return output, lse


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention by torch's fused kernels, with the log-sum-exp of each query's logits.

    ``scaled_dot_product_attention`` does not return the log-sum-exps, so the kernels below it are called themselves.

    Args:
        query: shape (rows, heads, queries, width); ``key`` and ``value`` with as many heads.
        mask: numbers to add, shape (rows, 1, queries, keys), or None.

    Returns:
        The output, shaped as the query, and the log-sum-exps, shape (rows, heads, queries), float32.
    """
    aten: Any = torch.ops.aten
    if query.device.type == "cpu":
        output, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=mask, scale=scale)
    elif mask is None and query.dtype != torch.float32:
        output, lse = aten._scaled_dot_product_flash_attention(query, key, value, scale=scale)[:2]
    else:
        # Flash attention takes no mask and no float32; this kernel takes both.
        bias = None if mask is None else mask.expand(-1, query.shape[1], -1, -1)
        output, lse = aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, scale=scale)[:2]
    return output, lse[..., : query.shape[2]]  # the last kernel pads them


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: TreePass,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; NotImplementedError for what is not plain attention."""
    if sliding_window is not None or softcap is not None or s_aux is not None:
        raise NotImplementedError("attention with a window, a cap or sinks")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return tree.attend(query, key, value, scale, int(module.layer_idx)).transpose(1, 2).contiguous(), None  # type: ignore[arg-type]


AttentionInterface.register(NAME, tree_attention)


@contextmanager
def used_by(model: Any) -> Iterator[None]:
    """While this lasts, a model of transformers attends by ``tree_attention``."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def last_mlp_at(model: Any, places: Tensor) -> Iterator[None]:
    """While this lasts, the last layer's MLP is computed at some places of the sequence and is 0 elsewhere.

    This changes nothing that is read: an MLP treats each token by itself, and of the last layer only these places are
    read. A model whose last layer has something else there, such as experts, is left as it is.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    mlp: Any = getattr(layers[-1], "mlp", None) if layers else None
    if not type(mlp).__name__.endswith("MLP"):
        yield
        return
    forward = mlp.forward

    def at_places(hidden: Tensor) -> Tensor:
        return torch.zeros_like(hidden).index_copy_(1, places, forward(hidden[:, places]))

    mlp.forward = at_places
    try:
        yield
    finally:
        mlp.forward = forward


def _consecutive(lengths: Sequence[int]) -> list[np.ndarray]:
    """The indices of each row's tokens in the sequence."""
    ends = np.cumsum(lengths)
    return [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def _padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of indices as one, shape (rows, longest), with -1 after the shorter ones."""
    whole = np.full((len(arrays), max(map(len, arrays))), -1)
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
    return whole


def _visible(segments: np.ndarray, real: np.ndarray, above: int) -> np.ndarray:
    """Which keys each token of a row sees, shape (rows, tokens, keys).

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
