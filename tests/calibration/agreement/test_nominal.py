"""Agreement on nominal metrics: figures worked out by hand, and nothing that needs an order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from calibration import Pairing, assess
from calibration.agreement.nominal import NOMINAL, nominal_agreement, with_names_as_scores
from calibration.pairing import Paired
from calibration.stats.correlation import nominal_kappa
from tests.helpers.pairs import metric


def _kinds(items: int = 60, wrong: int = 12, raters: int = 2, seed: int = 0) -> Paired:
    """Names 1, 2 and 4: annotators agree, but for a few items; the judge errs on some."""
    generator = np.random.default_rng(seed)
    truth = generator.choice([1.0, 2.0, 4.0], items)
    ratings = np.repeat(truth[:, None], raters, axis=1)
    ratings[:6, 0] = generator.choice([1.0, 2.0, 4.0], 6)
    judge = truth.copy()
    judge[-wrong:] = generator.choice([1.0, 2.0, 4.0], wrong)
    return metric(judge, ratings, scale=(1, 4))


def _assessed(paired: Paired, nominal: tuple[str, ...] = ("m",)):
    pairing = Pairing("j", {"m": paired}, pd.DataFrame(), pd.DataFrame(), {"m": 0}, ())
    return assess(pairing, "j", nominal=nominal)


def test_kappa_worked_out_by_hand():
    """Three of four equal; margins (2, 1, 1) and (2, 2, 0) of 4: by chance 6/16, so (12/16 - 6/16) / (10/16)."""
    found = nominal_agreement(metric([1, 1, 2, 3], [1, 1, 2, 2]))
    assert found.judge["exact"].value == 0.75 and found.judge["kappa"].value == pytest.approx(0.6)
    assert found.constant["exact"].value == 0.5


def test_kappa_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    x, y, weights = generator.integers(0, 4, 200), generator.integers(0, 4, 200), generator.uniform(0.5, 2, 200)
    expected = cohen_kappa_score(x, y, sample_weight=weights)
    assert nominal_kappa(x.astype(float), y.astype(float), weights) == pytest.approx(expected, abs=1e-12)


def test_renaming_the_kinds_changes_nothing():
    paired = _kinds()
    names = {1.0: 3.0, 2.0: 1.0, 4.0: 2.0}
    renamed = replace(
        paired,
        judge=np.vectorize(names.get)(paired.judge),
        ratings=np.vectorize(names.get)(paired.ratings),
    )
    one, other = (nominal_agreement(each) for each in (paired, renamed))
    assert one.judge == other.judge and one.people == other.people and one.constant == other.constant


def test_nothing_that_needs_an_order_is_given():
    found = _assessed(_kinds()).metrics["m"]
    given = {
        (of, name) for of, estimates in found.estimates.items() for name, one in estimates.items()
        if one.value is not None
    }  # fmt: skip
    assert given == {
        ("raters", "alpha_nominal"), ("judge", "exact"), ("judge", "kappa"), ("constant", "exact"),
        ("person_with_person", "exact"), ("person_with_person", "kappa"),
    }  # fmt: skip
    assert found.agreement.judge["spearman"].reason == NOMINAL and found.alt_test.scoring == "accuracy"
    assert "Cohen's kappa" in found.verdict.sentence and "Spearman" not in found.verdict.sentence
    assert found.to_dict()["nominal"] is True


@pytest.mark.parametrize(("wrong", "word"), [(12, "estimate"), (60, "do not use")])
def test_the_verdict_rests_on_agreement_beyond_chance(wrong: int, word: str):
    assert _assessed(_kinds(wrong=wrong, seed=1)).metrics["m"].verdict.word == word


def test_the_most_probable_kind_is_the_judges_answer():
    """Half kind 1 and half kind 3 is no kind 2, which the expected score says."""
    paired = metric([2.0, 2.0], [1, 3], scale=(1, 3), levels=[[0.5, 0.1, 0.4], [0.4, 0.1, 0.5]])
    assert with_names_as_scores(paired).judge.tolist() == [1, 3]
    assert nominal_agreement(paired).judge["exact"].value == 1


def test_a_metric_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no metric kind"):
        _assessed(_kinds(), ("kind",))


def test_one_kind_only_has_no_kappa():
    found = nominal_agreement(metric([2, 2, 2], [2, 2, 2]))
    assert found.judge["kappa"].reason == "all scores are the same" and found.judge["exact"].value == 1
