"""The same dialogues under all prompt variants by one model: the first thing to run on a new judge.

A variant is one of the layouts, two orders of the levels and a language of the rubric. The model is loaded once, and
nothing is written. The statistics of the comparison are here too; tables for the terminal are for
``judge.cli.layouts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.stats.correlation import pearson, spearman
from judge.engines.decision_protocols import SystemOne
from judge.errors import InputError, plain
from judge.models.hardware import Hardware
from judge.progress import SILENT, Progress, stoppable
from judge.prompting.prompt_tree import ALL_LAYOUTS, DECISION, LAYOUTS, PromptTree
from judge.prompting.rubric import languages, load_rubric
from judge.robustness.perturbation import DIALOGUES, ORDERINGS, PromptVariant, Task, count_missing, judge_tasks
from judge.scoring.judge import Judged, JudgeModel
from judge.scoring.setup import open_corpus, open_model, settle
from judge.types import MIN_MASS, NOT_FINITE, OVERALL, Options

MIN_DIALOGUES = 8
"""With fewer dialogues no correlation is given."""


def possible(layouts: Sequence[str], languages: Sequence[str]) -> tuple[PromptVariant, ...]:
    """The variants of the layouts that a model can be given; the first is the one that the others are compared with.

    Where nothing is left out that is what ``score`` does by default: prefill, ascending, the rubric's first language.
    """
    return tuple(
        PromptVariant(*choices) for choices in product(ALL_LAYOUTS, ORDERINGS, languages) if choices[0] in layouts
    )


def variant_table(judgments: pd.DataFrame, ratings: pd.DataFrame | None = None) -> pd.DataFrame:
    """What each variant's judgments are like, and how far they agree with the reference and with human ratings.

    Args:
        judgments: of all variants, a row each: ``variant, item_id, metric, mass, score, error``.
        ratings: human ratings, a row each: ``item_id, metric, score``.

    The reference is the variant of the first judgment, and variants and metrics come in the order of the judgments.

    Returns:
        A row per variant and metric (the index), and before a variant's metrics its ``overall``. Columns:

        - ``missing`` judgments; ``mass``, the median, and ``low_mass``, the share of judgments under ``MIN_MASS``;
        - ``mean`` score, and ``difference``: the mean of score minus reference over dialogues that have both;
        - ``agreement`` with the reference, and ``order_agreement`` with the other ordering of the same layout and
          language: Spearman's correlation over dialogues;
        - ``halo``: mean Spearman correlation over dialogues with each of the other metrics;
        - with ratings, ``human_spearman, human_pearson``: correlation over dialogues of the score with the mean of
          the human ratings; ``human_n``, the dialogues that have both; ``human_reason`` where there is no correlation.

        Overall, counts are sums, masses are of all judgments, and the rest are means over the metrics; a
        correlation's is over those metrics for which any variant has it, and missing where the variant lacks one.
    """
    names = list(dict.fromkeys(judgments["metric"]))
    scores = {str(name): _wide(part, names) for name, part in judgments.groupby("variant")}
    human = None if ratings is None else _wide(ratings, names)
    asked = [PromptVariant.named(str(name)) for name in dict.fromkeys(judgments["variant"])]
    metrics = pd.concat({v.name: _by_metric(v, asked[0], scores, human) for v in asked}, names=["variant", "metric"])
    # The overall row of a variant counts all its judgments, so each stands in the table twice.
    both = pd.concat([judgments, judgments.assign(metric=OVERALL)])
    # A judgment without finite numbers counts as of no mass at all; one that was never asked has none to count.
    # (A server of decisions need not tell the mass of its answers.)
    was_asked = (both["error"].isna() & both["mass"].notna()) | (both["error"] == NOT_FINITE)
    mass = both["mass"].astype(float).fillna(0.0).where(was_asked)
    low, missing = (mass < MIN_MASS).astype(float).where(was_asked), both["error"].notna()
    by = [both["variant"], both["metric"]]
    counts = pd.DataFrame(
        {
            "missing": missing.groupby(by).sum(),
            "mass": mass.groupby(by).median(),
            "low_mass": low.groupby(by).mean(),
        }
    )
    rows = pd.MultiIndex.from_product([[v.name for v in asked], [OVERALL, *names]], names=counts.index.names)
    return counts.join(pd.concat([_overall(metrics), metrics])).reindex(rows)


def _wide(rows: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """Dialogues × metrics: the score, or the mean of several."""
    means = rows.astype({"score": float}).groupby(["item_id", "metric"])["score"].mean()
    return means.unstack("metric").reindex(columns=metrics)


def _by_metric(
    variant: PromptVariant, first: PromptVariant, scores: Mapping[str, pd.DataFrame], human: pd.DataFrame | None
) -> pd.DataFrame:
    """One variant's row for each metric, from dialogues × metrics of all variants and of human ratings."""
    own, reference = scores[variant.name], scores[first.name]
    among = own.corr(method="spearman", min_periods=MIN_DIALOGUES)  # of each metric with itself too, left out below
    table = pd.DataFrame(
        {
            "mean": own.mean(),
            "difference": (own - reference).mean(),
            "agreement": _correlations(own, reference)["spearman"],
            "order_agreement": _correlations(own, scores[variant.turned.name])["spearman"],
            "halo": among.where(~np.eye(len(own.columns), dtype=bool)).mean(),
        }
    )
    return table if human is None else table.join(_correlations(own, human).add_prefix("human_"))


