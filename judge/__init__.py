"""esrp-judge: rate emotionally supportive role-play dialogues with a local LLM judge.

``collect`` has a model play characters and keeps its dialogues (``plan_collection`` says first what that asks).
``score`` judges dialogues into a run folder, ``score_shard`` a share of them beside other processes, whose tables
``write_tables`` then writes; ``load_judgments`` reads one back, ``load_scores`` does so as
``calibration`` takes scores, ``compare_layouts`` compares ways of asking, ``attack`` tries to talk the judge round,
``probe`` judges degraded dialogues, ``judge_perturbations`` perturbations of your own; ``train`` trains a judge
on human ratings; ``show`` and ``look_ahead`` are a look before running; the rest are the values they speak of.
Importing this package loads neither torch nor pandas; the functions that need them load them when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from judge.errors import EngineError, InputError, Interrupted, JudgeError
from judge.types import Dialogue, Judgment, Metric, Scheme, Turn

if TYPE_CHECKING:
    from judge.collection.collect import Collected, CollectionPlan, collect, plan_collection
    from judge.collection.options import CollectOptions
    from judge.data.chatanime import check, fetch
    from judge.data.dialogues import read_dialogues
    from judge.prompting.rubric import Rubric, load_rubric
    from judge.robustness.attack_analysis import mean_changes, score_changes
    from judge.robustness.attacks import attack
    from judge.robustness.perturbation import Perturbation, PerturbationJudgments, PromptVariant, judge_perturbations
    from judge.robustness.probe_analysis import ProbeAssessment, assess_probes
    from judge.robustness.probes import Probed, probe
    from judge.robustness.prompt_variants import LayoutComparison, compare_layouts
    from judge.scoring.injection_detector import suspicious
    from judge.scoring.preview import Foresight, Shown, show
    from judge.scoring.run import Result, Shard, look_ahead, score, score_shard, text_diversity, write_tables
    from judge.scoring.run_folder import load_judgments, load_scores
    from judge.scoring.setup import examine
    from judge.training.options import TrainOptions
    from judge.training.train import Trained, train
    from judge.types import Options

_LAZY = {
    "CollectOptions": "judge.collection.options",
    "Collected": "judge.collection.collect",
    "CollectionPlan": "judge.collection.collect",
    "collect": "judge.collection.collect",
    "plan_collection": "judge.collection.collect",
    "score_changes": "judge.robustness.attack_analysis",
    "mean_changes": "judge.robustness.attack_analysis",
    "assess_probes": "judge.robustness.probe_analysis",
    "ProbeAssessment": "judge.robustness.probe_analysis",
    "Foresight": "judge.scoring.preview",
    "LayoutComparison": "judge.robustness.prompt_variants",
    "Options": "judge.types",
    "Perturbation": "judge.robustness.perturbation",
    "PerturbationJudgments": "judge.robustness.perturbation",
    "Probed": "judge.robustness.probes",
    "PromptVariant": "judge.robustness.perturbation",
    "Result": "judge.scoring.run",
    "Shard": "judge.scoring.run",
    "Rubric": "judge.prompting.rubric",
    "TrainOptions": "judge.training.options",
    "Trained": "judge.training.train",
    "Shown": "judge.scoring.preview",
    "attack": "judge.robustness.attacks",
    "check": "judge.data.chatanime",
    "compare_layouts": "judge.robustness.prompt_variants",
    "examine": "judge.scoring.setup",
    "fetch": "judge.data.chatanime",
    "judge_perturbations": "judge.robustness.perturbation",
    "load_judgments": "judge.scoring.run_folder",
    "load_rubric": "judge.prompting.rubric",
    "load_scores": "judge.scoring.run_folder",
    "look_ahead": "judge.scoring.run",
    "probe": "judge.robustness.probes",
    "read_dialogues": "judge.data.dialogues",
    "score": "judge.scoring.run",
    "score_shard": "judge.scoring.run",
    "show": "judge.scoring.preview",
    "suspicious": "judge.scoring.injection_detector",
    "text_diversity": "judge.scoring.run",
    "train": "judge.training.train",
    "write_tables": "judge.scoring.run",
}

__all__ = [
    "CollectOptions",
    "Collected",
    "CollectionPlan",
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
    "Perturbation",
    "PerturbationJudgments",
    "ProbeAssessment",
    "Probed",
    "PromptVariant",
    "Result",
    "Rubric",
    "Scheme",
    "Shard",
    "Shown",
    "TrainOptions",
    "Trained",
    "Turn",
    "assess_probes",
    "attack",
    "check",
    "collect",
    "compare_layouts",
    "examine",
    "fetch",
    "judge_perturbations",
    "load_judgments",
    "load_rubric",
    "load_scores",
    "look_ahead",
    "mean_changes",
    "plan_collection",
    "probe",
    "read_dialogues",
    "score",
    "score_changes",
    "score_shard",
    "show",
    "suspicious",
    "text_diversity",
    "train",
    "write_tables",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'judge' has no attribute {name!r}")
