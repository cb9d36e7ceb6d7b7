"""What is computed once and used again: of shared prefixes and of openings.

Few of them are kept, since they are large: a prefix of 5,000 tokens takes 0.7 GB in a model of 8 billion parameters.
Knows nothing of what the tokens mean.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

KEPT_PREFIXES = 4
"""How many shared prefixes are kept: the roots in use (one for each order of the levels), and the last characters."""


KEPT_OPENINGS = 2
"""How many sets of openings are kept: one for each order of the levels."""


Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The values that were used last, by key; at most ``room`` of them."""

    def __init__(self, room: int) -> None:
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._room = room

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not there."""
        if key not in self._values:
            self._values[key] = make()
        # Being asked for counts as use. So a root, which is asked for with every character, outlives the characters.
        self._values.move_to_end(key)
        if len(self._values) > self._room:
            self._values.popitem(last=False)
        return self._values[key]

    def items(self) -> Iterator[tuple[Any, Value]]:
        """Keys and values."""
        return iter(self._values.items())
