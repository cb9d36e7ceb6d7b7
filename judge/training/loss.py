"""The loss of a dialogue and its gradient: cross-entropy with a soft target in each answer slot.

Trees are trained as they are scored: a root is computed once for the dialogues of a step that share it, and a dialogue
once for all its leaves. The root stands above each row, where attention has a gradient; it is no prefix of the pass,
since parts that are merged by their log-sum-exps have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from judge.engines.packed.engine import LONGEST_ROW, PackedEngine, by_budget, short_piece
from judge.engines.packed.tree_layers import led_along
from judge.engines.packed.tree_pass import Computed, Place, Row, TreePass
from judge.errors import one_line
from judge.prompting.prompt_tree import Ids, PromptTree, PromptWriter
from judge.training.targets import RatedDialogue

GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}
"""By precision, how far packed gradients may be from plain ones, relative to these, on the short tree of the check."""


TOGETHER = 4096
"""Tokens of dialogues, their root left out, that one pass takes, as it keeps what each layer made of all of them."""


Leaves = tuple[Tensor, Tensor, Tensor, Tensor]
"""Some leaves of a pass: logits, targets, own levels (a line each) and weights, shape (leaves,)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One dialogue as a model sees it, and what it is to answer."""

    tree: PromptTree
    """With a leaf for each rated metric."""
    targets: Tensor
    """Shape (leaves, levels): over the levels of all metrics; 0 at those that are not the metric's own."""
    own: Tensor
    """Shape (leaves, levels): which levels are the metric's own."""
    weight: float

    @property
    def tokens(self) -> int:
        """Tokens of the tree, each counted once."""
        return self.tree.lengths[0] - len(self.tree.leaves[0]) + sum(map(len, self.tree.leaves))

    @classmethod
    def of(cls, rated: RatedDialogue, writer: PromptWriter) -> Example:
        """The example that a rated dialogue is, with the prompts of a writer."""
        metrics: Mapping[str, Any] = writer.rubric.metrics
        own = [sorted(metrics[metric].levels) for metric in rated.targets]
        targets = [
            [dict(zip(levels, shares, strict=True)).get(level, 0.0) for level in writer.levels]
            for levels, shares in zip(own, rated.targets.values(), strict=True)
        ]
        is_own = [[level in levels for level in writer.levels] for levels in own]
        tree = writer.dialogue(rated.dialogue, rated.targets)
        return cls(tree, torch.tensor(targets), torch.tensor(is_own), rated.weight)


def leaf_losses(logits: Tensor, level_ids: Sequence[Ids], targets: Tensor, own: Tensor, mass_weight: float) -> Tensor:
    """The loss in each answer slot, shape (leaves,): cross-entropy over levels, less ``mass_weight`` times log mass.

    Args:
        logits: shape (leaves, vocabulary).
        level_ids: the tokens that stand for each level; their probabilities are added.
        targets, own: as in ``Example``.
        mass_weight: from 0 on.
    """
    logits = logits.float()
    levels = torch.stack([logits[:, list(ids)].logsumexp(dim=-1) for ids in level_ids], dim=-1)
    together = levels.masked_fill(~own, -torch.inf).logsumexp(dim=-1)
    cross_entropy = -(targets * (levels - together[:, None])).sum(dim=-1)
    return cross_entropy + mass_weight * (logits.logsumexp(dim=-1) - together)


