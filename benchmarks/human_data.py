"""Public human ratings whose texts are there, as ``human_agreement`` needs them: dialogues, ratings, groups, a rubric.

Nothing of the data is kept: files are written into a folder that the caller gives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from judge.types import digest

RUBRICS = Path(__file__).with_name("human_rubrics.yaml")

NO_ANNOTATOR = "crowd"
"""In the empathy data a mean over several workers, which is nobody's rating."""


@dataclass(frozen=True, slots=True)
class RatedSet:
    """One data set as files that ``judge.score`` and ``judge.train`` take."""

    name: str
    dialogues: Path
    rubric: Path
    ratings: pd.DataFrame
    """item_id, source, metric, annotator, score, group."""


def rubrics() -> dict[str, Any]:
    """The short rubrics by data set, as ``human_rubrics.yaml`` has them, and under ``texts`` what all of them say."""
    found: dict[str, Any] = yaml.safe_load(RUBRICS.read_text(encoding="utf-8"))
    return found["rubrics"] | {"texts": found["texts"]}


def human_folder() -> Path:
    """Where the data are looked for, as by the tests."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("ESRP_SHARED_DATA") or beside) / "human"


def rated_set(name: str, folder: Path) -> RatedSet:
    """Read one data set, and write its dialogues and its rubric into a folder.

    Dialogues that are not rated on every metric are left out (one of FED's), so that all metrics have the same ones.
    """
    described = rubrics()
    own = described[name]
    table, part, who = own["data"]["table"], own["data"]["part"], own["reply"].rstrip(":")
    lines = (human_folder() / table / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    records = [one for one in map(json.loads, lines) if part in (one.get("kind"), one["source"])]
    group = dict(zip((one["item_id"] for one in records), conversations(records), strict=True))
    dialogues = folder / f"{name}.jsonl"
    with dialogues.open("w", encoding="utf-8") as file:
        for one in records:
            kept = {"source": one["source"], "character": who, "scenario": one["item_id"], "messages": one["messages"]}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    ratings = pd.read_csv(human_folder() / table / "human.csv")
    metric = ratings["metric"].str.removeprefix(f"{part}.").replace(own["data"].get("renamed", {}))
    ratings = ratings.assign(metric=metric, group=ratings["item_id"].map(group))
    ratings = ratings[metric.isin(own["metrics"]) & ratings["group"].notna() & (ratings["annotator"] != NO_ANNOTATOR)]
    complete = ratings.groupby("item_id")["metric"].transform("nunique") == len(own["metrics"])
    ratings = ratings[complete]
    item = ratings["source"] + f"/{who}/" + ratings["item_id"]
    rubric = folder / name
    write_rubric(name, own, described["texts"], rubric)
    return RatedSet(name, dialogues, rubric, ratings.assign(item_id=item).reset_index(drop=True))


def conversations(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The conversation that each dialogue is a part of: of the shortest one that it begins with."""
    texts = [tuple((one["role"], one["content"]) for one in record["messages"]) for record in records]
    known: set[tuple[tuple[str, str], ...]] = set()
    opening = {}
    for text in sorted(texts, key=len):
        # The first message or two are a greeting that many conversations share, and never a whole dialogue.
        opening[text] = next((text[:end] for end in range(1, len(text)) if text[:end] in known), text)
        known.add(opening[text])
    return [digest(opening[text], 12) for text in texts]


def write_rubric(name: str, own: Mapping[str, Any], texts: Mapping[str, str], folder: Path) -> None:
    """Write a rubric's folder from its short form."""
    outline = {
        "name": name,
        "language": "en",
        "scale": own["scale"],
        "character": own["reply"].rstrip(":"),
        "metrics": list(own["metrics"]),
    }
    files: dict[str, Any] = {"rubric": outline, "system": {**texts, "rules": own["rules"], "reply": own["reply"]}}
    for metric, short in own["metrics"].items():
        lowest = int(short.get("scale", own["scale"]).partition("-")[0])
        asked = {"question": f'Which level has "{short["title"]}"?', "answer": f"{short['title']}:"}
        levels = {lowest + place: text for place, text in enumerate(short["levels"])}
        files[metric] = {"id": metric, **short, **asked, "levels": levels}
    folder.mkdir(exist_ok=True)
    for file, content in files.items():
        (folder / f"{file}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
