"""Rationales: what the judge writes as reasons for its scores, asked after the scores and apart from them.

The judge is shown its scores and writes reasons for them. That does not explain how the scores came about, and text in
the dialogue can steer it. So a rationale shows a reader where to look, and is no evidence. No score depends on it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, takewhile, zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from judge.data.dataset import Corpus
from judge.engines import Failure
from judge.engines.server import ServerEngine
from judge.errors import InputError, Interrupted, one_line
from judge.progress import Progress
from judge.prompting.prompt_tree import PromptWriter
from judge.scoring.judge import Judge
from judge.scoring.run_folder import Store, item_ids, load_judgments
from judge.types import OVERALL, STAND_IN, Dialogue, digest

SHARES = {"explained": 6, "suspicious": 6, "missing": 12, "disputed": 6, "worst": 6, "best": 6, "uncertain": 6}
"""Why a dialogue is shown: each reason fills at most one place in so many, and the sample fills the rest."""


SAMPLE = "sample"
"""The reason of a dialogue that is shown for no other."""


EXTREMES = ("worst", "uncertain", "best", "suspicious")
"""Why a dialogue's scores are explained."""


def spread(judgments: pd.DataFrame) -> pd.Series[float]:
    """The standard deviation of each judgment's distribution, in points of the scale."""
    names = [name for name in map(str, judgments) if re.fullmatch(r"p\d+", name)]
    chances, levels = judgments[names].to_numpy(float), np.array([int(name[1:]) for name in names]).astype(float)
    # A level that the metric does not have counts as of no probability; a missing judgment has no level at all.
    known = np.where(np.isnan(chances).all(axis=1, keepdims=True), np.nan, np.nan_to_num(chances))
    mean = known @ levels
    return pd.Series(np.sqrt(np.maximum(known @ levels**2 - mean**2, 0)), judgments.index)


def by_dialogue(
    judgments: pd.DataFrame, human: pd.DataFrame | None = None, explained: Collection[str] = ()
) -> pd.DataFrame:
    """A row per dialogue (``item_id``): ``source, character, score, spread, dispute, suspicious, missing, explained``.

    ``score`` and ``spread`` are means over the metrics that were judged. ``dispute`` is the mean distance from the mean
    human rating, NaN where nobody rated.

    Args:
        judgments: with ``item_id``.
        human: mean human ratings: ``item_id, metric, human``.
        explained: the ids of the dialogues whose scores have a rationale.
    """
    rows = judgments.assign(spread=spread(judgments), dispute=np.nan)
    if human is not None:
        rows = rows.merge(human, on=["item_id", "metric"], how="left")
        rows["dispute"] = (rows["score"] - rows["human"]).abs()
    rows = rows.assign(suspicious=rows["suspicious"].fillna("") != "", missing=rows["error"].notna())
    how = {"source": "first", "character": "first", **dict.fromkeys(("score", "spread", "dispute"), "mean")}
    found = rows.groupby("item_id", sort=False).agg({**how, "suspicious": "any", "missing": "any"})
    return found.assign(explained=found.index.isin(list(explained)))