class Trainer:
    """Computes gradients of one model, packed where that equals plain.

    Args:
        engine: the model, verified.
        level_ids: the tokens that stand for each level.
        mass_weight: as for ``leaf_losses``.

    Attributes:
        refused: why trees are not packed; "" where they are.
    """

    def __init__(self, engine: PackedEngine, level_ids: Sequence[Ids], mass_weight: float) -> None:
        self.engine, self.model, self.device = engine, engine.model, engine.device
        self.level_ids, self.mass_weight = level_ids, mass_weight
        self.refused = engine.refused.get("packed", "")

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The weights that change, by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def verify(self, example: Example) -> None:
        """Compare loss and gradient of packed with plain on a short piece of a tree; do without what differs."""
        if self.refused:
            return
        short = short_piece(example.tree)
        leaves = len(short.leaves)
        piece = Example(short, example.targets[:leaves], example.own[:leaves], 1.0)
        found: list[tuple[float, Tensor]] = []
        for passes in (self._plain_passes, self._packed_passes):
            try:
                loss = self._add(passes([piece, piece]), 1.0)
            except RuntimeError as error:
                if not found:
                    raise
                self.refused = f"it fails on this model: {one_line(error)}"
                return
            finally:
                gradient = [value.grad for value in self.parameters.values() if value.grad is not None]
                whole = torch.cat([part.flatten().float() for part in gradient]) if gradient else torch.zeros(1)
                self.model.zero_grad(set_to_none=True)
            found.append((loss, whole))
        (plain_loss, plain), (loss, whole) = found
        apart = float((whole - plain).norm() / plain.norm().clamp_min(1e-12))
        apart = max(apart, abs(loss - plain_loss) / max(abs(plain_loss), 1e-12))
        if not apart <= GRADIENT_TOLERANCE[self.model.dtype]:
            self.refused = f"its gradient differs from plain by {apart:.2g} of it"

    def add(self, examples: Sequence[Example], scale: float) -> float:
        """Add the gradient of ``scale`` times the loss of some examples; returns that loss, unscaled.

        The loss is summed over leaves, each with the weight of its example.
        """
        packed: list[Example] = []
        plain: list[Example] = []
        for one in examples:
            fits = one.tokens <= LONGEST_ROW and self.engine.is_steady(one.tree)
            (packed if fits and not self.refused else plain).append(one)
        return self._add(self._packed_passes(packed), scale) + self._add(self._plain_passes(plain), scale)

    def _add(self, passes: Iterable[Leaves], scale: float) -> float:
        total = 0.0
        for logits, targets, own, weights in passes:
            loss = (weights * leaf_losses(logits, self.level_ids, targets, own, self.mass_weight)).sum()
            (scale * loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _plain_passes(self, examples: Sequence[Example]) -> Iterator[Leaves]:
        """A pass for each leaf, of its whole prompt."""
        for one in examples:
            weights = torch.full((1,), one.weight, device=self.device)
            for leaf, prompt in enumerate(one.tree.prompts):
                tokens = torch.tensor([prompt], device=self.device)
                logits = self.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[0]
                part = slice(leaf, leaf + 1)
                yield logits, one.targets[part].to(self.device), one.own[part].to(self.device), weights

    def _packed_passes(self, examples: Sequence[Example]) -> Iterator[Leaves]:
        """A pass for some examples that share a root, and for all their leaves."""

        def root(one: Example) -> Ids:
            return one.tree.root

        for shared, group in groupby(sorted(examples, key=root), key=root):
            for some in by_budget(group, lambda one: one.tokens - len(one.tree.root), TOGETHER):
                logits = self._logits(shared, [one.tree for one in some])
                targets, own = (torch.cat([getattr(one, name) for one in some]) for name in ("targets", "own"))
                weights = torch.tensor([one.weight for one in some for _ in one.targets])
                yield logits, targets.to(self.device), own.to(self.device), weights.to(self.device)

    def _logits(self, root: Ids, trees: Sequence[PromptTree]) -> Tensor:
        """Logits at all leaves of trees with one root, shape (leaves, vocabulary)."""
        above = self._run(root, [Row(len(root))], Computed())[1]
        trunks = [tree.character + tree.opening + tree.dialogue for tree in trees]
        rows = [
            Row(len(trunk), tuple(map(len, tree.leaves)), Place(1, 0, len(root)))
            for trunk, tree in zip(trunks, trees, strict=True)
        ]
        ids = [
            token for trunk, tree in zip(trunks, trees, strict=True) for part in (trunk, *tree.leaves) for token in part
        ]
        return self._run(ids, rows, above)[0]

    def _run(self, ids: Sequence[int], rows: Sequence[Row], above: Computed) -> tuple[Tensor, Computed]:
        """One pass over some rows, with gradients: logits at their leaves, and what later passes need."""
        along = TreePass(rows, Computed(), above, self.device)
        tokens = torch.tensor([ids], device=self.device)
        with led_along(self.model, along) as more:
            output = self.model(input_ids=tokens, use_cache=False, logits_to_keep=along.last, **more)
        return output.logits[0], along.computed
