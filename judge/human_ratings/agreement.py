"""What the commands about human ratings do: read a run or a table of scores and a table of ratings, pair, compute.

The statistics themselves are ``calibration``'s; printing is the commands'.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from calibration import (
    Comparison,
    Pairing,
    Plan,
    agreement_with_published,
    assess,
    chatanime_means,
    compare,
    compare_judges,
    estimate,
    mean_panel,
    panel_gains,
    plan,
    rank_ranges,
)
from calibration.calibrators.panel import PANEL, common_remarks
from calibration.names import meant
from calibration.records import read_records
from calibration.stats.correlation import MIN_CORRELATED
from judge.data.columns import map_pairs
from judge.errors import InputError, naming, one_line
from judge.models.checkpoint import same_family
from judge.prompting.rubric import languages, load_rubric, packaged
from judge.remote import refuse_address
from judge.scoring.run_folder import load_scores, mean_scores, read_manifest, scheme_of
from judge.types import CHATANIME, Scheme

if TYPE_CHECKING:
    from calibration import Assessment, JudgeDifference, PanelGain


NUMBER = r"-?\d+(?:\.\d+)?"
"""An end of a scale in ``--scale``."""


Scale = Any
"""As ``calibration`` takes it: of every metric, of each, or None."""


def name_of(pairing: Pairing) -> str:
    """What the judge is called."""
    return pairing.judge or "the judge"


def is_run(path: Path) -> bool:
    """Whether a path is a run and not a table."""
    refuse_address(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path}: no such run or table ({error.strerror}); check the path") from error
    return stat.S_ISDIR(mode)


def read_annotations(
    path: Path,
    scale: Scale = None,
    *,
    average_repeats: bool = False,
    columns: str | None = None,
    metrics: Mapping[str, str] | None = None,
    source: Mapping[str, str] | None = None,
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """Human ratings, as ``calibration.read_ratings`` reads them; InputError where the file cannot be used.

    Args:
        path: the file.
        scale: what scores must lie within.
        average_repeats: whether an annotator may have rated the same item on the same metric more than once.
        columns: which column is what, as ``map_of_ratings`` takes it.
        metrics: names and titles of the metrics there are, with their ids.
        source: the system of each item, for a table that does not say it.
        notes: is added what a reader should know of how the table was read.
    """
    from calibration import read_ratings

    mapping = map_of_ratings(columns)
    with naming("--annotations"):
        return read_ratings(
            path,
            scale,
            repeats="keep" if average_repeats else "error",
            mapping=mapping,
            metrics=metrics,
            source=source,
            notes=notes,
        )


def read_judge_scores(
    path: Path, scale: Scale, source: str | None = None, notes: list[str] | None = None
) -> pd.DataFrame:
    """A judge's scores, from a run or a table.

    Args:
        path: the run or the table.
        scale: what scores of a table must lie within.
        source: the system of all items, where a table does not say it.
        notes: is added what a reader should know of how a table was read.

    Raises:
        InputError: the table cannot be used, or the run holds no score of any dialogue.
    """
    from calibration import read_scores

    if is_run(path):
        table = load_scores(path)
        if table.empty:
            asked = ", ".join(read_manifest(path)["metrics"])
            raise InputError(
                f"{path}: holds no scores of dialogues, as {asked} is of answers together; score with "
                "other --metrics into another --run"
            )
        if table["score"].isna().all():
            raise InputError(f"{path}: all of its judgments are missing; `esrp-judge tables {path}` says why")
        return table
    return read_scores(path, scale, source=source, notes=notes)


def read_pairing(
    path: Path,
    annotations: Path,
    scale: str | None,
    judge: str | None = None,
    annotators: tuple[str, ...] = (),
    average_repeats: bool = False,
    with_composites: bool = True,
    columns: str | None = None,
) -> Pairing:
    """Ratings paired with the scores of a run or a table; InputError where they do not go together."""
    from calibration import pair

    both = _read_both(path, annotations, scale, average_repeats, columns)
    composites = _composites(path, both.scores) if with_composites else {}
    how: dict[str, Any] = {"judge": judge, "annotators": annotators, "composites": composites}
    return pair(both.ratings, both.scores, scale=both.scale, notes=both.notes, **how)


@dataclass(frozen=True, slots=True)
class Judged:
    """One judge's scores of the rated items, and where they are from."""

    path: Path
    pairing: Pairing