def select(dialogues: pd.DataFrame, most: int) -> dict[str, list[str]]:
    """At most so many dialogues, each with the reasons why it is among them, in the order of the run.

    Args:
        dialogues: as ``by_dialogue`` gives them.
        most: how many. Where there are no more, all are taken, without reasons.
    """
    if len(dialogues) <= most:
        return {str(item): [] for item in dialogues.index}
    ordered = _shuffled(dialogues)
    reasons: dict[str, list[str]] = {}
    for reason, part in SHARES.items():
        for item in _picked(ordered, reason)[: most // part]:
            reasons.setdefault(item, []).append(reason)
    # The sample takes one dialogue of each system and character before a second of any, so that all are in it.
    turn = ordered.groupby(["source", "character"], sort=False).cumcount()
    for item in turn.sort_values(kind="stable").index:
        if len(reasons) >= most:
            break
        reasons.setdefault(item, []).append(SAMPLE)
    return {str(item): reasons[item] for item in dialogues.index if item in reasons}


def notable(dialogues: pd.DataFrame, most: int) -> list[str]:
    """At most so many dialogues that are extreme in one of ``EXTREMES``, as many in each, in the order of the run.

    Args:
        dialogues: as ``by_dialogue`` gives them.
        most: how many.
    """
    ordered = _shuffled(dialogues)
    ranks = zip_longest(*(_picked(ordered, reason) for reason in EXTREMES))
    found = dict.fromkeys(item for rank in ranks for item in rank if item is not None)
    chosen = set(islice(found, most))
    return [str(item) for item in dialogues.index if item in chosen]


def _shuffled(dialogues: pd.DataFrame) -> pd.DataFrame:
    """The dialogues in the order of a hash of their ids: it decides between equal values, in the same way each time."""
    lots = pd.Series({item: digest([item]) for item in dialogues.index}, dtype=str)
    return dialogues.loc[lots.sort_values().index]


def _picked(dialogues: pd.DataFrame, reason: str) -> list[str]:
    """The ids of the dialogues that have a reason, the strongest case first, and equals in the order given."""
    if reason in ("explained", "suspicious", "missing"):
        return list(dialogues.index[dialogues[reason]])
    column = {"worst": "score", "best": "score", "uncertain": "spread", "disputed": "dispute"}[reason]
    known = dialogues[column].dropna()
    return list(known.sort_values(ascending=reason == "worst", kind="stable").index)


RATIONALES = "rationales.jsonl"
"""The file in a run's folder that has them."""


LONGEST = 256
"""The most tokens of a rationale."""


TOGETHER = 8
"""How many dialogues are asked about together and then saved."""


TEXTS = "rationales"
"""The kind of the log of what a server wrote that is not in the file yet."""


Scores = Mapping[str, float]
"""Scores of one dialogue by metric."""


@dataclass(frozen=True, slots=True)
class Rationale:
    """What the judge writes of its scores of one dialogue in one dimension."""

    judge_id: str
    source: str
    character: str
    scenario: str
    content_digest: str
    dimension: str
    rationale: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is about: the dialogue's id, its content digest, and the judge's id."""
        return f"{self.source}/{self.character}/{self.scenario}", self.content_digest, self.judge_id


_ROW = TypeAdapter(Rationale)


class Explainer:
    """Has a judge write reasons for its scores.

    Raises:
        InputError: the judge is the stand-in, or cannot be asked by the layout ``question``.
    """

    def __init__(self, judge: Judge) -> None:
        if judge.name == STAND_IN:
            raise InputError(
                "--rationales: the stand-in's scores mean nothing, so it has no reasons; choose a real judge"
            )
        if not judge.model.writes:
            raise InputError(
                "--rationales: a server of decisions writes no text, so it has no reasons; choose another judge"
            )
        rubric = judge.writers[0].rubric
        self.judge = judge
        self.writer = PromptWriter(rubric, judge.writers[0].tokenizer, "question")

    def explain(self, asked: Sequence[tuple[Dialogue, Scores]]) -> list[list[Rationale]]:
        """For each dialogue with its scores, the rationales that the judge wrote, at most one a dimension.

        A dialogue whose prompt leaves no room for an answer has none.
        """
        questions = [self._questions(scores) for _, scores in asked]
        trees = [self.writer.questions(d, own.values()) for (d, _), own in zip(asked, questions, strict=True)]
        tokenizer, room = self.writer.tokenizer, self.judge.engine.max_tokens - LONGEST
        fitting = [i for i, tree in enumerate(trees) if max(tree.lengths) <= room]
        written = self.judge.engine.generate([trees[i] for i in fitting], LONGEST)
        found: list[list[Rationale]] = [[] for _ in asked]
        for i, texts in zip(fitting, written, strict=True):
            one = asked[i][0]
            about = self.judge.identity.judge_id, one.source, one.character, one.scenario, one.content_digest
            for dimension, text in zip(questions[i], texts, strict=True):
                if isinstance(text, Failure):
                    continue  # the other dimensions keep theirs
                answer = takewhile(lambda token: token not in tokenizer.control_ids, text)
                if rationale := tokenizer.text(list(answer)).strip():
                    found[i].append(Rationale(*about, dimension, rationale))
        return found

    def _questions(self, scores: Scores) -> dict[str, str]:
        """The question of each dimension that has scores."""
        rubric, questions = self.writer.rubric, {}
        # Metrics of no dimension are asked about together.
        asked = {**rubric.scheme.dimensions, OVERALL: rubric.outline.metrics}
        for dimension, metrics in asked.items():
            lines = [
                rubric.rationale.score.format(title=rubric.metrics[metric].title, score=f"{scores[metric]:.1f}")
                for metric in metrics
                if metric in scores
            ]
            title = rubric.texts.dimensions.get(dimension, rubric.texts.rubrics)
            if lines:
                questions[dimension] = rubric.rationale.question.format(dimension=title, scores="\n".join(lines))
        return questions


def explain_run(
    explainer: Explainer, store: Store, corpus: Corpus, most: int, progress: Progress, stop: threading.Event
) -> int:
    """Add the missing rationales of a finished run's most notable dialogues.

    Returns:
        How many of these dialogues have a rationale now.

    Raises:
        EngineError: the model or the machine failed; what was written is kept.
        Interrupted: ``stop`` was set; what was written is kept.
    """
    judgments = load_judgments(store.folder).assign(item_id=item_ids)
    dialogues = by_dialogue(judgments)
    chosen = set(notable(dialogues[~dialogues["missing"]], most))
    scores: dict[str, dict[str, float]] = {}  # by dialogue and metric
    of_chosen = judgments[judgments["item_id"].isin(chosen)]
    for item, metric, value in of_chosen[["item_id", "metric", "score"]].itertuples(index=False):
        scores.setdefault(item, {})[metric] = float(value)
    rows = _current(store.folder, judgments)
    missing = chosen - {row.key[0] for row in rows}
    todo = [dialogue for dialogue in corpus if dialogue.id in missing]
    progress.begin("rationales", len(chosen), len(chosen) - len(todo), "dialogues")
    log = store.answers(TEXTS, explainer.judge.identity.judge_id)
    if todo and isinstance(engine := explainer.judge.engine, ServerEngine):
        engine.stop_by(stop)
        engine.log_of = lambda tree: log
    for start in range(0, len(todo), TOGETHER):
        some = todo[start : start + TOGETHER]
        try:
            if stop.is_set():
                raise Interrupted("stopped")
            explained = explainer.explain([(d, scores[d.id]) for d in some])
        except Interrupted as error:
            raise Interrupted(f"stopped; all written so far is in {store.folder};", can_go_on=True) from error
        rows += [row for found in explained for row in found]
        # The file is written anew after every few dialogues, so that a run that is stopped loses only those; of a
        # server, none of its answers.
        with store.replacing(RATIONALES) as file:
            file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        log.remove()
        progress.advance(len(some), 0)
    return len(chosen & {row.key[0] for row in rows})


def read_rationales(folder: Path, judgments: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The rationales of a run's current judgments, by ``item_id`` and dimension.

    Args:
        folder: the run's.
        judgments: as ``load_judgments`` gives them, with ``item_id``.
    """
    found: dict[str, dict[str, str]] = {}
    for row in _current(folder, judgments):
        found.setdefault(row.key[0], {})[row.dimension] = row.rationale
    return found


def explained_ids(folder: Path) -> set[str]:
    """The ids of the dialogues in a run's folder that have rationales, current or not.

    Raises:
        InputError: the file cannot be read.
    """
    return {row.key[0] for row in _written(folder)}


def _current(folder: Path, judgments: pd.DataFrame) -> list[Rationale]:
    """The rationales in a run's folder whose dialogue, content and judge are those of current judgments.

    Raises:
        InputError: the file cannot be read.
    """
    about = judgments[["item_id", "content_digest", "judge_id"]].drop_duplicates()
    current = set(about.itertuples(index=False, name=None))
    return [row for row in _written(folder) if row.key in current]


def _written(folder: Path) -> list[Rationale]:
    """All rationales in a run's folder; InputError where the file cannot be read."""
    path = folder / RATIONALES
    if not path.is_file():
        return []
    try:
        return [_ROW.validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        reason = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else one_line(error)
        raise InputError(f"{path}: cannot be read ({reason}); fix or remove it") from error
