"""A plan over hostile dialogues, three annotators who leave cells empty, and the table that must come back."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from judge.files import FORMULA
from judge.human_ratings.blinding import COLUMNS, Key, read_key
from tests.helpers.chatanime import METRICS

HOSTILE = [
    '"><script>window.pwned=1</script>',
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "＝1+1",
    "\u202eRTL\u202c 他说“好”\n\n## 系统\n> 5",
    "$dialogue ]]> </View> &amp; {{7*7}}",
    "\t=1\r\n'引号\"",
]
"""What dialogues, sources and characters are made of."""
ANNOTATORS = ("王", "b@example.com", '=c("<b>")')
PLANNED = ["--budget", "12", "--overlap", "6", "--data", "dialogues.jsonl"]


def write_data(folder: Path) -> None:
    """The dialogues of four sources, and a judge's scores of them: ``dialogues.jsonl`` and ``scores.parquet``."""
    rows = [
        {
            "source": _name(HOSTILE[source]),
            "character": _name(HOSTILE[(source + scenario) % len(HOSTILE)]),
            "scenario": str(scenario),
            "profile": HOSTILE[scenario % len(HOSTILE)],
            "turns": [{"user": text, "character": text} for text in HOSTILE[:2]],
        }
        for source in range(4)
        for scenario in range(10)
    ]
    (folder / "dialogues.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    names = ("source", "character", "scenario")
    scores = pd.DataFrame([{**{n: row[n] for n in names}, "metric": m, "score": 3.0} for row in rows for m in METRICS])
    scores.to_parquet(folder / "scores.parquet")


def _name(text: str) -> str:
    """A text as a name may be: one line, with nothing but characters in it."""
    return "".join(c for c in text.strip() if unicodedata.category(c) != "Cc")


def given(key: Key, annotators: Sequence[str] = ANNOTATORS, seed: int = 0) -> pd.DataFrame:
    """What annotators give: ``task, metric, annotator, score``, a row a cell; one in six is empty (NaN)."""
    generator = np.random.default_rng(seed)
    rows = [
        (code, metric, annotator, generator.integers(1, 6) if generator.random() < 5 / 6 else np.nan)
        for code, task in key.tasks.items()
        for annotator in annotators[: task.raters]
        for metric in key.metrics
    ]
    return pd.DataFrame(rows, columns=["task", "metric", "annotator", "score"])


def expected(key: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """The table that these cells must come back as."""
    tasks = read_key(key).tasks
    rows = [
        (
            task.source,
            task.character,
            task.scenario,
            cell.metric,
            cell.annotator,
            cell.score,
            task.inclusion_probability,
        )
        for cell in cells.dropna().itertuples()
        for task in [tasks[str(cell.task)]]
    ]
    return in_order(pd.DataFrame(rows, columns=COLUMNS))


def written(path: Path) -> pd.DataFrame:
    """The table that a command wrote, with the texts as they were."""
    table = pd.read_csv(path, dtype={name: str for name in COLUMNS[:5]}, keep_default_na=False)
    for name in COLUMNS[:5]:
        table[name] = [text[1:] if FORMULA.match(text) else text for text in table[name]]
    return in_order(table)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows in one order, scores as floats."""
    return table.astype({"score": float}).sort_values(COLUMNS[:5]).reset_index(drop=True)


def export(tasks: list[dict[str, object]], cells: pd.DataFrame) -> list[dict[str, object]]:
    """Label Studio's JSON export of tasks on which these cells were filled in, as 1.23.2 writes it."""
    people = list(dict.fromkeys(cells["annotator"]))
    exported = []
    for number, task in enumerate(tasks, 1):
        mine = cells[cells["task"] == task["data"]["task"]]  # type: ignore[index]
        annotations = [
            {"id": 10 * number + people.index(who), "completed_by": {"id": people.index(who), "email": who},
             "was_cancelled": False, "result": results(part)}
            for who, part in mine.groupby("annotator", sort=False)
        ]  # fmt: skip
        exported.append({"id": number, "annotations": annotations, "predictions": [], **task})
    return exported


def results(cells: pd.DataFrame) -> list[dict[str, object]]:
    """What one person filled in on one task, as Label Studio keeps it."""
    return [
        {
            "from_name": cell.metric,
            "to_name": "dialogue",
            "type": "choices",
            "value": {"choices": [f"{cell.score:.0f}"]},
        }
        for cell in cells.dropna().itertuples()
    ]
