"""Very many dialogues: memory does not grow with them, from reading to the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.million import write_dialogues

SAMPLED = """
import json, sys
from pathlib import Path
from benchmarks.million import measured
from judge.report import load_run

load_run.MOST = 2_000  # so that both pages are of a sample, as they are of 100,000 and of a million
print(json.dumps(measured(Path(sys.argv[1]))))
"""


def whole_path(folder: Path, shape: str, dialogues: int) -> dict[str, Any]:
    """What a run in a process of its own took, with an engine that answers at once."""
    write_dialogues(folder / "data", shape, dialogues)
    done = subprocess.run([sys.executable, "-c", SAMPLED, str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
def test_ten_times_the_dialogues_take_no_more_memory(stand_in: Path, tmp_path: Path) -> None:
    # Chat logs: in both, their few roles have as many dialogues as are compared of a role, which ChatAnime's 200 roles
    # have from 40,000 on. `benchmarks/million.py` is about both shapes.
    few = whole_path(tmp_path / "few", "logs", 5_000)
    many = whole_path(tmp_path / "many", "logs", 50_000)
    assert many["peak_mb"] < 1.1 * few["peak_mb"], (few["stages"], many["stages"])
    run = tmp_path / "many" / "run"
    leaderboard = pd.read_csv(run / "leaderboard.csv")
    assert set(leaderboard.groupby("metric")["n"].sum()) == {50_000}
    with (run / "scores.csv").open(encoding="utf-8") as table:
        assert sum(1 for _ in table) == 50_001
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "of all 50,000 dialogues. Ranks, distributions" in page
