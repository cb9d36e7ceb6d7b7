"""esrp-judge: rate emotionally supportive role-play dialogues with a local LLM judge.

``score`` judges dialogues into a run folder, ``load_judgments`` reads one back, ``load_scores`` does so as
``calibration`` takes scores, ``compare_layouts`` compares ways of asking, ``attack`` tries to talk the judge round,
``probe`` judges degraded dialogues, ``judge_rewrites`` those that you rewrote; ``show`` and ``look_ahead`` are a look
before running; the rest are the values they speak of.
Importing this package loads neither torch nor pandas; the functions that need them load them when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from judge.errors import EngineError, InputError, Interrupted, JudgeError
from judge.types import DIMENSIONS, LEVELS, METRICS, RESPONSE_DIVERSITY, Dialogue, Judgment, Metric, Turn

if TYPE_CHECKING:
    from judge.attacks.attacking import attack
    from judge.dialogues import read_dialogues
    from judge.doctor import examine
    from judge.fetch import check, fetch
    from judge.foresight import Foresight
    from judge.layouts import LayoutComparison, compare_layouts
    from judge.options import Options
    from judge.probes.probing import Probed, probe
    from judge.rewriting import Rewrite, Rewritten, Way, judge_rewrites
    from judge.rubric import Rubric, load_rubric
    from judge.run import Result, look_ahead, score, text_diversity
    from judge.showing import Shown, show
    from judge.store import load_judgments, load_scores
    from judge.suspicion import suspicious

_LAZY = {
    "Foresight": "judge.foresight",
    "LayoutComparison": "judge.layouts",
    "Options": "judge.options",
    "Probed": "judge.probes.probing",
    "Result": "judge.run",
    "Rewrite": "judge.rewriting",
    "Rewritten": "judge.rewriting",
    "Rubric": "judge.rubric",
    "Shown": "judge.showing",
    "Way": "judge.rewriting",
    "attack": "judge.attacks.attacking",
    "check": "judge.fetch",
    "compare_layouts": "judge.layouts",
    "examine": "judge.doctor",
    "fetch": "judge.fetch",
    "judge_rewrites": "judge.rewriting",
    "load_judgments": "judge.store",
    "load_rubric": "judge.rubric",
    "load_scores": "judge.store",
    "look_ahead": "judge.run",
    "probe": "judge.probes.probing",
    "read_dialogues": "judge.dialogues",
    "score": "judge.run",
    "show": "judge.showing",
    "suspicious": "judge.suspicion",
    "text_diversity": "judge.run",
}

__all__ = [
    "DIMENSIONS",
    "LEVELS",
    "METRICS",
    "RESPONSE_DIVERSITY",
    "Dialogue",
    "EngineError",
    "Foresight",
    "InputError",
    "Interrupted",
    "JudgeError",
    "Judgment",
    "LayoutComparison",
    "Metric",
    "Options",
    "Probed",
    "Result",
    "Rewrite",
    "Rewritten",
    "Rubric",
    "Shown",
    "Turn",
    "Way",
    "attack",
    "check",
    "compare_layouts",
    "examine",
    "fetch",
    "judge_rewrites",
    "load_judgments",
    "load_rubric",
    "load_scores",
    "look_ahead",
    "probe",
    "read_dialogues",
    "score",
    "show",
    "suspicious",
    "text_diversity",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'judge' has no attribute {name!r}")
