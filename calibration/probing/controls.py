"""What tells degraded items from clean ones without a judge: a probe that these can pass proves nothing.

Each control gives the same items scores, or judges with the labels mixed up, and is measured as the judge is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from calibration.probing.discrimination import auc
from calibration.resampling import Estimate, Floats, Labels

__all__ = ["FOLDS", "bag_of_characters", "length", "permuted", "random"]

FOLDS = 5
"""Parts in which the bag of characters is cross-validated, of whole groups; fewer where there are fewer groups."""


def length(clean: Sequence[str], degraded: Sequence[str], groups: Labels) -> Estimate:
    """The AUC of how many characters there are, longer or shorter being better, whichever tells more."""
    before, after = (np.array([len(text) for text in texts], dtype=float) for texts in (clean, degraded))
    return max((auc(sign * before, sign * after, groups) for sign in (1.0, -1.0)), key=lambda found: found.value or 0.0)


def bag_of_characters(clean: Sequence[str], degraded: Sequence[str], groups: Labels) -> Estimate:
    """The AUC of a logistic regression on how often each character stands in a text, on groups it has not seen.

    Unlike a judge it is told of other groups which texts are degraded.
    """
    folds = min(FOLDS, len(set(groups)))
    if folds < 2:
        return Estimate(None, reason="there is one group only, so none is left to try it on")
    counts = CountVectorizer(analyzer="char", lowercase=False).fit_transform([*clean, *degraded])
    is_clean = np.repeat([1, 0], len(clean))
    scores = np.empty(len(is_clean))
    for train, test in GroupKFold(folds).split(counts, groups=np.tile(groups, 2)):
        fitted = LogisticRegression(solver="liblinear", max_iter=1000).fit(counts[train], is_clean[train])
        scores[test] = fitted.decision_function(counts[test])
    return auc(scores[is_clean == 1], scores[is_clean == 0], groups)


def random(groups: Labels, generator: np.random.Generator) -> Estimate:
    """The AUC of a judge that draws its scores."""
    return auc(generator.random(len(groups)), generator.random(len(groups)), groups)


def permuted(clean: Floats, degraded: Floats, groups: Labels, generator: np.random.Generator) -> Estimate:
    """The AUC of the judge's own scores with the labels of each pair handed out by the toss of a coin."""
    kept = generator.random(len(clean)) < 0.5
    return auc(np.where(kept, clean, degraded), np.where(kept, degraded, clean), groups)