def read_judges(
    paths: Sequence[Path],
    annotations: Path,
    scale: str | None,
    judge: str | None = None,
    annotators: tuple[str, ...] = (),
    average_repeats: bool = False,
    with_composites: bool = True,
    columns: str | None = None,
) -> dict[str, Judged]:
    """One or more judges of the same items, by name: those of all runs and tables.

    Two judges of one name get the name of their run's folder or their file beside it.

    Args:
        paths: runs or tables.
        annotations: human ratings.
        scale: as it was typed.
        judge: names with commas: only these judges of the tables; ``all`` for all; None where each holds one only.
        annotators, average_repeats, with_composites, columns: as for ``read_pairing``.

    Raises:
        InputError: a run or table is given twice, or a judge is in none.
    """
    from calibration import pair

    if again := [path for place, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:place]]]:
        raise InputError(f"{again[0]}: given twice; give each run or table once")
    tables = [(path, _read_both(path, annotations, scale, average_repeats, columns)) for path in paths]
    known = {name for _, both in tables if "judge" in both.scores for name in both.scores["judge"].unique()}
    if judge is None or judge in known:  # a name with a comma in it is one judge where there is one of that name
        wanted: list[str | None] = [judge]
    elif judge == ALL:
        wanted = sorted(known) or [None]
    else:
        wanted = list(dict.fromkeys(part.strip() for part in judge.split(",") if part.strip()))
        lost = [name for name in wanted if name not in known]
        if lost or not wanted:
            listed = ", ".join(sorted(known)) or "no column judge"
            raise InputError(f"--judge {judge}: no judge {', '.join(map(repr, lost))} (found: {listed}); or say all")
    found: list[tuple[str, Path, Pairing]] = []
    for path, both in tables:
        composites = _composites(path, both.scores) if with_composites else {}
        how: dict[str, Any] = {"annotators": annotators, "scale": both.scale, "composites": composites}
        there: set[str | None] = set(both.scores["judge"]) if "judge" in both.scores else {None}
        for name in wanted if judge is not None and there != {None} else [None]:
            if name is None or name in there:
                one = pair(both.ratings, both.scores, judge=name, notes=both.notes, **how)
                found.append((one.judge or path.stem, path, one))
    names = [name for name, _, _ in found]
    for parts in ([path.resolve().name for _, path, _ in found], [str(path.resolve()) for _, path, _ in found]):
        names = [
            f"{name} ({part})" if names.count(own) > 1 else own
            for own, (name, _, _), part in zip(names, found, parts, strict=True)
        ]
    return {name: Judged(path, one) for name, (_, path, one) in zip(names, found, strict=True)}


@dataclass(frozen=True, slots=True)
class _Both:
    """Human ratings and a judge's scores, and what reading them had to say."""

    scale: Scale
    ratings: pd.DataFrame
    scores: pd.DataFrame
    notes: tuple[str, ...]


UNKNOWN = "unknown"
"""The source of an item of which neither table says it."""


def _read_both(path: Path, annotations: Path, scale: str | None, average_repeats: bool, columns: str | None) -> _Both:
    """Human ratings and the scores of a run or a table, on the scale that was named or is a run's own.

    The scores come first, as they say which metrics there are. Where one table does not say the source of its items,
    the other one does.
    """
    notes: list[str] = []
    scales = scale_of(path, scale)
    scores = read_judge_scores(path, scales, source=UNKNOWN, notes=notes)
    judged = set(scores["metric"])
    ratings = read_annotations(
        annotations,
        scales,
        average_repeats=average_repeats,
        columns=columns,
        metrics=metric_names(judged, scheme_behind(path, judged), scales),
        source=dict(zip(scores["item_id"], scores["source"], strict=True)),
        notes=notes,
    )
    if is_run(path):
        both = judged & set(ratings["metric"])
        own = {metric: ends for metric, ends in scheme_of(read_manifest(path)).scales.items() if metric in both}
        notes += _about_another_scale(scales, own)
    return _Both(scales, ratings, _with_sources(path, scores, ratings), tuple(notes))


