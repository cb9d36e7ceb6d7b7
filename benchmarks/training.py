"""Apart from ``make bench``: an epoch of ``esrp-judge train``, its trees packed against a pass for each leaf.

``python -m benchmarks.training [--judge MODEL] [--rubric NAME] [--dialogues N] [--rounds N]`` trains on the packaged
example, in turns, from the same weights. An epoch is the dialogues that are learned from, the validation and the
checkpoint. Prints processor seconds and ratios.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path

import typer

from judge import Options, TrainOptions
from judge.data.dialogues import example_dialogues, example_files
from judge.engines.packed.engine import PackedEngine
from judge.human_ratings.agreement import read_annotations
from judge.models.hardware import detect
from judge.progress import SILENT
from judge.scoring.setup import open_judge, open_model, settle
from judge.training.split import split
from judge.training.steps import Lessons, Training
from judge.training.targets import rated_dialogues

RATINGS = example_files()[0].with_name("ratings.csv")


def epoch(options: Options, dialogues: int, packed: bool) -> tuple[float, Training]:
    """Processor seconds of one epoch, and the training after it."""
    judge = open_judge(options, open_model(options, detect()))
    assert isinstance(judge.engine, PackedEngine)
    ratings = read_annotations(RATINGS, judge.scheme.scales)
    rated = rated_dialogues(example_dialogues(), ratings, judge.scheme, [])[:dialogues]
    lessons = Lessons(ratings, "", split(rated, 0.2, 0), {})
    with tempfile.TemporaryDirectory() as folder:
        how = TrainOptions(method="full", epochs=1)
        training = Training(judge, judge.engine, lessons, how, Path(folder), SILENT)
        if not packed:
            training.trainer.refused = "for the comparison"
        start = time.process_time()
        training.run(threading.Event())
    return time.process_time() - start, training


def main(judge: str = "stand-in", rubric: str = "chatanime", dialogues: int = 32, rounds: int = 3) -> None:
    """Time both in turns."""
    _, options, _, _ = settle(example_files(), Options(judge=judge, rubric=rubric, engine="packed", min_mass=0.0))
    ratios = []
    for number in range(1, rounds + 1):
        together, training = epoch(options, dialogues, packed=True)
        apart, _ = epoch(options, dialogues, packed=False)
        if training.trainer.refused:
            raise SystemExit(f"this judge is not packed: {training.trainer.refused}")
        ratios.append(apart / together)
        examples = training.examples
        tokens = statistics.mean(one.tokens for one in examples)
        print(
            f"round {number}: {len(examples)} dialogues of {tokens:,.0f} tokens, root {len(examples[0].tree.root):,}: "
            f"packed {together:.1f} s, plain {apart:.1f} s, ratio {ratios[-1]:.1f}"
        )
    print(f"median ratio {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    typer.run(main)
