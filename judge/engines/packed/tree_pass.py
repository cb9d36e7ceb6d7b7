"""The shape of one forward pass over a tree of tokens that is laid out flat: no token twice, none of padding.

The tokens of a pass stand in one sequence, row after row. A row is a stretch of the tree (a dialogue, say) with its
leaves. What stands above it was computed in earlier passes: a prefix that all rows share, and a stretch of ``above``
that is the row's own (the opening of its dialogue). Layers of every kind read this shape (``tree_layers``).

Knows rows of tokens and nothing of prompts or layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row of an earlier pass stands: its number, counted from 1, and its tokens, from start to end.

    As it is, it is the end of the prefix: number 0, and no tokens of its own.
    """

    number: int = 0
    start: int = 0
    end: int = 0

    @property
    def length(self) -> int:
        """Tokens."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Row:
    """A stretch of the tree, by numbers of tokens: a trunk, and leaves that see the trunk but not each other.

    ``above`` is what the row goes on from, a row of ``TreePass.above`` or the prefix.
    """

    trunk: int
    leaves: tuple[int, ...] = ()
    above: Place = Place()

    @property
    def length(self) -> int:
        """Tokens of the row itself."""
        return self.trunk + sum(self.leaves)


@dataclass(slots=True)
class Computed:
    """What later passes need of tokens that were computed, by layer; of each layer what its kind leaves behind."""

    tokens: int = 0
    rows: int = 0
    keys_values: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Of attention: shape (1, key heads, tokens, width) each; keys and values may differ in width."""
    states: dict[int, Tensor] = field(default_factory=dict)
    """Of a recurrent layer, at the end of each row's trunk: shape (rows, heads, key width, value width)."""
    inputs: dict[int, Tensor] = field(default_factory=dict)
    """Of a convolution, its last inputs at the end of each row's trunk: shape (rows, channels, reach)."""

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        pairs = (tensor for pair in self.keys_values.values() for tensor in pair)
        return sum(tensor.nbytes for tensor in (*pairs, *self.states.values(), *self.inputs.values()))

    def followed_by(self, more: Computed) -> Computed:
        """This and what was computed after it, where both are one row: tokens one after another, the later states."""
        return Computed(self.tokens + more.tokens, 1, _joined([self, more]), more.states, more.inputs)

    @staticmethod
    def beside(parts: Sequence[Computed]) -> Computed:
        """Rows of several passes as those of one."""
        if len(parts) == 1:
            return parts[0]  # as it is: a copy would take its memory once more
        states, inputs = (
            {layer: torch.cat([table[layer] for table in tables]) for layer in tables[0]} if tables else {}
            for tables in ([part.states for part in parts], [part.inputs for part in parts])
        )
        tokens, rows = sum(part.tokens for part in parts), sum(part.rows for part in parts)
        return Computed(tokens, rows, _joined(parts), states, inputs)


def _joined(parts: Sequence[Computed]) -> dict[int, tuple[Tensor, Tensor]]:
    filled = [part.keys_values for part in parts if part.keys_values]
    if len(filled) < 2:
        return filled[0] if filled else {}
    return {
        layer: (torch.cat([part[layer][0] for part in filled], 2), torch.cat([part[layer][1] for part in filled], 2))
        for layer in filled[0]
    }


class TreePass:
    """All that layers must know of one pass over some rows, and what they leave behind.

    Arrays have a line a row; -1 stands where a row is shorter than the longest one.

    Args:
        rows: the rows, in the order of their tokens.
        prefix, above: what earlier passes computed.

    Attributes:
        segments: shape (rows, tokens), which part of its row a token belongs to, 0 the trunk, 1.. the leaves.
        places: shape (rows, tokens), how many of the row's tokens come before a token on its own path. Leaves are
            alternatives, so each begins right after the trunk.
        own: shape (rows, tokens), the indices of the row's tokens in the sequence.
        last: shape (all leaves,), the index of the last token of every leaf, where the answer is read.
        computed: gets what the layers leave behind of the pass's own tokens.
    """

    def __init__(self, rows: Sequence[Row], prefix: Computed, above: Computed, device: torch.device) -> None:
        self.rows, self.prefix, self.above, self.device = rows, prefix, above, device
        self.segments = padded([np.repeat(np.arange(len(row.leaves) + 1), (row.trunk, *row.leaves)) for row in rows])
        leaves = [[np.arange(row.trunk, row.trunk + leaf) for leaf in row.leaves] for row in rows]
        trunks = [np.arange(row.trunk) for row in rows]
        self.places = padded([np.concatenate([trunk, *own]) for trunk, own in zip(trunks, leaves, strict=True)])
        self.own = padded(consecutive([row.length for row in rows]))
        self.first = np.cumsum([0, *(row.length for row in rows[:-1])])
        ends = [row.trunk + np.cumsum(row.leaves, dtype=int) - 1 for row in rows]
        last = padded([start + end for start, end in zip(self.first, ends, strict=True)])
        self.in_row = last - self.first[:, None]
        self.last = self.tensor(last[last >= 0])
        self.computed = Computed(sum(row.length for row in rows), len(rows))

    @property
    def depths(self) -> np.ndarray:
        """Shape (rows, tokens): the place of each token in its own prompt, counted from the end of the prefix."""
        depths: np.ndarray = np.array([[row.above.length] for row in self.rows]) + self.places
        return depths

    @property
    def positions(self) -> Tensor:
        """Shape (1, tokens): the place of each token in its own prompt."""
        return self.tensor((self.prefix.tokens + self.depths)[self.own >= 0][None])

    def tensor(self, values: np.ndarray) -> Tensor:
        """An array on the model's device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)


def consecutive(lengths: Sequence[int]) -> list[np.ndarray]:
    """Indices of stretches of these lengths that stand one after another."""
    ends = np.cumsum(lengths)
    return [np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of indices as one, shape (rows, longest), with -1 after the shorter ones."""
    whole = np.full((len(arrays), max(map(len, arrays))), -1)
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
    return whole
