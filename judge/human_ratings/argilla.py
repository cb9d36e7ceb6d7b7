"""Argilla's exports: the responses of each record (seen with argilla 2.8, ``dataset.records.to_json`` and others).

What is read is not yet checked against the plan: that is the work of ``blinding.import_entries``. A record is known by
the code of its task in its metadata or fields (``task``), or as its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from calibration.names import fold
from judge.human_ratings.blinding import Aside, Entry, Found, Key, Wrong

RESPONSES, USERS, STATUS = ".responses", ".responses.users", ".responses.status"
"""The ends of the columns of a question, in a flattened export."""


SUBMITTED = "submitted"


def is_argilla(columns: Mapping[str, Any] | pd.Index) -> bool:
    """Whether a table with these columns is an export of Argilla's."""
    names = [str(name) for name in columns]
    return {"fields", "responses"} <= set(names) or any(name.endswith(USERS) for name in names)


def record_entries(path: Path, records: pd.DataFrame, key: Key, names: Mapping[str, str]) -> Iterator[Found]:
    """What the records of an export hold: an entry per annotator who submitted, and metric of the key.

    Responses that are drafts or were discarded, and those to questions that are not of the plan, are counted. A nested
    export (``to_json``, ``to_list``) does not say which responses were submitted: all of them are taken, which is said.

    Args:
        path: where they were read.
        records: a record a row, nested or flattened.
        key: of the plan.
        names: ids of metrics by their folded names and titles.
    """
    says_status = True
    for number, record in enumerate(records.to_dict(orient="records"), 1):
        place = f"{path}: record {number}"
        task = _task(record, key)
        try:
            responses = list(_responses(record))
        except (KeyError, TypeError, ValueError):
            yield Wrong(place, "holds responses without values or users; export the records again, flattened")
            continue
        given: dict[str, dict[str, object]] = {}
        unfinished: set[tuple[str, str]] = set()
        for question, user, status, value in responses:
            metric = names.get(fold(question))
            says_status = says_status and status is not None
            if status not in (None, SUBMITTED):
                unfinished.add((user, str(status)))
            elif metric is None:
                yield Aside(f"answers to {question!r}, which is no metric of this plan")
            elif metric in given.setdefault(user, {}):
                yield Wrong(place, f"annotator {user!r} answered {question!r} twice; keep one of the two")
            else:
                given[user][metric] = value
        for _, status in sorted(unfinished):
            yield Aside(f"responses that are {'drafts' if status == 'draft' else status}")
        for user, scores in given.items():
            yield from (Entry(place, task, metric, user, scores.get(metric)) for metric in key.metrics)
    if not says_status:
        text = "marks of drafts, which this export lacks: drafts count as ratings unless it is made with flatten=True"
        yield Aside(text)


def _task(record: Mapping[Any, Any], key: Key) -> str:
    """The code of a record's task: the first that is of the plan, else the first that there is."""
    inner = [part for name in ("metadata", "fields") if isinstance(part := record.get(name), dict)]
    found = [str(one[name]) for one in [*inner, record] for name in ("task", "id") if one.get(name) is not None]
    return next((code for code in found if code in key.tasks), found[0] if found else "")


def _responses(record: Mapping[Any, Any]) -> Iterator[tuple[str, str, str | None, object]]:
    """Question, user, status (None where it is not told) and value of each response."""
    nested = record.get("responses")
    if isinstance(nested, dict):
        for question, answers in nested.items():
            # What Parquet keeps as one table has every question in every record.
            for answer in [] if answers is None else answers:
                yield str(question), str(answer["user_id"]), answer.get("status"), answer["value"]
        return
    for column, values in record.items():
        if str(column).endswith(RESPONSES) and _is_list(values):
            question = str(column).removesuffix(RESPONSES)
            users = record[f"{question}{USERS}"]
            status = record.get(f"{question}{STATUS}")
            told: Any = status if _is_list(status) else [None] * len(values)
            for value, user, state in zip(values, users, told, strict=True):
                yield question, str(user), state, value


def _is_list(cell: object) -> bool:
    """Whether a cell holds a list; of Parquet it is an array."""
    return hasattr(cell, "__len__") and not isinstance(cell, str)
