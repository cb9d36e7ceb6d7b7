"""How far a judge's ratings can stand in for people's: tables of ratings in, numbers with their target out.

``read_ratings`` and ``read_scores`` read tables and ``pair`` puts them side by side. Of a pairing, ``assess`` says how
far judge and people agree, ``fit_calibration`` maps scores to people's scale, ``estimate`` gives means of systems,
``compare`` and ``rank_ranges`` put systems beside each other; ``plan`` chooses what to have rated next;
``score_changes`` and ``mean_changes`` say how far scores move when what is judged is changed; ``assess_probes`` says
whether a judge notices that it was spoiled.
Knows nothing of the judge, its models or its files: any table of human ratings and any table of judge scores will do.
"""

from calibration.agreement.assess import Assessment, assess
from calibration.agreement.metrics import agreement_with_published, chatanime_means
from calibration.calibrators.calibration import Calibration, CalibrationError, FittedMetric, fit_calibration
from calibration.errors import TableError
from calibration.pairing import Paired, Pairing, pair, without_ratings
from calibration.plan import Plan, PlanError, plan
from calibration.system_differences import Comparison, compare, rank_ranges
from calibration.system_means import estimate
from calibration.tables import read_ratings, read_scores

__all__ = [
    "Assessment",
    "Calibration",
    "CalibrationError",
    "Comparison",
    "FittedMetric",
    "Paired",
    "Pairing",
    "Plan",
    "PlanError",
    "TableError",
    "agreement_with_published",
    "assess",
    "chatanime_means",
    "compare",
    "estimate",
    "fit_calibration",
    "pair",
    "plan",
    "rank_ranges",
    "read_ratings",
    "read_scores",
    "without_ratings",
]
