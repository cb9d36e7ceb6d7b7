"""Recurrent layers over a tree of tokens that is laid out flat: causal convolutions and the gated delta rule.

A convolution gathers each token's nearest ancestors. The gated delta rule (Yang et al. 2024, "Gated Delta Networks",
equation 10) goes on from the state above a row: along the trunks by the library's own chunked form, along the leaves
by a triangular solve that holds one state a row and not one a leaf. ``docs/design.md`` derives it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.activations import ACT2FN

from judge.engines.packed.tree_pass import TreePass, padded

Gated = Callable[..., tuple[Tensor, Tensor]]
"""The library's gated delta rule in chunks, whose first dimension is a batch of sequences."""


class TreeRecurrence:
    """The recurrent layers of one pass; ``layer`` is the number of the one in work."""

    def __init__(self, tree: TreePass) -> None:
        self.layer = -1
        self._tree = tree
        self._starts = tree.tensor(np.array([row.above.number for row in tree.rows]))
        self._ancestors: dict[int, tuple[Tensor, Tensor]] = {}

    @cached_property
    def _trunks(self) -> Tensor:
        """Shape (rows, longest trunk): the indices of the trunks' tokens, -1 for none."""
        tree = self._tree
        return tree.tensor(padded([own[: row.trunk] for own, row in zip(tree.own, tree.rows, strict=True)]))

    @cached_property
    def _leaves(self) -> Tensor:
        """Shape (rows, most leaves, longest leaf): the indices of the leaves' tokens, -1 for none."""
        rows = self._tree.rows
        most, longest = max(len(row.leaves) for row in rows), max(max(row.leaves, default=0) for row in rows)
        indices = np.full((len(rows), most, longest), -1)
        for line, row, first in zip(indices, rows, self._tree.first, strict=True):
            start = first + row.trunk
            for leaf, length in zip(line, row.leaves, strict=False):
                leaf[:length] = np.arange(start, start + length)
                start += length
        return self._tree.tensor(indices)

    def convolve(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, **_: Any
    ) -> Tensor:
        """A causal convolution of each channel by itself, along each token's own path.

        Args:
            inputs: shape (1, channels, tokens).
            weight: shape (channels, reach + 1), the last for the token itself.
        """
        tree, reach = self._tree, weight.shape[1] - 1
        if reach not in self._ancestors:
            self._ancestors[reach] = _ancestors(tree, reach)
        ancestors, ends = self._ancestors[reach]
        # One table: the last inputs of the prefix, those of each row above, and the pass's own.
        none = inputs.new_zeros((1, inputs.shape[1], reach))
        known = [tree.prefix.inputs.get(self.layer, none)]
        if self.layer in tree.above.inputs:
            known.append(tree.above.inputs[self.layer])
        table = torch.cat([*(rows.transpose(0, 1).flatten(1) for rows in known), inputs[0]], dim=1)
        tree.computed.inputs[self.layer] = table[:, ends].transpose(0, 1).contiguous()
        table = table.to(weight.dtype)
        output = table[:, ancestors[0]] * weight[:, :1]
        for tokens, factor in zip(ancestors[1:], weight.T[1:], strict=True):
            output.addcmul_(table[:, tokens], factor[:, None])
        if bias is not None:
            output += bias[:, None]
        if activation is not None:
            output = ACT2FN[activation](output)
        return output[None].to(inputs.dtype)

    def gated_delta_rule(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        g: Tensor,
        beta: Tensor,
        *,
        chunked: Gated,
        use_qk_l2norm_in_kernel: bool = False,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """The gated delta rule along each token's own path.

        Args:
            query, key: shape (1, tokens, heads, key width); ``value`` with its own width.
            g, beta: shape (1, tokens, heads): logarithms of the decays, and how much is written.
            chunked: the library's rule along sequences.

        Returns:
            Shape (1, tokens, heads, value width), and no state: states are kept in ``TreePass.computed``.
        """
        tree = self._tree
        heads, widths = value.shape[2], (key.shape[3], value.shape[3])
        known = [tree.prefix.states.get(self.layer, value.new_zeros((1, heads, *widths), dtype=torch.float32))]
        if self.layer in tree.above.states:
            known.append(tree.above.states[self.layer])
        states = torch.cat(known)[self._starts]
        output = torch.empty_like(value)
        trunks = self._trunks
        if trunks.shape[1]:
            there = trunks >= 0
            # A place without a token writes nothing and lets nothing decay.
            gathered = [x[0][trunks.clip(0)] for x in (query, key, value)]
            decay, written = (x[0][trunks.clip(0)] * there[..., None] for x in (g, beta))
            found, states = chunked(
                *gathered,
                g=decay,
                beta=written,
                initial_state=states,
                output_final_state=True,
                use_qk_l2norm_in_kernel=use_qk_l2norm_in_kernel,
            )
            output[0, trunks[there]] = found[there]
        tree.computed.states[self.layer] = states
        if len(tree.last):
            there = self._leaves >= 0
            found = _along_leaves(query, key, value, g, beta, states, self._leaves, use_qk_l2norm_in_kernel)
            output[0, self._leaves[there]] = found[there].to(output.dtype)
        return output, None


def _along_leaves(
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, states: Tensor, leaves: Tensor, is_normal: bool
) -> Tensor:
    """The gated delta rule along leaves, each from the state at the end of its row's trunk.

    Args:
        states: shape (rows, heads, key width, value width).
        leaves: shape (rows, leaves, tokens): indices of tokens, -1 for none.

    Returns:
        Shape (rows, leaves, tokens, heads, value width), float32.
    """
    # Below, r is a row, f a leaf, t and s tokens of it, h a head, k and v the widths. A leaf is a chain, so that an
    # ancestor within it is an earlier token.
    query, key, value, g, beta = (x[0][leaves.clip(0)].float() for x in (query, key, value, g, beta))
    there = (leaves >= 0)[..., None]
    g, beta = g * there, beta * there
    if is_normal:
        query, key = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (query, key))
    query = query * query.shape[-1] ** -0.5
    decay = g.cumsum(dim=2)  # since the trunk's end, as a logarithm
    between = decay.permute(0, 1, 3, 2)[..., None] - decay.permute(0, 1, 3, 2)[..., None, :]
    tokens = leaves.shape[2]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=leaves.device).triu(1)
    between = between.masked_fill(later, -torch.inf).exp()
    # u of a token is what it writes: beta times its value less what the state above it already holds for its key.
    held = torch.einsum("rfthk,rhkv->rfthv", key, states) * decay.exp()[..., None]
    right = (beta[..., None] * (value - held)).permute(0, 1, 3, 2, 4)
    system = torch.einsum("rfthk,rfshk->rfhts", key, key) * between * beta.permute(0, 1, 3, 2)[..., None]
    written = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    read = torch.einsum("rfthk,rfshk->rfhts", query, key) * between
    above = torch.einsum("rfthk,rhkv->rfthv", query, states) * decay.exp()[..., None]
    found: Tensor = above + (read @ written).permute(0, 1, 3, 2, 4)
    return found


def _ancestors(tree: TreePass, reach: int) -> tuple[Tensor, Tensor]:
    """Where in the table of inputs each token's nearest ancestors stand, and those of what would follow each trunk.

    Returns:
        Shapes (reach + 1, tokens), farthest first and the token itself last, and (rows, reach).
    """
    above = np.array([[row.above.number * reach] for row in tree.rows])
    trunk, first = (np.array(x)[:, None] for x in ([row.trunk for row in tree.rows], tree.first))
    columns = (1 + tree.above.rows) * reach

    def column(places: np.ndarray, own: np.ndarray, back: int) -> np.ndarray:
        """Of the ancestor so many tokens before some places of the rows, whose own indices these are."""
        at = places - back
        in_leaf = at >= trunk
        found = np.where(in_leaf, own - back, first + at) + columns
        return np.where(at >= 0, found, above + reach + at)

    real = tree.own >= 0
    tokens = [column(tree.places, tree.own, back)[real] for back in range(reach, -1, -1)]
    ends = [column(trunk, first + trunk, back)[:, 0] for back in range(reach, 0, -1)]
    return tree.tensor(np.array(tokens)), tree.tensor(np.array(ends).reshape(reach, -1).T)
