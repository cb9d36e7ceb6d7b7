"""The same dialogues asked in twelve ways by one model: the first thing to run on a new judge.

Three layouts, two orders of the levels, two languages. Nothing is written, and the model is loaded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from judge.data.dataset import Corpus
from judge.engines.served_model import connect
from judge.errors import InputError, plain
from judge.models.hardware import Hardware, detect
from judge.progress import Progress, Silent, stoppable
from judge.prompting.prompt_tree import LAYOUTS, PromptTree
from judge.prompting.rubric import LANGUAGES
from judge.robustness.perturbation import DIALOGUES, ask, share_engine
from judge.scoring.judge import MIN_MASS, Judge, Judged
from judge.scoring.setup import open_judge, settle
from judge.types import METRICS, NOT_FINITE, OVERALL, Dialogue, Options

ORDERINGS = ("ascending", "descending")
"""How the levels are listed in the rubric."""


MIN_DIALOGUES = 8
"""Under so many dialogues no correlation is given."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of asking: layout, order of the levels, language of the rubric."""

    layout: str
    ordering: str
    language: str

    @property
    def name(self) -> str:
        """As in ``prefill · ascending · zh``."""
        return f"{self.layout} · {self.ordering} · {self.language}"

    @property
    def turned(self) -> Variant:
        """The same with the levels the other way round."""
        return Variant(self.layout, ORDERINGS[1 - ORDERINGS.index(self.ordering)], self.language)


VARIANTS = tuple(Variant(*choices) for choices in product(LAYOUTS, ORDERINGS, LANGUAGES))
"""All twelve."""


REFERENCE = VARIANTS[0]
"""What ``score`` does unless told otherwise: prefill, ascending, zh."""


def possible(takes_ids: bool) -> tuple[Variant, ...]:
    """The variants that a model can be asked, first the one that the others are compared with.

    A server that takes messages, and not token ids, cannot be given the beginning of an answer.
    """
    return tuple(variant for variant in VARIANTS if takes_ids or not LAYOUTS[variant.layout].answer_begun)


def variant_table(judgments: pd.DataFrame, ratings: pd.DataFrame | None = None) -> pd.DataFrame:
    """What each variant's judgments are like, and how far they agree with the reference and with people.

    Args:
        judgments: of all variants, a row each: ``variant, item_id, metric, mass, score, error``.
        ratings: people's, a row each: ``item_id, metric, score``.

    The reference is the first of ``VARIANTS`` that has judgments.

    Returns:
        A row per variant and metric (the index), and before a variant's nine its ``overall``. Columns:

        - ``missing`` judgments; ``mass``, the median, and ``low_mass``, the share of judgments under ``MIN_MASS``;
        - ``mean`` score, and ``difference``: the mean of score minus reference over dialogues that have both;
        - ``agreement`` with the reference, and ``order_agreement`` with the other ordering of the same layout and
          language: Spearman's correlation over dialogues;
        - ``halo``: mean Spearman correlation over dialogues with each of the other eight metrics;
        - with ratings, ``human_spearman, human_pearson``: correlation over dialogues of the score with the mean of
          people's ratings; ``human_n``, the dialogues that have both; ``human_reason`` where there is no correlation.

        Overall, counts are sums, masses are of all judgments, and the rest are means over the nine metrics; a
        correlation's is over those metrics for which any variant has it, and missing where the variant lacks one.
    """
    scores = {str(name): _wide(part) for name, part in judgments.groupby("variant")}
    people = None if ratings is None else _wide(ratings)
    asked = [variant for variant in VARIANTS if variant.name in scores]
    metrics = pd.concat({v.name: _by_metric(v, asked[0], scores, people) for v in asked}, names=["variant", "metric"])
    counts = _counts(pd.concat([judgments, judgments.assign(metric=OVERALL)]))
    rows = pd.MultiIndex.from_product([[v.name for v in asked], [OVERALL, *METRICS]], names=counts.index.names)
    return counts.join(pd.concat([_overall(metrics), metrics])).reindex(rows)


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Dialogues × the nine metrics: the score, or the mean of several."""
    means = rows.astype({"score": float}).groupby(["item_id", "metric"])["score"].mean()
    return means.unstack("metric").reindex(columns=list(METRICS))


def _counts(judgments: pd.DataFrame) -> pd.DataFrame:
    """``missing, mass, low_mass`` by variant and metric; a judgment without finite numbers has no mass at all."""
    asked = judgments["error"].isna() | (judgments["error"] == NOT_FINITE)
    mass = judgments["mass"].astype(float).fillna(0.0).where(asked)
    by = [judgments["variant"], judgments["metric"]]
    low = (mass < MIN_MASS).astype(float).where(asked)
    missing = judgments["error"].notna()
    columns = {
        "missing": missing.groupby(by).sum(),
        "mass": mass.groupby(by).median(),
        "low_mass": low.groupby(by).mean(),
    }
    return pd.DataFrame(columns)


def _by_metric(
    variant: Variant, first: Variant, scores: Mapping[str, pd.DataFrame], people: pd.DataFrame | None
) -> pd.DataFrame:
    """One variant's row for each metric, from dialogues × metrics of all variants and of people."""
    own, reference = scores[variant.name], scores[first.name]
    # Mean Spearman correlation of each metric with the other eight, where defined.
    correlations = own.corr(method="spearman", min_periods=MIN_DIALOGUES)
    halo = correlations.where(~np.eye(len(METRICS), dtype=bool)).mean()
    table = pd.DataFrame(
        {
            "mean": own.mean(),
            "difference": (own - reference).mean(),
            "agreement": _correlations(own, reference)["spearman"],
            "order_agreement": _correlations(own, scores[variant.turned.name])["spearman"],
            "halo": halo,
        }
    )
    return table if people is None else table.join(_correlations(own, people).add_prefix("human_"))


