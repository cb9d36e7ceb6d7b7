"""Small dataclasses of numbers as plain lists and numbers, for JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

__all__ = ["from_plain", "to_plain"]

Kind = TypeVar("Kind")


def to_plain(value: Any) -> Any:
    """Dataclasses as dicts, arrays and tuples as lists, numbers as Python's; raises ValueError for one not finite."""
    if is_dataclass(value):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} cannot be saved")
    return value


def from_plain(like: Kind, saved: Mapping[str, Any]) -> Kind:
    """A dataclass of the kind of ``like`` with what ``to_plain`` gave of another; raises KeyError or TypeError."""
    parts = {one.name: _as(getattr(like, one.name), saved[one.name]) for one in fields(like)}  # type: ignore[arg-type]
    return type(like)(**parts)


def _as(like: Any, saved: Any) -> Any:
    """What was saved, as the type of what stands in its place."""
    if isinstance(like, np.ndarray):
        return np.array(saved, dtype=like.dtype)
    if is_dataclass(like):
        return from_plain(like, saved)
    if isinstance(like, tuple):
        return tuple(saved)
    return saved if saved is None else type(like)(saved)
