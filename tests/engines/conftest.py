"""A run of few dialogues on a server, and what the packed engine says of them."""

from pathlib import Path

import numpy as np
import pytest

from judge import Options, score
from tests.helpers.chatanime import METRICS
from tests.helpers.rubric import ByStandIn
from tests.helpers.serving import Asked, scores

CHOSEN = {"sources": ("plain",), "limit": 4, "metrics": METRICS[:3]}


@pytest.fixture(scope="package")
def packed_scores(by_stand_in: ByStandIn, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    run = tmp_path_factory.mktemp("packed") / "run"
    return scores(score([], by_stand_in(run, **CHOSEN)).run)


@pytest.fixture(scope="package")
def asked(short_rubric: Path) -> Asked:
    """Options of a run on a server with the short rubric: ``asked(url, run, **more)``."""
    few = {"rubric": short_rubric, "patience": 20, **CHOSEN}
    return lambda url, run, **more: Options(**{"url": url, "run": run, **few, **more})