def _about_another_scale(scale: Scale, own: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """What to know where the scale that was named is not the one that a run's scores are on (``own``, by metric)."""
    for metric, (low, high) in own.items():
        named = scale.get(metric) if isinstance(scale, Mapping) else scale
        if named and tuple(named) != (low, high):
            first, last = named
            yield (
                f"On {metric} the run's scores are from {low:g} to {high:g} and the ratings' scale is {first:g} to "
                f"{last:g}: differences mean nothing, correlations may; fit a map to the scale of ratings (calibrate)."
            )


def _with_sources(path: Path, scores: pd.DataFrame, ratings: pd.DataFrame) -> pd.DataFrame:
    """Scores of a table without the sources of its items, with those that the ratings say.

    InputError where an item is known by character and scenario alone, and the ratings are of several systems.
    """
    if (scores["source"] != UNKNOWN).any():
        return scores
    if "character" in scores and (scores["item_id"].str.startswith(f"{UNKNOWN}/")).all():
        systems = sorted(ratings["source"].unique())
        if len(systems) > 1:
            found = ", ".join(systems[:10])
            raise InputError(
                f"{path}: no column 'source', and the ratings are of several systems ({found}); add the column"
            )
        items = systems[0] + scores["item_id"].str.removeprefix(UNKNOWN)
        return scores.assign(source=systems[0], item_id=items)
    known = dict(zip(ratings["item_id"], ratings["source"], strict=True))
    return scores.assign(source=[known.get(item, UNKNOWN) for item in scores["item_id"]])


def metric_names(judged: Collection[str], scheme: Scheme | None, scale: Scale = None) -> dict[str, str]:
    """What the metrics that were judged may be called in a table, with their ids: the id, and the titles of a rubric.

    Args:
        judged: ids of metrics.
        scheme: of the rubric that they are of, where one is known: all of its metrics are then known too, by their
            titles in every language that it is packaged in.
        scale: where it is of each metric, others than these are left out: their ratings could not be checked.
    """
    ids = dict.fromkeys(judged)
    titles: dict[str, str] = {}
    if scheme:
        ids |= dict.fromkeys(scheme.metrics)
        there = languages(scheme.rubric) if scheme.rubric in packaged() else ()
        for one in (scheme, *(load_rubric(language, scheme.rubric).scheme for language in there)):
            titles |= {one.titles[metric]: metric for metric in one.metrics if metric in ids}
    names = {**titles, **{metric: metric for metric in ids}}
    return {name: metric for name, metric in names.items() if not isinstance(scale, Mapping) or metric in scale}


def read_unrated(path: Path, scale: str | None, judge: str | None = None) -> Pairing:
    """The scores of a run or a table with no ratings beside them."""
    from calibration import without_ratings

    scales, notes = scale_of(path, scale), list[str]()
    scores = read_judge_scores(path, scales, notes=notes)
    return without_ratings(scores, judge=judge, scale=scales, composites=_composites(path, scores), notes=notes)


def scheme_behind(path: Path, metrics: Collection[str]) -> Scheme | None:
    """What the rubric of a run rates; of a table that of the packaged rubric with most of its metrics, if there is one.

    Args:
        path: the run or table.
        metrics: those that it has scores on.
    """
    if is_run(path):
        return scheme_of(read_manifest(path))
    return packaged_scheme(metrics)


def packaged_scheme(metrics: Collection[str]) -> Scheme | None:
    """What the packaged rubric rates that has most of some metrics; None where none has any."""
    schemes = [load_rubric(rubric=name).scheme for name in packaged()]
    best = max(schemes, key=lambda one: len(set(one.metrics) & set(metrics)))
    return best if set(best.metrics) & set(metrics) else None


def _composites(path: Path, scores: pd.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """The means to add: those of the rubric that the scores are of."""
    scheme = scheme_behind(path, set(scores["metric"]))
    return scheme.composites if scheme else {}


def scale_of(path: Path, text: str | None) -> Scale:
    """The scale that was named; else a run's own, and None for a table, whose scores tell it."""
    if text:
        return parse_scale(text)
    return scheme_of(read_manifest(path)).scales if is_run(path) else None


def parse_scale(text: str) -> Scale:
    """``1-5`` for every metric, or ``a=1-5,b=0-3`` for each."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    found = [re.fullmatch(rf"(?:(.+?)\s*=\s*)?({NUMBER})-({NUMBER})", part) for part in parts]
    scales = {match[1]: (float(match[2]), float(match[3])) for match in found if match}
    fit = all(low < high < math.inf for low, high in scales.values())
    if not parts or len(scales) != len(parts) or not fit:
        raise InputError(f"--scale {text}: not understood; write 1-5, or one for each metric: fluency=1-5,empathy=0-3")
    if None in scales and len(scales) > 1:
        raise InputError(f"--scale {text}: give one scale for every metric, or one for each")
    return scales.get(None, scales)


def map_of_ratings(text: str | None) -> dict[str, str]:
    """``annotator=rater,metric='fluency'``: the column, or the text in single quotes, of each field."""
    found: dict[str, str] = {}
    for part, name, column in map_pairs(text or "", "annotator=rater"):
        if name in found:
            raise InputError(f"--map {part.strip()}: {name} stands twice; leave one out")
        found[name] = column
    return found


DIVERSITY = "response_diversity"
"""The published metric of a system's answers as one character."""


ALL = "all"
"""What ``--judge`` says for every judge."""


DISTINCT = "response_diversity (distinct-2)"
"""What distinct-2 is called where it stands beside the judge's rating of diversity."""


@dataclass(frozen=True, slots=True)
class Published:
    """A run's system means beside the published ones of ChatAnime, a row a metric."""

    judge: str
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """By metric, NaN as None."""
        records = json.loads(self.table.set_index("metric").to_json(orient="index"))
        return {"judge": self.judge, "metrics": records}


def assess_pairing(pairing: Pairing, **how: Any) -> Assessment:
    """Assess what was paired; ``how`` goes to ``calibration.assess``."""
    name = name_of(pairing)
    sources = {source for paired in pairing.metrics.values() for source in paired.labelled.sources}
    try:
        return assess(pairing, name, same_family=same_family(name, sources), **how)
    except ValueError as error:
        raise InputError(str(error)) from error


@dataclass(frozen=True, slots=True)
class JudgesTogether:
    """Several judges side by side, their mean as a judge of its own, and what a panel of them gains."""

    judges: dict[str, Assessment]
    differences: list[JudgeDifference]
    panel: Assessment | None
    """Of the mean; None where no metric has one."""
    gains: list[PanelGain]
    remarks: tuple[str, ...]
    """Warnings about the panel, a sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """What programs read."""
        return {
            "judges": {name: one.to_dict() for name, one in self.judges.items()},
            "differences": [one.to_dict() for one in self.differences],
            "panel": {
                "mean": self.panel.to_dict() if self.panel else None,
                "gains": [one.to_dict() for one in self.gains],
                "remarks": list(self.remarks),
            },
        }

    @property
    def table(self) -> pd.DataFrame:
        """One number a row, with the column ``judge``; the mean and what a panel gains are the judge ``panel``'s."""
        tables = [one.table.assign(judge=name) for name, one in self.judges.items()]
        of_panel = [one.table for one in (self.panel, *self.gains) if one]
        return pd.concat([*tables, *(one.assign(judge=PANEL) for one in of_panel)], ignore_index=True)


def agree_together(pairings: Mapping[str, Pairing], **how: Any) -> JudgesTogether:
    """Assess several judges of the same ratings, and a panel of them; ``how`` goes to ``calibration.assess``."""
    nominal, characters = how["nominal"], how["characters"]
    judges = {name: assess_pairing(one, **how) for name, one in pairings.items()}
    differences = compare_judges(pairings, nominal=nominal, characters=characters)
    try:
        mean = mean_panel(pairings, nominal=nominal)
    except InputError as error:
        return JudgesTogether(judges, differences, None, [], (f"There is no panel: {error}.",))
    rated = {name: one for name, one in mean.metrics.items() if one.counts.any()}
    panel = assess_pairing(replace(mean, metrics=rated), **{**how, "nominal": ()}) if rated else None
    gains = panel_gains(pairings, nominal=nominal, characters=characters)
    own = common_remarks({name: one.remarks for name, one in pairings.items()})
    return JudgesTogether(judges, differences, panel, gains, tuple(text for text in mean.remarks if text not in own))


def compare_with_published(scores: Path) -> Published | None:
    """A run's means beside ChatAnime's published ones.

    None for a table, a run by another rubric, or one without three of ChatAnime's sources.
    """
    if not is_run(scores) or scheme_of(manifest := read_manifest(scores)).rubric != CHATANIME:
        return None
    published = chatanime_means()
    if len(set(manifest["sources"]) & set(published["source"])) < MIN_CORRELATED:
        return None  # before judgments are read, which may be very many
    means = mean_scores(scores)
    path = scores / "diversity.csv"
    if path.is_file() and DIVERSITY in manifest["metrics"]:  # an empty file is left in runs of earlier versions
        # The judge's rating of diversity, and distinct-2, which needs no judge, as two metrics more.
        both = {DIVERSITY: DIVERSITY, "distinct_2": DISTINCT}
        try:
            table = read_records(path).table
            table = table.assign(**{column: pd.to_numeric(table[column]) for column in both})
            by_source = table[table["level"] == "source"]
            parts = [by_source[["source"]].assign(metric=name, mean=by_source[column]) for column, name in both.items()]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: cannot be read ({one_line(error)}); score again with this run as --run"
            ) from error
        means = pd.concat([means, *(part.dropna(subset="mean") for part in parts)], ignore_index=True)
    # Distinct-2 is held against the same published metric as the judge's rating of diversity.
    again = published[published["metric"] == DIVERSITY].assign(metric=DISTINCT)
    table = agreement_with_published(means, pd.concat([published, again], ignore_index=True))
    return None if table.empty else Published(str(manifest["judge"]["name"]), table)


def estimate_all(pairing: Pairing, characters: bool) -> pd.DataFrame:
    """Every target of every metric and source, with the ranks that the judge's means leave open."""
    try:
        table = estimate(pairing, characters=characters)
    except ValueError as error:
        raise InputError(str(error)) from error
    ranks = [rank_ranges(one).assign(metric=name) for name, one in pairing.metrics.items()]
    columns = ["metric", "source", "target", "rank", "rank_low", "rank_high"]
    return table.merge(pd.concat(ranks)[columns], on=["metric", "source", "target"], how="left")


def compare_all(pairing: Pairing, a: str, b: str, characters: bool) -> dict[str, Comparison]:
    """Two sources on every metric."""
    there = dict.fromkeys(str(source) for one in pairing.metrics.values() for source in one.sources)
    a, b = (meant(name, there) or name for name in (a, b))
    try:
        return {name: compare(one, a, b, characters=characters) for name, one in pairing.metrics.items()}
    except ValueError as error:
        raise InputError(str(error)) from error


def make_plan(
    scores: Path,
    budget: int,
    annotations: Path | None,
    scale: str | None,
    judge: str | None,
    average_repeats: bool,
    columns: str | None = None,
    **how: Any,
) -> Plan:
    """Read, and plan; ``how`` goes to ``calibration.planning``."""
    if annotations:
        both = _read_both(scores, annotations, scale, average_repeats, columns)
        ratings, table, notes = both.ratings, both.scores, both.notes
    else:
        said: list[str] = []
        ratings, table = None, read_judge_scores(scores, scale_of(scores, scale), notes=said)
        notes = tuple(said)
    # A plan is for one judge; ``plan`` refuses a table that still holds several.
    if judge is not None:
        there = sorted(table["judge"].unique()) if "judge" in table else []
        if judge not in there:
            raise InputError(f"--judge {judge}: not in {scores} (found: {', '.join(there) or 'no column judge'})")
        table = table[table["judge"] == judge].reset_index(drop=True)
    found = plan(table, budget, ratings=ratings, **how)
    return replace(found, remarks=(*notes, *found.remarks))