def _correlations(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """``spearman, pearson, n, reason`` by metric, of two tables of dialogues × metrics."""
    return pd.DataFrame([correlate(own[metric], other[metric]) for metric in METRICS], index=list(METRICS))


def correlate(own: pd.Series[float], other: pd.Series[float]) -> dict[str, Any]:
    """``spearman`` and ``pearson`` over the ``n`` dialogues that have both; or NaN, and the ``reason``."""
    both = pd.concat([own, other], axis=1, keys=["own", "other"]).dropna()
    reason = None
    if len(both) < MIN_DIALOGUES:
        reason = f"under {MIN_DIALOGUES} dialogues"
    elif both.nunique().min() == 1:
        reason = "all scores are equal" if both["own"].nunique() == 1 else "all ratings are equal"
    found = {m: math.nan if reason else both.corr(method=m).loc["own", "other"] for m in ("spearman", "pearson")}
    return {**found, "n": len(both), "reason": reason}


def _overall(metrics: pd.DataFrame) -> pd.DataFrame:
    """A row per variant: means over the metrics for which any variant has a value."""
    numbers = metrics.drop(columns=["human_n", "human_reason"], errors="ignore")
    means = {name: column.unstack("metric").dropna(axis=1, how="all") for name, column in numbers.items()}
    table = pd.DataFrame({name: wide.mean(axis=1, skipna=False) for name, wide in means.items()})
    if "human_n" in metrics:
        by_variant = metrics.groupby(level="variant")
        reasons = by_variant["human_reason"].agg(lambda column: ", ".join(column.dropna().unique()))
        table["human_n"] = by_variant["human_n"].sum()
        table["human_reason"] = reasons.where(table["human_spearman"].isna())
    return pd.concat({OVERALL: table}, names=["metric"]).swaplevel()


def best_variant(overall: pd.DataFrame) -> str | None:
    """The variant whose scores agree best with people (mean Spearman), of those that judged most rated dialogues.

    None without ratings, or where no correlation is defined. ``overall`` has a row per variant.
    """
    if "human_n" not in overall:
        return None
    found = overall["human_spearman"][overall["human_n"] == overall["human_n"].max()].dropna()
    return None if found.empty else str(found.idxmax())


def remarks(overall: pd.DataFrame) -> list[str]:
    """What to look at, in words; ``overall`` has a row per variant, the reference first."""
    mass = overall["mass"]
    low = "; ".join(mass.index[mass < MIN_MASS]) or "none"
    on_mass = f"median mass under {MIN_MASS}: the judge does not understand that variant (here: {low})"
    return [
        *_on_reference(overall),
        on_mass,
        _on_order(overall["order_agreement"]),
        *_on_people(overall),
    ]


def _on_reference(overall: pd.DataFrame) -> list[str]:
    if REFERENCE.name in overall.index:
        return []
    left_out = ", ".join(name for name, layout in LAYOUTS.items() if layout.answer_begun)
    return [
        f"left out, as this server takes messages and no beginning of an answer: {left_out}; the reference is "
        f"{overall.index[0]}"
    ]


def _on_order(agreement: pd.Series[float]) -> str:
    known = agreement.dropna()
    if known.empty:
        return f"no rank agreement is given: it needs {MIN_DIALOGUES} dialogues whose scores differ"
    lowest = f"lowest here: {known.min():.2f}, {known.idxmin()}"
    return f"low rank agreement with the other ordering: scores hang on the order of the levels ({lowest})"


def _on_people(overall: pd.DataFrame) -> list[str]:
    best = best_variant(overall)
    if "human_n" not in overall:
        return []
    if best is None:
        return [f"no agreement with people is given: {'; '.join(overall['human_reason'].dropna().unique())}"]
    found = overall["human_spearman"]
    return [
        f"agrees best with people: {best}, Spearman {found[best]:.2f}; the reference {overall.index[0]}: "
        f"{found.iloc[0]:.2f}. The best of {len(overall)} on the same ratings looks better than it is: "
        "confirm it on ratings that had no part in the choice"
    ]


@dataclass(frozen=True, slots=True)
class LayoutComparison:
    """What twelve ways of asking gave.

    ``missing`` counts judgments by reason.
    ``table`` is that of ``variant_table``; its overall rows have besides ``engine``; ``prompt_tokens``
    and ``unique_tokens`` per dialogue (of all nine prompts; with what prompts share counted once); ``seconds`` of
    scoring, loading left out; and ``judgments_per_second``.
    ``judgments`` has a row per judgment: ``variant, item_id, metric, mass, score, error``.
    """

    judge: str
    dialogues: int
    missing: dict[str, int]
    table: pd.DataFrame = field(repr=False)
    judgments: pd.DataFrame = field(repr=False)

    @property
    def overall(self) -> pd.DataFrame:
        """The table's overall rows, by variant."""
        return self.table[self.table["metric"] == OVERALL].set_index("variant")

    @property
    def best(self) -> str | None:
        """The variant that agrees best with people, where that is known."""
        return best_variant(self.overall)

    @property
    def remarks(self) -> list[str]:
        """What to look at, in words."""
        return remarks(self.overall)


def compare_layouts(
    data: Sequence[Path] = (),
    options: Options | None = None,
    annotations: pd.DataFrame | None = None,
    progress: Progress | None = None,
) -> LayoutComparison:
    """Score the same dialogues under every layout, ordering of the levels and language, and compare.

    Args:
        data: files or folders of dialogues; none as for ``score``.
        options: which judge by which engine, and which dialogues; ``DIALOGUES`` of them unless told otherwise. Its
            layout, orderings, language and metrics do not count.
        annotations: people's ratings, as ``calibration.read_ratings`` gives them. Only dialogues that they rate are
            then compared, so ``limit`` draws among those.
        progress: who is told how far it is.

    Raises:
        InputError: data or options are wrong, or the annotations rate none of the dialogues.
        EngineError: the machine or the model failed.
        Interrupted: the user stopped it; nothing is kept.
    """
    progress, hardware = progress or Silent(), detect()
    paths, options, reason = settle(data, options or Options(limit=DIALOGUES), hardware)
    ratings = None if annotations is None else _known(annotations)
    rated = None if ratings is None else set(ratings["item_id"])
    with closing(Corpus(paths, options.sources, options.characters, options.limit, rated)) as corpus:
        judges = _judges(options, hardware)
        first = next(iter(judges.values()))
        chosen = f"{len(corpus):,} dialogues" + (f" of {len(rated):,} that are rated" if rated else "")
        progress.note(f"judge {first.name} ({reason}): {chosen}, asked in {len(judges)} ways")
        units = [unit.dialogues for unit in corpus.units()]
    with stoppable() as stop:
        share_engine(first, list(judges.values())[1:])
        scored = [_Scored(v, judge, *ask(judge, units, v.name, progress, stop)) for v, judge in judges.items()]
    return _compared(scored, [dialogue for unit in units for dialogue in unit], ratings)


def _known(annotations: pd.DataFrame) -> pd.DataFrame:
    """The ratings on metrics of ours."""
    ratings = annotations[annotations["metric"].isin(METRICS)]
    if ratings.empty:
        found = plain(", ".join(sorted(set(annotations["metric"]))[:10]))
        raise InputError(
            f"--annotations: rates none of {', '.join(METRICS)}, but {found}; name the metrics by their id"
        )
    return ratings


def _judges(options: Options, hardware: Hardware) -> dict[Variant, Judge]:
    """The model as a judge of each variant that it can be asked, the reference first."""
    takes_ids = not options.url or connect(options.url, options.judge).takes_ids
    return {
        variant: open_judge(
            replace(options, layout=variant.layout, language=variant.language, orderings=1),
            hardware,
            ascending=variant.ordering == REFERENCE.ordering,
        )
        for variant in possible(takes_ids)
    }


@dataclass(frozen=True, slots=True)
class _Scored:
    """A variant's judgments of all dialogues, and how long they took, in seconds."""

    variant: Variant
    judge: Judge
    judged: list[Judged]
    seconds: float


def _compared(
    scored: Sequence[_Scored], dialogues: Sequence[Dialogue], ratings: pd.DataFrame | None
) -> LayoutComparison:
    judgments = pd.DataFrame([row for one in scored for row in _rows(one, dialogues)])
    costs = pd.DataFrame([_costs(one, dialogues) for one in scored])
    return LayoutComparison(
        judge=scored[0].judge.name,
        dialogues=len(dialogues),
        missing={str(reason): int(n) for reason, n in judgments["error"].value_counts().sort_index().items()},
        table=variant_table(judgments, ratings).reset_index().merge(costs, how="left", on=["variant", "metric"]),
        judgments=judgments,
    )


def _rows(scored: _Scored, dialogues: Sequence[Dialogue]) -> Iterator[dict[str, Any]]:
    for dialogue, judged in zip(dialogues, scored.judged, strict=True):
        for metric, judgment in zip(METRICS, judged.judgments, strict=True):
            names = {"variant": scored.variant.name, "item_id": dialogue.id, "metric": metric}
            yield {**names, "mass": judgment.mass, "score": judgment.score, "error": judgment.error}


def _costs(scored: _Scored, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """Tokens per dialogue that was asked, and time."""
    writer = scored.judge.writers[0]
    asked = [d for d, found in zip(dialogues, scored.judged, strict=True) if any(found.prompt_tokens)]
    trees = [writer.dialogue(dialogue, METRICS) for dialogue in asked]
    made = sum(judgment.error is None for judged in scored.judged for judgment in judged.judgments)
    return {
        "variant": scored.variant.name,
        "metric": OVERALL,
        "engine": scored.judge.engine.name,
        "prompt_tokens": sum(sum(tree.lengths) for tree in trees) / max(len(trees), 1),
        "unique_tokens": unique_tokens(trees) / max(len(trees), 1),
        "seconds": scored.seconds,
        "judgments_per_second": made / scored.seconds,
    }


def unique_tokens(trees: Sequence[PromptTree]) -> int:
    """Tokens of trees where what they share counts once: root, character, opening; then every dialogue's own."""
    shared = {path for tree in trees for path in tree.shared}
    return sum(len(path[-1]) for path in shared) + sum(tree.own for tree in trees)
