"""What ``esrp-judge agree`` costs on as many judgments as ChatAnime has, each rated by three annotators.

``python -m benchmarks.agreement``: judgments and ratings are drawn at random (seeded), written as Parquet, and the
command runs in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from judge.prompting.rubric import load_rubric

SOURCES, CHARACTERS, SCENARIOS, RATERS = 11, 20, 60, 3


def main() -> None:
    """The command."""
    with tempfile.TemporaryDirectory(prefix="esrp-agree-") as name:
        folder = Path(name)
        scores, ratings = tables(np.random.default_rng(0))
        scores.to_parquet(folder / "scores.parquet")
        ratings.to_parquet(folder / "ratings.parquet")
        started = time.monotonic()
        command = [sys.executable, "-m", "judge", "agree", "scores.parquet", "--annotations", "ratings.parquet"]
        subprocess.run([*command, "--json"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{len(scores):,} judgments, {len(ratings):,} ratings: {seconds:.1f} s, {peak:,.0f} MB at most")


def tables(generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of a judge and human ratings of the same dialogues, with effects of system, scenario and annotator."""
    names = load_rubric().scheme.metrics
    shape = (SOURCES, CHARACTERS, SCENARIOS, len(names))
    index = np.indices(shape).reshape(4, -1)
    source, character, scenario, metric = index
    truth = (
        3.4 + 0.3 * generator.standard_normal(SOURCES)[source] + 0.2 * generator.standard_normal(SCENARIOS)[scenario]
    )
    truth = truth + 0.6 * generator.standard_normal(len(source))
    key = pd.DataFrame(
        {
            "source": np.char.add("s", source.astype(str)),
            "character": np.char.add("c", character.astype(str)),
            "scenario": scenario.astype(str),
            "metric": np.array(names)[metric],
        }
    )
    scores = key.assign(**_levels(truth + 0.5 * generator.standard_normal(len(truth))))
    ratings = []
    for rater in range(RATERS):
        felt = truth + 0.1 * rater + 0.7 * generator.standard_normal(len(truth))
        ratings.append(key.assign(annotator=f"r{rater}", score=np.clip(np.round(felt), 1, 5)))
    return scores, pd.concat(ratings, ignore_index=True)


def _levels(values: np.ndarray) -> dict[str, np.ndarray]:
    """A distribution over five levels around each value, and its expectation."""
    weights = np.exp(-((np.arange(1, 6) - values[:, None]) ** 2))
    weights /= weights.sum(axis=1, keepdims=True)
    return {**{f"p{level}": weights[:, level - 1] for level in range(1, 6)}, "score": weights @ np.arange(1.0, 6.0)}


if __name__ == "__main__":
    main()
