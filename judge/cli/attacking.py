"""The command ``attack``, and what its judgments say: how far scores moved, what is flagged, what they hang on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge.cli.common import (
    Characters,
    Data,
    Engine,
    Few,
    Json,
    Judge,
    Language,
    Layout,
    Sources,
    Url,
    as_one_json,
    refuse_unwritable,
    some_names,
    write_text,
)

if TYPE_CHECKING:
    import pandas as pd

    from calibration.resampling import Estimate
    from judge.rewriting import Rewritten

NO_FAMILY = "none known"
"""People, and sources whose name tells of no family of models."""


@dataclass(frozen=True, slots=True)
class Robustness:
    """How a judge stood the attacks.

    ``families``: a row per family: the columns of ``calibration.mean_changes`` over all nine metrics; ``beyond,
    beyond_low, beyond_high``, the mean change from the same dialogues with harmless text written into them (mean of the
    kinds of ``benign``); and ``flagged``, the share of its dialogues that the detector flags. ``rewrites``: the same by
    family and kind. ``metrics``: by
    family and metric. ``bias``: ``bias, measure, value, low, high, n, reason``. ``sources``: the judge's mean of each
    family of models: ``family, own, mean, low, high, n, sources``. ``flagged_originals`` is the share of the dialogues
    as they are that is flagged.
    """

    families: pd.DataFrame
    rewrites: pd.DataFrame
    metrics: pd.DataFrame
    bias: pd.DataFrame
    sources: pd.DataFrame
    flagged_originals: float

    @property
    def remarks(self) -> list[str]:
        """What to look at, in words."""
        from judge.cli.attack_tables import remarks

        return remarks(self)


def attack(
    data: Data = None,
    judge: Judge = "auto",
    engine: Engine = "auto",
    url: Url = None,
    language: Language = "zh",
    layout: Layout = "prefill",
    sources: Sources = "",
    characters: Characters = "",
    limit: Few = 100,
    seed: Annotated[int, typer.Option(help="Which of its texts each attack uses on which dialogue.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")] = None,
    as_json: Json = False,
) -> int:
    """Write attacks into answers and see whether scores rise: can an answer talk the judge round?

    Orders, fake rubrics, verdicts and system turns, control tokens, suffixes, empty and constant answers, padding,
    hidden characters, in Chinese and English, beside harmless text in the same place; what the detector flags of them;
    and how scores hang on the order of the levels, the language, length and the source's family. No run is written.
    """
    from judge.attacks.attacking import attack as run_attack
    from judge.cli.attack_tables import show_robustness
    from judge.options import Options
    from judge.terminal import TerminalProgress

    refuse_unwritable(out)
    options = Options(
        judge=judge,
        engine=engine,
        url=url,
        language=language,
        layout=layout,
        sources=some_names(sources, "--sources"),
        characters=some_names(characters, "--characters"),
        limit=limit,
    )
    progress = TerminalProgress()
    try:
        found = run_attack(data or [], options, progress, seed)
    finally:
        progress.finish()
    robustness = assess(found)
    text = _as_json(found, robustness) if out or as_json else ""
    if out:
        write_text(out, text)
    if as_json:
        print(text)
    else:
        show_robustness(found, robustness)
    return 1 if _is_lacking(found.judgments) else 0


def assess(found: Rewritten) -> Robustness:
    """What the judgments of an attack say."""
    from calibration import mean_changes, score_changes
    from judge.attacks.attacking import WAYS
    from judge.types import OVERALL

    rows = found.judgments
    is_original, is_way = rows["family"] == "", rows["family"].isin(WAYS)
    originals = rows[is_original]
    changed = score_changes(originals, _in_order(rows[~is_original]))
    attacked, asked = (changed[changed["family"].isin(WAYS) == ways] for ways in (False, True))
    overall = mean_changes(changed, ["family"]).assign(metric=OVERALL)
    return Robustness(
        families=_by(["family"], attacked, rows),
        rewrites=_by(["family", "rewrite"], attacked, rows),
        metrics=_sorted_as(overall, mean_changes(changed, ["family", "metric"])),
        bias=_bias(found.judge, originals, rows[is_way], asked),
        sources=_by_family(found.judge, originals),
        flagged_originals=float(_flags(originals)["flagged"].mean()),
    )


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the suite's families; the ways of asking last."""
    from judge.attacks.attacking import WAYS
    from judge.attacks.suite import families

    order = {name: place for place, name in enumerate([*(family.name for family in families()), *WAYS])}
    return rows.sort_values("family", key=lambda column: column.map(order), kind="stable")


