"""The same dialogues asked in twelve ways by one model: the first thing to run on a new judge.

Three layouts, two orders of the levels, two languages. Nothing is written, and the model is loaded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from judge.asking import DIALOGUES, ask, settle, share_engine
from judge.choosing import open_judge
from judge.corpus import Corpus
from judge.errors import InputError, plain
from judge.hardware import Hardware, detect
from judge.judging import Judge, Judged
from judge.options import Options
from judge.progress import Progress, Silent
from judge.prompt import PromptTree
from judge.served import connect
from judge.stopping import stoppable
from judge.types import METRICS, OVERALL, Dialogue
from judge.variants import REFERENCE, Variant, best_variant, possible, remarks, variant_table


@dataclass(frozen=True, slots=True)
class LayoutComparison:
    """What twelve ways of asking gave.

    ``missing`` counts judgments by reason.
    ``table`` is that of ``judge.variants.variant_table``; its overall rows have besides ``engine``; ``prompt_tokens``
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
    with closing(_corpus(paths, options, rated)) as corpus:
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


def _corpus(paths: list[Path], options: Options, rated: set[str] | None) -> Corpus:
    return Corpus(paths, options.sources, options.characters, options.limit, rated)


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
        "engine": scored.judge.engine.report["name"],
        "prompt_tokens": sum(sum(tree.lengths) for tree in trees) / max(len(trees), 1),
        "unique_tokens": unique_tokens(trees) / max(len(trees), 1),
        "seconds": scored.seconds,
        "judgments_per_second": made / scored.seconds,
    }


def unique_tokens(trees: Sequence[PromptTree]) -> int:
    """Tokens of trees where what they share counts once: root, character, opening; then every dialogue's own."""
    shared = {path for tree in trees for path in tree.shared}
    return sum(len(path[-1]) for path in shared) + sum(tree.own for tree in trees)
