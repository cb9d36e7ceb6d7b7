"""Attention over a tree of tokens that is laid out flat: no token is computed twice, none is padding.

The tokens of a pass stand in one sequence, row after row; a row is a stretch of the tree (a dialogue, say) with its
leaves. What a row's tokens see is a prefix that all rows share, a stretch above the row that was computed in an
earlier pass (``above``), and their own ancestors in the row. Attention over the prefix needs no mask, so all rows and
all heads that share keys are one long query and the prefix is never copied; attention within rows is small and
masked; the two are merged by their log-sum-exps, which is exact (cascade attention: Juravsky et al. 2024,
"Hydragen", section 3.1; Ye et al. 2024, "FlashInfer").
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
"""Keys of a row are padded to a multiple of this, as GPU kernels want of a mask."""


QUERIES = 128
"""Tokens of a row that attend together: the first of a row see few of its keys, which are then the only ones read."""


Layers = list[tuple[Tensor, Tensor]]
"""Keys and values, a pair a layer, each of shape (1, key heads, tokens, width)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stretch of the tree: a trunk of so many tokens, and leaves of so many that see it and not each other.

    ``above`` is what it hangs from: start and end within the tokens above the pass.
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

    ``queries`` are their indices, shape (rows, width), and ``mask`` what they see of the first keys of their row;
    ``back`` is where the real ones stand among all, flat, and ``tokens`` their indices again.
    """

    queries: Tensor
    mask: Tensor
    back: Tensor
    tokens: Tensor


@dataclass(slots=True)
class TreePass:
    """All that attention must know of one pass over some rows; ``computed`` gets the keys and values it makes.

    Args:
        rows: the rows, in the order of their tokens.
        prefix, above: keys and values from earlier passes; empty for none.
        group: how many query heads share a key head.
        layers: how many layers the model has.
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
    """Shape (rows x leaves,): the index of the last token of every leaf."""
    _keys: Tensor = field(init=False)
    _all: list[_Block] = field(init=False)
    _leaves: list[_Block] = field(init=False)

    def __post_init__(self) -> None:
        # Which part of its row each token belongs to, shape (rows, tokens): -1 none, 0 the trunk, 1.. the leaves.
        segments, places = (
            _padded([np.repeat(np.arange(len(row.leaves) + 1), (row.trunk, *row.leaves)) for row in self.rows]),
            _places(self.rows),
        )
        above = _padded([np.arange(*row.above) for row in self.rows])
        own = _padded(_consecutive([row.length for row in self.rows]))
        before = self.prefix[0][0].shape[2] if self.prefix else 0
        depth = np.array([row.above[1] - row.above[0] for row in self.rows])
        real = own >= 0
        self.positions = self._tensor((before + depth[:, None] + places)[real][None])
        offset = self.above[0][0].shape[2] if self.above else 0
        keys = np.concatenate([above, np.where(real, own + offset, -1)], axis=1)
        keys = np.pad(keys, ((0, 0), (0, -keys.shape[1] % ALIGNMENT)), constant_values=-1)
        visible = _visible(segments, keys >= 0, above.shape[1])
        self._keys = self._tensor(keys.clip(0))
        starts = range(0, own.shape[1], QUERIES)
        self._all = [self._block(own[:, i : i + QUERIES], visible[:, i : i + QUERIES]) for i in starts]
        last = _padded(_last(self.rows))
        self.last = self._tensor(last[last >= 0])
        in_row = (last - own[:, :1]).clip(0)
        numbers = _padded(_consecutive([len(row.leaves) for row in self.rows]))
        self._leaves = [self._block(numbers, np.take_along_axis(visible, in_row[:, :, None], axis=1))]

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)

    def _block(self, queries: np.ndarray, visible: np.ndarray) -> _Block:
        """Queries, as indices or -1 for none, with as many keys as any of them sees."""
        real = queries >= 0
        seen = np.flatnonzero((visible & real[:, :, None]).any(axis=(0, 1)))
        keys = -(-(seen[-1] + 1 if len(seen) else 0) // ALIGNMENT) * ALIGNMENT
        return _Block(
            queries=self._tensor(queries.clip(0)),
            back=self._tensor(np.flatnonzero(real)),
            tokens=self._tensor(queries[real]),
            mask=self._additive(visible[:, :, :keys]),
        )

    def _additive(self, visible: np.ndarray) -> Tensor:
        """The mask as numbers to add, once per query head of a group: shape (rows, 1, group x tokens, keys)."""
        seen = self._tensor(visible)
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=self.device)
        mask.masked_fill_(~seen, torch.finfo(self.dtype).min)
        return mask.repeat(1, self.group, 1)[:, None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        """Attention of all tokens in one layer: (1, heads, tokens, width) in and out.

        In the last layer only what the leaves' last tokens find is ever read; for the others it is 0.
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
        """Attention of some tokens, which blocks number, to all that they see."""
        within, within_lse = self._attend_rows(query, *self._with_above(key, value, layer), scale, blocks)
        if not self.prefix:
            return within
        folded = query.reshape(1, key.shape[1], -1, query.shape[3])
        shared, shared_lse = attention(folded, *self.prefix[layer], None, scale)
        weight = torch.sigmoid(within_lse - shared_lse.reshape(within_lse.shape))[..., None]
        return torch.lerp(shared.reshape(within.shape).to(weight.dtype), within.to(weight.dtype), weight).to(
            query.dtype
        )

    def _with_above(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        if not self.above:
            return key, value
        keys, values = self.above[layer]
        return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)

    def _attend_rows(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, blocks: list[_Block]
    ) -> tuple[Tensor, Tensor]:
        """Attention within rows, with its log-sum-exps: shapes (1, heads, tokens, width) and (1, heads, tokens)."""
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
    """Attention by torch's fused kernels with the log-sum-exp of each query's logits, which their front door hides.

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
        bias = None if mask is None else mask.expand(-1, query.shape[1], -1, -1)
        output, lse = aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, scale=scale)[:2]
    return output, lse[..., : query.shape[2]]


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

    An MLP treats each token by itself, and what the last layer makes of other tokens is never read. A model whose
    last layer has something else in its place, experts say, is left as it is.
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


def _places(rows: Sequence[Row]) -> np.ndarray:
    """The place of each token on its own path through the row, shape (rows, tokens)."""
    leaves = [[np.arange(row.trunk, row.trunk + leaf) for leaf in row.leaves] for row in rows]
    return _padded([np.concatenate([np.arange(row.trunk), *own]) for row, own in zip(rows, leaves, strict=True)])


def _last(rows: Sequence[Row]) -> list[np.ndarray]:
    """The indices in the sequence of each row's leaves' last tokens."""
    starts = np.cumsum([0, *(row.length for row in rows[:-1])])
    return [start + row.trunk + np.cumsum(row.leaves, dtype=int) - 1 for start, row in zip(starts, rows, strict=True)]


def _visible(segments: np.ndarray, real: np.ndarray, above: int) -> np.ndarray:
    """What each token of a row sees, shape (rows, tokens, keys): of real keys, all above, and its own ancestors."""
    tokens, keys = segments.shape[1], real.shape[1]
    own = np.zeros((*segments.shape, keys), dtype=bool)
    own[:, :, :above] = True
    query, key = segments[:, :, None], segments[:, None, :]
    causal = np.tril(np.ones((tokens, tokens), dtype=bool))
    own[:, :, above : above + tokens] = causal & ((key == 0) | (key == query))
    own &= real[:, None, :]
    return own
