"""Rubrics of other shapes than ChatAnime's: any metrics, any levels, with or without dimensions and a set metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.helpers.rubric import EN


def write_rubric(
    folder: Path,
    levels: Mapping[str, Sequence[int]],
    dimensions: Mapping[str, Sequence[str]] | None = None,
    set_metric: str | None = None,
    **more: object,
) -> Path:
    """An English rubric of a few words.

    Args:
        folder: where to.
        levels: of each metric, the set metric included.
        dimensions: of some metrics; the others are of none.
        set_metric: which of the metrics is of a system's answers together.
        more: fields of ``rubric.yaml``.
    """
    folder.mkdir(parents=True)
    of = {metric: name for name, metrics in (dimensions or {}).items() for metric in metrics}
    free = [metric for metric in levels if metric not in of and metric != set_metric]
    outline = {"name": folder.name, "language": "en", "dimensions": dimensions or {}, "metrics": free, **more}
    if set_metric:
        outline["set_metric"] = set_metric
    texts = {**EN, "dimensions": {name: name.title() for name in dimensions or {}}}
    _write(folder / "rubric.yaml", outline)
    _write(folder / "system.yaml", texts)
    for metric, own in levels.items():
        content = {
            "id": metric,
            "title": metric.title(),
            "definition": f"How {metric} is it?",
            "levels": {level: f"{metric} {level}" for level in own},
            "question": f"{metric}?",
            "answer": f"{metric}:",
        }
        _write(folder / f"{metric}.yaml", {**content, **({"dimension": of[metric]} if metric in of else {})})
    return folder


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
