"""What ``calibration``'s panels say where the truth is known: ``python -m benchmarks.panels``.

Judges and three annotators see the same simulated items, each with noise. The true gain of the mean over the best judge
is that over 200,000 items; what is measured is how often a panel is said to gain or to be worse, and its mean gain.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd

from calibration.calibrators.panel import PanelGain, panel_gains
from calibration.pairing import pair
from calibration.stats.correlation import spearman
from calibration.stats.intervals import Floats

CASES: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "three equal judges": lambda truth, g: truth[:, None] + g.normal(0, 0.8, (len(truth), 3)),
    "three of unlike quality": lambda truth, g: truth[:, None] + g.normal(0, [0.5, 0.9, 1.3], (len(truth), 3)),
    "three that err together": lambda truth, g: (
        (truth + g.normal(0, 0.8, len(truth)))[:, None] + g.normal(0, 0.25, (len(truth), 3))
    ),
    "one and two that see nothing": lambda truth, g: (
        3 + np.outer(truth - 3, [1, 0, 0]) + g.normal(0, [0.5, 0.9, 0.9], (len(truth), 3))
    ),
    "three that see nothing": lambda truth, g: 3 + g.normal(0, 0.9, (len(truth), 3)),
}
"""From the truth of each item, scores of three judges: shape (items, 3)."""


def draw(case: str, items: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Whole scores from 1 to 5 of judges and of annotators: shape (items, 3) each."""
    truth = generator.normal(3, 0.8, items)
    rated = truth[:, None] + generator.normal(0, 0.6, (items, 3))
    scores, ratings = (np.clip(np.round(one), 1, 5) for one in (CASES[case](truth, generator), rated))
    return scores, ratings


def gain(scores: Floats, ratings: Floats) -> PanelGain:
    """What a panel of the judges gains."""
    items = [str(item) for item in range(len(scores))]
    base = pd.DataFrame({"item_id": items, "source": "s", "group": items, "metric": "m"})
    rated = pd.concat([base.assign(annotator=f"a{who}", score=column) for who, column in enumerate(ratings.T)])
    judges = {f"j{who}": base.assign(score=column) for who, column in enumerate(scores.T)}
    (found,) = panel_gains({name: pair(rated, one, scale=(1, 5)) for name, one in judges.items()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=200, help="simulated data sets a case")
    parser.add_argument("--items", type=int, nargs="+", default=[50, 200], help="rated items a data set")
    options = parser.parse_args()
    for items in options.items:
        for case in CASES:
            generator = np.random.default_rng(0)
            scores, ratings = draw(case, 200_000, generator)
            ones, human = np.ones(len(scores)), ratings.mean(axis=1)
            best = max(float(spearman(column, human, ones)) for column in scores.T)
            true = float(spearman(scores.mean(axis=1), human, ones)) - best
            found = [gain(*draw(case, items, generator)) for _ in range(options.sets)]
            ends = [one.gain["spearman"] for one in found if one.gain["spearman"].low is not None]
            print(
                f"{case}, {items} items: the mean's true gain {true:+.3f}; intervals in {len(ends) / len(found):.0%}, "
                f"of these mean gain {np.mean([one.value for one in ends]):+.3f}, "
                f"said to gain {np.mean([one.low > 0 for one in ends]):.1%}, "
                f"to be worse {np.mean([one.high < 0 for one in ends]):.1%}; {dict(Counter(one.how for one in found))}",
                flush=True,
            )


if __name__ == "__main__":
    main()
