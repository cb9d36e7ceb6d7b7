"""What every statistic of people's ratings must obey, whatever its formula: one table of them, one test an identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calibration import Paired, compare, estimate, rank_ranges
from calibration.agreement.alt_test import alternative_annotator_test
from calibration.agreement.metrics import agreement
from calibration.agreement.reliability import reliability
from calibration.stats.intervals import clustered_mean
from calibration.stats.prediction_powered import powered_mean
from tests.helpers.pairs import labels, metric

Figures = dict[str, float | None]
ITEMS, GROUPS = 96, 12
SEED = 4


@pytest.fixture(scope="module")
def sample() -> Paired:
    """Items in twelve groups and six sources, three raters with gaps, a judge with probabilities and lengths."""
    generator = np.random.default_rng(SEED)
    truth = generator.integers(1, 6, ITEMS)
    ratings = np.clip(truth[:, None] + generator.integers(-1, 2, (ITEMS, 3)), 1, 5).astype(float)
    ratings[generator.random(ratings.shape) < 0.2] = np.nan
    ratings[np.isnan(ratings).all(axis=1), 0] = 3
    levels = generator.dirichlet(np.ones(5), ITEMS) * 0.4 + 0.6 * np.eye(5)[truth - 1]
    return metric(
        levels @ np.arange(1, 6), ratings, groups=np.arange(ITEMS) // 8, sources=np.arange(ITEMS) % 6, levels=levels,
        lengths=generator.integers(10, 99, ITEMS) + truth * 9,
    )  # fmt: skip


def of_agreement(paired: Paired) -> Figures:
    found = agreement(paired)
    blocks = {name: getattr(found, name) for name in ("judge", "constant", "people", "within", "systems", "length")}
    strata = found.strata.set_index("people")[["bias", "mae", "spearman"]].stack().to_dict()
    return {
        **{f"{block}.{name}": one.value for block, named in blocks.items() for name, one in named.items()},
        **{f"{stratum}.{name}": value for (stratum, name), value in strata.items()},
    }


def of_alpha(paired: Paired) -> Figures:
    found = reliability(paired)
    return {level: getattr(found, f"alpha_{level}").value for level in ("nominal", "ordinal", "interval")}


def of_ceiling(paired: Paired) -> Figures:
    return {name: one.value for name, one in reliability(paired).ceiling.items()}


def of_annotators(paired: Paired) -> Figures:
    table = reliability(paired).annotators.set_index("annotator")
    return {f"{name}.{what}": table.loc[name, what] for name in sorted(table.index) for what in ("severity", "spread")}


def of_alt_test(paired: Paired) -> Figures:
    found = alternative_annotator_test(paired)
    return {"winning": found.winning_rate, "advantage": found.advantage_probability}


def of_mean(paired: Paired) -> Figures:
    found = clustered_mean(paired.judge - paired.human, paired.groups, paired.weights)
    return {"value": found.value, "low": found.low, "high": found.high}


def of_powered_mean(paired: Paired) -> Figures:
    human = np.where(paired.items.astype(int) % 3 == 0, np.nan, paired.human)
    found = powered_mean(human, paired.judge, paired.groups, weights=paired.weights).estimate
    return {"value": found.value, "low": found.low, "high": found.high}


def of_systems(paired: Paired) -> Figures:
    table = estimate(paired).sort_values(["target", "source"])
    return {
        f"{row.target}.{row.source}.{what}": getattr(row, what)
        for row in table.itertuples()
        for what in ("mean", "low", "high")
    }


def of_comparison(paired: Paired) -> Figures:
    found = compare(paired, "0", "1")
    return {f"{side}.{what}": getattr(getattr(found, side), what) for side in ("judge", "human") for what in WHAT}


WHAT = ("value", "low", "high")
STATISTICS: dict[str, Callable[[Paired], Figures]] = {
    "agreement": of_agreement,
    "alpha": of_alpha,
    "ceiling": of_ceiling,
    "annotators": of_annotators,
    "alternative annotator test": of_alt_test,
    "clustered mean": of_mean,
    "prediction-powered mean": of_powered_mean,
    "means of systems": of_systems,
    "comparison of systems": of_comparison,
}
every = pytest.mark.parametrize("statistic", STATISTICS)


def same(one: Figures, other: Figures) -> None:
    assert one and other == pytest.approx(one, abs=1e-6, nan_ok=True)


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("statistic", names)


@every
def test_the_figures_are_there_and_differ_for_other_ratings(sample: Paired, statistic: str) -> None:
    """What stays the same below could change."""
    found = STATISTICS[statistic](sample)
    ratings = sample.ratings.copy()
    ratings[:40, 0] = 6 - ratings[:40, 0]
    other = STATISTICS[statistic](replace(sample, ratings=ratings))
    assert all(value is not None and np.isfinite(value) for value in found.values())
    assert found != pytest.approx(other, abs=1e-6, nan_ok=True)


@every
def test_the_order_of_items_is_no_matter(sample: Paired, statistic: str) -> None:
    shuffled = sample.at(np.random.default_rng(1).permutation(ITEMS))
    same(STATISTICS[statistic](sample), STATISTICS[statistic](shuffled))


@every
def test_the_order_of_annotators_is_no_matter(sample: Paired, statistic: str) -> None:
    turned = replace(sample, ratings=sample.ratings[:, [2, 0, 1]], annotators=("a2", "a0", "a1"))
    same(STATISTICS[statistic](sample), STATISTICS[statistic](turned))


@every
def test_the_names_of_groups_are_no_matter(sample: Paired, statistic: str) -> None:
    renamed = replace(sample, groups=labels(f"z{99 - int(name)}" for name in sample.groups))
    same(STATISTICS[statistic](sample), STATISTICS[statistic](renamed))


@every
def test_the_unit_of_weights_is_no_matter(sample: Paired, statistic: str) -> None:
    weights = np.random.default_rng(2).uniform(1, 3, ITEMS)
    one, other = (replace(sample, weights=weights * unit) for unit in (1, 250))
    same(STATISTICS[statistic](one), STATISTICS[statistic](other))


@every
def test_an_annotator_who_rated_nothing_is_no_matter(sample: Paired, statistic: str) -> None:
    nobody = np.full((ITEMS, 1), np.nan)
    more = replace(sample, ratings=np.hstack([sample.ratings, nobody]), annotators=(*sample.annotators, "nobody"))
    found = STATISTICS[statistic](more)
    same(STATISTICS[statistic](sample), {name: found[name] for name in found if "nobody" not in name})


@only("agreement", "ceiling", "alternative annotator test", "clustered mean")
def test_an_item_of_weight_three_is_three_items_of_its_group(sample: Paired, statistic: str) -> None:
    times = np.random.default_rng(3).integers(1, 4, ITEMS)
    weighted = replace(sample, weights=times.astype(float))
    repeated = sample.at(np.repeat(np.arange(ITEMS), times))
    same(STATISTICS[statistic](weighted), STATISTICS[statistic](repeated))
    assert STATISTICS[statistic](weighted) != pytest.approx(STATISTICS[statistic](sample), abs=1e-6)


@only("agreement", "alpha", "ceiling", "annotators", "alternative annotator test", "clustered mean")
def test_items_that_nobody_rated_are_no_matter(sample: Paired, statistic: str) -> None:
    twice = sample.at(np.tile(np.arange(ITEMS), 2))
    more = replace(twice, ratings=np.vstack([sample.ratings, np.full(sample.ratings.shape, np.nan)]))
    same(STATISTICS[statistic](sample), STATISTICS[statistic](more))


LENGTHS = ("mae", "rmse", "bias", "severity", "spread")
"""Figures in units of the scale; the others have none."""


@only("agreement", "alpha", "ceiling", "annotators")
def test_another_unit_of_the_scale_changes_distances_alike_and_no_association(sample: Paired, statistic: str) -> None:
    """Scores of 1 to 5 written as 7 to 15."""
    wide = replace(sample, judge=sample.judge * 2 + 5, ratings=sample.ratings * 2 + 5, scale=(7, 15), levels=None)
    before, after = (STATISTICS[statistic](one) for one in (replace(sample, levels=None), wide))
    for name, value in before.items():
        block, _, kind = name.rpartition(".")
        if "apart" not in block and kind not in ("exact", "within_one", "rps", "log_loss", "qwk"):  # of whole steps
            assert after[name] == pytest.approx(value * (2 if kind in LENGTHS else 1), abs=1e-6), name


@only("clustered mean", "prediction-powered mean", "means of systems", "comparison of systems")
def test_the_same_more_from_judge_and_people_moves_means_and_no_difference(sample: Paired, statistic: str) -> None:
    moved = replace(sample, judge=sample.judge + 2, ratings=sample.ratings + 2, scale=(3, 7), levels=None)
    by = 2.0 if "mean" in statistic and statistic != "clustered mean" else 0.0
    before = STATISTICS[statistic](sample)
    same({name: value + by for name, value in before.items()}, STATISTICS[statistic](moved))


def test_who_agrees_in_full_has_the_best_of_every_figure() -> None:
    truth = np.arange(ITEMS) % 5 + 1.0
    perfect = metric(
        truth, np.tile(truth[:, None], 3), groups=np.arange(ITEMS) // 8, sources=np.arange(ITEMS) % 7,
    )  # fmt: skip
    found = agreement(perfect)
    for name in ("exact", "within_one", "qwk", "pearson", "spearman", "kendall", "pairwise_accuracy"):
        assert found.judge[name].value == pytest.approx(1), name
    assert [found.judge[name].value for name in ("bias", "mae", "rmse")] == [0, 0, 0]
    assert list(of_alpha(perfect).values()) == pytest.approx([1, 1, 1])
    ceiling = of_ceiling(perfect)
    assert [ceiling[name] for name in ("spearman", "pearson", "rmse", "mae")] == pytest.approx([1, 1, 0, 0])
    assert of_alt_test(perfect) == {"winning": 1, "advantage": 1}


def test_who_is_the_judge_and_who_the_person_is_no_matter_to_agreement(sample: Paired) -> None:
    person = np.nan_to_num(sample.ratings[:, 0], nan=2)
    judge = np.floor(sample.judge + 0.5)
    one, other = (agreement(metric(a, b, groups=sample.groups)).judge for a, b in ((judge, person), (person, judge)))
    for name in ("exact", "within_one", "qwk", "pearson", "spearman", "kendall", "mae", "rmse"):
        assert one[name].value == pytest.approx(other[name].value), name
    assert one["bias"].value == pytest.approx(-other["bias"].value)


def test_ranks_go_by_the_order_of_means_alone(sample: Paired) -> None:
    by_rank = [rank_ranges(one).set_index("source") for one in (sample, replace(sample, judge=sample.judge / 2 + 1))]
    assert by_rank[0].select_dtypes("number")["rank"].equals(by_rank[1].select_dtypes("number")["rank"])