def _correlations(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """``spearman, pearson, n, reason`` by metric, of two tables of dialogues × metrics."""
    return pd.DataFrame([correlate(own[metric], other[metric]) for metric in own], index=own.columns)


def correlate(own: pd.Series[float], other: pd.Series[float]) -> dict[str, Any]:
    """How two columns of scores go together.

    Args:
        own, other: scores by dialogue, NaN where one is missing.

    Returns:
        ``spearman`` and ``pearson`` over the ``n`` dialogues that have both scores; where there are too few, or one
        side is constant, both are NaN and ``reason`` says why.
    """
    both = pd.concat([own, other], axis=1, keys=["own", "other"]).dropna().astype(float)
    reason = None
    if len(both) < MIN_DIALOGUES:
        reason = f"under {MIN_DIALOGUES} dialogues"
    elif both.nunique().min() == 1:
        reason = "all scores are equal" if both["own"].nunique() == 1 else "all ratings are equal"
    if reason:
        return {"spearman": math.nan, "pearson": math.nan, "n": len(both), "reason": reason}
    x, y, alike = both["own"].to_numpy(), both["other"].to_numpy(), np.ones(len(both))
    values = {"spearman": float(spearman(x, y, alike)), "pearson": float(pearson(x, y, alike))}
    return {**values, "n": len(both), "reason": None}


def _overall(metrics: pd.DataFrame) -> pd.DataFrame:
    """A row per variant: means over the metrics for which any variant has a value."""
    # A variant that lacks one of those metrics has no mean: otherwise it could win by what was left out.
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
    """The variant whose scores agree best with human ratings (mean Spearman), of those with most rated dialogues.

    None without ratings, or where no correlation is defined. ``overall`` has a row per variant.
    """
    if "human_n" not in overall:
        return None
    # Only among variants that judged most of the rated dialogues: on fewer, a correlation may be higher by chance.
    found = overall["human_spearman"][overall["human_n"] == overall["human_n"].max()].dropna()
    return None if found.empty else str(found.idxmax())


def remarks(overall: pd.DataFrame) -> list[str]:
    """The warnings about a comparison, in words; ``overall`` has a row per variant, the reference first."""
    found = []
    if overall["mean"].isna().all() and overall["mass"].notna().any():
        found.append("metrics differ in their scales: no mean over them is given, see the table of --out")
    asked = {name.partition(" ")[0] for name in overall.index}
    left_out = ", ".join(name for name in LAYOUTS if name not in asked)
    if next(iter(LAYOUTS)) not in asked:
        found.append(f"left out, as this server cannot be asked so: {left_out}; the reference is {overall.index[0]}")
    low = "; ".join(overall.index[overall["mass"] < MIN_MASS]) or "none"
    found.append(f"median mass under {MIN_MASS}: the judge does not understand that variant (here: {low})")
    known = overall["order_agreement"].dropna()
    if known.empty:
        found.append(f"no rank agreement is given: it needs {MIN_DIALOGUES} dialogues whose scores differ")
    else:
        lowest = f"lowest here: {known.min():.2f}, {known.idxmin()}"
        found.append(f"low rank agreement with the other ordering: scores hang on the order of the levels ({lowest})")
    if "human_n" in overall:
        best, human = best_variant(overall), overall["human_spearman"]
        if best is None:
            reasons = "; ".join(overall["human_reason"].dropna().unique())
            found.append(f"no agreement with human ratings is given: {reasons}")
        else:
            found.append(
                f"agrees best with human ratings: {best}, Spearman {human[best]:.2f}; the reference "
                f"{overall.index[0]}: {human.iloc[0]:.2f}. The best of {len(overall)} on the same ratings looks better "
                "than it is: confirm it on ratings that had no part in the choice"
            )
    return found


@dataclass(frozen=True, slots=True)
class LayoutComparison:
    """The judgments and statistics of the prompt variants compared.

    ``missing`` counts judgments by reason.
    ``table`` is that of ``variant_table``; its overall rows have besides ``engine``; ``prompt_tokens``
    and ``unique_tokens`` per dialogue (of all metrics' prompts; with what prompts share counted once); ``seconds`` of
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
        """The variant that agrees best with human ratings, where that is known."""
        return best_variant(self.overall)

    @property
    def remarks(self) -> list[str]:
        """The warnings about it, in words."""
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
        options: which judge by which engine, and which dialogues; ``DIALOGUES`` of them where no limit is given. Its
            layout, orderings and metrics do not count.
        annotations: human ratings, as ``calibration.read_ratings`` gives them. Only dialogues that they rate are
            then compared, so ``limit`` draws among those.
        progress: shows how far the work is.

    Raises:
        InputError: data or options are wrong, or the annotations rate none of the dialogues.
        EngineError: the machine or the model failed.
        Interrupted: the user stopped it; nothing is kept.
    """
    progress = progress or SILENT
    paths, options, reason, hardware = settle(data, options or Options(limit=DIALOGUES), progress)
    ratings = rated = None
    there = languages(options.rubric)
    if options.language is not None:  # named, it comes first and is the reference's
        there = tuple(sorted(there, key=lambda name: name != options.language))
    metrics = load_rubric(there[0], options.rubric).scheme.metrics
    if annotations is not None:
        ratings = annotations[annotations["metric"].isin(metrics)]
        rated = set(ratings["item_id"])
        if ratings.empty:
            found = plain(", ".join(sorted(set(annotations["metric"]))[:10]))
            raise InputError(
                f"--annotations: rates none of {', '.join(metrics)}, but {found}; name the metrics by their id"
            )
    with closing(open_corpus(paths, options, rated)) as corpus:
        for warning in corpus.notes:
            progress.note(warning)
        model = open_model(options, hardware, progress)
        # Both orderings are variants of their own; and one that the judge does not answer is compared too.
        once = replace(options, orderings=1, min_mass=0.0)
        models = [model, *_decider(options, model, hardware)]
        judges = {
            variant: variant.judge(once, one, progress) for one in models for variant in possible(one.layouts, there)
        }
        name = next(iter(judges.values())).name
        chosen = f"{len(corpus):,} dialogues" + (f" of {len(rated):,} that are rated" if rated else "")
        progress.note(f"judge {name} ({reason}): {chosen}, under {len(judges)} prompt variants")
        batches = [batch.dialogues for batch in corpus.batches()]
    tasks = [Task(variant.name, judge, batches) for variant, judge in judges.items()]
    with stoppable() as stop:
        results = judge_tasks(tasks, progress, stop)
    return _compared(tasks, results, ratings)


def _decider(options: Options, model: JudgeModel, hardware: Hardware) -> list[JudgeModel]:
    """The same model of a server as one of decisions, where it answers such too."""
    if not options.url or DECISION in model.layouts:
        return []
    try:
        return [open_model(replace(options, protocol=SystemOne.name), hardware)]
    except InputError:
        return []


def _compared(
    tasks: Sequence[Task], results: Sequence[tuple[list[Judged], float]], ratings: pd.DataFrame | None
) -> LayoutComparison:
    """The judgments of all variants as one table, what each variant cost, and their statistics."""
    dialogues = [dialogue for batch in tasks[0].batches for dialogue in batch]
    rows, costs = [], []
    for task, (judged, seconds) in zip(tasks, results, strict=True):
        made, trees, metrics = 0, [], task.judge.scheme.metrics
        for dialogue, found in zip(dialogues, judged, strict=True):
            for metric, one in zip(metrics, found.judgments, strict=True):
                names = {"variant": task.what, "item_id": dialogue.id, "metric": metric}
                rows.append({**names, "mass": one.mass, "score": one.score, "error": one.error})
                made += one.error is None
            if any(found.prompt_tokens):  # a dialogue that was not asked about has no prompts to count
                trees.append(task.judge.writers[0].dialogue(dialogue, metrics))
        costs.append(
            {
                "variant": task.what,
                "metric": OVERALL,
                "engine": task.judge.engine.name,
                "prompt_tokens": sum(sum(tree.lengths) for tree in trees) / max(len(trees), 1),
                "unique_tokens": unique_tokens(trees) / max(len(trees), 1),
                "seconds": seconds,
                "judgments_per_second": made / seconds,
            }
        )
    judgments = pd.DataFrame(rows)
    table = variant_table(judgments, ratings).reset_index()
    if tasks[0].judge.scheme.is_mixed:  # a mean over metrics on different scales would be of none
        table.loc[table["metric"] == OVERALL, ["mean", "difference"]] = np.nan
    return LayoutComparison(
        judge=tasks[0].judge.name,
        dialogues=len(dialogues),
        missing=count_missing(judgments),
        table=table.merge(pd.DataFrame(costs), how="left", on=["variant", "metric"]),
        judgments=judgments,
    )


def unique_tokens(trees: Sequence[PromptTree]) -> int:
    """Tokens of trees where what they share counts once: root, character, opening; then every dialogue's own."""
    shared = {path for tree in trees for path in tree.shared}
    return sum(len(path[-1]) for path in shared) + sum(tree.own for tree in trees)