def _sorted_as(overall: pd.DataFrame, by_metric: pd.DataFrame) -> pd.DataFrame:
    """Each family's overall row and then its metrics."""
    import pandas as pd

    order = {name: place for place, name in enumerate(overall["family"])}
    table = pd.concat([overall[by_metric.columns], by_metric], ignore_index=True)
    return table.sort_values("family", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _flags(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per dialogue or rewrite: ``family, rewrite, item_id, flagged``."""
    names = ["family", "rewrite", "item_id"]
    return rows.drop_duplicates(names)[names].assign(flagged=rows["suspicious"].notna())


def _by(by: list[str], attacked: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """How far scores moved, from the originals and from harmless text; and the share that is flagged."""
    from calibration import mean_changes

    names = {"change": "beyond", "low": "beyond_low", "high": "beyond_high"}
    beyond = mean_changes(_from_harmless(attacked), by).rename(columns=names)[[*by, *names.values()]]
    flagged = _flags(rows).groupby(by, as_index=False)["flagged"].mean()
    return mean_changes(attacked, by).merge(beyond, on=by, how="left").merge(flagged, on=by, how="left")


def _from_harmless(attacked: pd.DataFrame) -> pd.DataFrame:
    """The attacks' changes from the mean score of the same dialogue with harmless text written into it."""
    from calibration import score_changes
    from judge.attacks.suite import BENIGN

    is_harmless = attacked["family"] == BENIGN
    scores = attacked[is_harmless].astype({"score": float})
    harmless = scores.groupby(["item_id", "metric"])[["score"]].mean().reset_index()
    return score_changes(harmless, attacked[~is_harmless].drop(columns=["before", "change", "mass_change"]))


def _bias(judge: str, originals: pd.DataFrame, ways: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """A row per bias and measure."""
    import pandas as pd

    rows = [*_of_ways(originals, ways, asked), _of_length(originals), _of_own_family(judge, originals)]
    return pd.DataFrame(rows, columns=["bias", "measure", "value", "low", "high", "n", "reason"])


def _of_ways(originals: pd.DataFrame, ways: pd.DataFrame, asked: pd.DataFrame) -> Iterator[dict[str, Any]]:
    from calibration import mean_changes

    for change in mean_changes(asked, ["family"]).to_dict(orient="records"):
        yield {
            "bias": change["family"],
            "measure": "mean_change",
            **{name: change[name] for name in ("low", "high", "n")},
            "value": change["change"],
            "reason": None,
        }
        both = _overall(originals).join(_overall(ways[ways["family"] == change["family"]])["score"].rename("other"))
        yield {"bias": change["family"], "measure": "rank_agreement", **_spearman(both, "other")}


def _of_length(originals: pd.DataFrame) -> dict[str, Any]:
    return {"bias": "length", "measure": "rank_association", **_spearman(_overall(originals), "length")}


def _overall(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per dialogue that has all nine scores, by its id: ``score`` (their mean), ``group, length, source …``."""
    scores = rows.groupby("item_id")["score"].agg(lambda column: column.astype(float).mean(skipna=False))
    others = rows.drop_duplicates("item_id").set_index("item_id")[["source", "character", "group", "length"]]
    return others.join(scores).dropna(subset="score")


def _spearman(table: pd.DataFrame, other: str) -> dict[str, Any]:
    """Spearman's correlation over dialogues of the score with another column, its interval over scenarios."""
    import numpy as np

    from calibration.agreement.association import association
    from calibration.resampling import Resampler
    from judge.variants import MIN_DIALOGUES

    known = table.dropna(subset=[other])
    if len(known) < MIN_DIALOGUES:
        return {"value": None, "n": len(known), "reason": f"under {MIN_DIALOGUES} dialogues"}
    x, y = (known[name].to_numpy(float) for name in ("score", other))
    resampler = Resampler(known["group"].to_numpy(dtype=object))
    return _columns(association(x, y, np.ones(len(x)), resampler)["spearman"], len(x))


def _of_own_family(judge: str, originals: pd.DataFrame) -> dict[str, Any]:
    """The judge's mean of sources of its own family less that of the others, in the same scenes."""
    from calibration.resampling import clustered_mean
    from judge.families import family, same_family

    table = _overall(originals)
    own = table["source"].isin(same_family(judge, set(table["source"])))
    means = table.assign(own=own).groupby(["character", "group", "own"])["score"].mean().unstack("own")
    row = {"bias": "own_family", "measure": "own_less_others"}
    if family(judge) is None or own.all() or not own.any():
        reason = (
            "the judge's name tells of no family" if family(judge) is None else "its family is not, or is all there"
        )
        return {**row, "value": None, "n": 0, "reason": reason}
    differences = (means[True] - means[False]).dropna()
    groups = differences.index.get_level_values("group").to_numpy(dtype=object)
    return {**row, **_columns(clustered_mean(differences.to_numpy(float), groups), len(differences))}


def _columns(estimate: Estimate, n: int) -> dict[str, Any]:
    return {
        "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": n, "reason": estimate.reason
    }  # fmt: skip


def _by_family(judge: str, originals: pd.DataFrame) -> pd.DataFrame:
    """The judge's mean of each family of models, highest first; what is not one of a model stands as ``none known``."""
    import pandas as pd

    from calibration.resampling import clustered_mean
    from judge.families import family

    table = _overall(originals)
    named = table.assign(family=[family(source) or NO_FAMILY for source in table["source"]])
    rows = []
    for name, part in named.groupby("family"):
        mean = clustered_mean(part["score"].to_numpy(float), part["group"].to_numpy(dtype=object))
        facts = {"family": name, "own": name == family(judge), "mean": mean.value, "low": mean.low, "high": mean.high}
        rows.append({**facts, "n": len(part), "sources": ", ".join(sorted(set(part["source"])))})
    columns = ["family", "own", "mean", "low", "high", "n", "sources"]
    return pd.DataFrame(rows, columns=columns).sort_values("mean", ascending=False, ignore_index=True)


def _is_lacking(judgments: pd.DataFrame) -> bool:
    """Whether a judgment is missing that was to be had: of an attack that leaves no answer there is none."""
    from judge.types import EMPTY_ANSWER

    emptied = (judgments["family"] != "") & (judgments["error"] == EMPTY_ANSWER)
    return bool((judgments["error"].notna() & ~emptied).any())


def _as_json(found: Rewritten, robustness: Robustness) -> str:
    facts = {name: getattr(found, name) for name in ("judge", "judge_id", "dialogues", "missing", "settings")}
    tables = {name: getattr(robustness, name) for name in ("families", "rewrites", "metrics", "bias", "sources")}
    own = {"flagged_originals": robustness.flagged_originals, "remarks": robustness.remarks}
    return as_one_json({**facts, **own}, **tables)
