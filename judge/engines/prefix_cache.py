"""Packed scoring on torch and transformers: one forward pass returns every metric of a batch of dialogues.

Rules and rubrics are computed once, a character once, the opening of a dialogue once for all the sources that answer
it, and each dialogue once for all its leaves; attention lets each token see its ancestors only
(``judge.engines.tree_attention``), so the pass gives exactly what a separate call per leaf would. This is right only
where a model's attention is plain; on loading, packed is compared with plain calls, and where they differ the engine
scores plainly and says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch

from judge.engines.tree_attention import Layers

KEPT_PREFIXES = 4
"""How many shared prefixes are kept: the roots in use, and the characters met last."""


KEPT_OPENINGS = 2
"""How many sets of openings are kept: one for each order of the levels."""


Value = TypeVar("Value")


class Kept(Generic[Value]):
    """What was computed last, by key: as many as there is room for."""

    def __init__(self, room: int) -> None:
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._room = room

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not there."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        if len(self._values) > self._room:
            self._values.popitem(last=False)
        return self._values[key]


def _joined(layers: Sequence[Layers]) -> Layers:
    """Keys and values of several stretches as one."""
    filled = [some for some in layers if some]
    if len(filled) < 2:
        return filled[0] if filled else []
    return [
        (torch.cat([keys for keys, _ in pairs], dim=2), torch.cat([values for _, values in pairs], dim=2))
        for pairs in zip(*filled, strict=True)
    ]
