"""The loss of a dialogue and its gradient: cross-entropy with a soft target in each answer slot.

The tree is trained as it is scored: one pass computes the trunk once for all leaves. Here the whole tree is one row
with nothing computed before it, since what is taken from an earlier pass has no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from judge.engines.packed.engine import LONGEST_ROW, PackedEngine, short_piece
from judge.engines.packed.tree_layers import led_along
from judge.engines.packed.tree_pass import Computed, Row, TreePass
from judge.errors import one_line
from judge.prompting.prompt_tree import Ids, PromptTree, PromptWriter
from judge.training.targets import RatedDialogue

GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}
"""By precision, how far packed gradients may be from plain ones, relative to these, on the short tree of the check."""


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
        self.engine, self.model = engine, engine.model
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
        piece = Example(short, example.targets[: len(short.leaves)], example.own[: len(short.leaves)], 1.0)
        found = []
        for packed in (False, True):
            try:
                loss = self._add(piece, 1.0, packed)
            except RuntimeError as error:
                if not packed:
                    raise
                self.refused = f"it fails on this model: {one_line(error)}"
                break
            finally:
                gradient = [value.grad for value in self.parameters.values() if value.grad is not None]
                whole = torch.cat([part.flatten().float() for part in gradient]) if gradient else torch.zeros(1)
                self.model.zero_grad(set_to_none=True)
            found.append((loss, whole))
        if self.refused:
            return
        (plain_loss, plain), (loss, whole) = found
        apart = float((whole - plain).norm() / plain.norm().clamp_min(1e-12))
        apart = max(apart, abs(loss - plain_loss) / max(abs(plain_loss), 1e-12))
        if not apart <= GRADIENT_TOLERANCE[self.model.dtype]:
            self.refused = f"its gradient differs from plain by {apart:.2g} of it"

    def add(self, example: Example, scale: float) -> float:
        """Add the gradient of ``scale`` times an example's loss, summed over leaves; returns that loss, unscaled."""
        fits = example.tokens <= LONGEST_ROW and self.engine.is_steady(example.tree)
        return self._add(example, scale, packed=fits and not self.refused)

    def _add(self, example: Example, scale: float, packed: bool) -> float:
        device, tree, total = self.model.device, example.tree, 0.0
        targets, own = example.targets.to(device), example.own.to(device)
        leaves = [slice(None)] if packed else [slice(leaf, leaf + 1) for leaf in range(len(tree.leaves))]
        for part in leaves:
            logits = self._packed_logits(tree) if packed else self._plain_logits(tree.prompt(part.start))
            loss = leaf_losses(logits, self.level_ids, targets[part], own[part], self.mass_weight).sum()
            (scale * loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _packed_logits(self, tree: PromptTree) -> Tensor:
        """Logits at all leaves, shape (leaves, vocabulary), by one pass."""
        trunk = tree.root + tree.character + tree.opening + tree.dialogue
        row = Row(len(trunk), tuple(map(len, tree.leaves)))
        along = TreePass([row], Computed(), Computed(), self.model.device)
        tokens = torch.tensor([[*trunk, *(token for leaf in tree.leaves for token in leaf)]], device=self.model.device)
        with led_along(self.model, along) as more:
            logits: Tensor = self.model(input_ids=tokens, use_cache=False, logits_to_keep=along.last, **more).logits[0]
        return logits

    def _plain_logits(self, prompt: Ids) -> Tensor:
        """Logits at the end of one prompt, shape (1, vocabulary)."""
        tokens = torch.tensor([prompt], device=self.model.device)
        logits: Tensor = self.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits[0]
        return logits
