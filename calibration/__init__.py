"""How far a judge's scores can stand in for human ratings, from a table of each.

``read_ratings`` and ``read_scores`` read the tables, and ``pair`` puts them side by side. Of a pairing, ``assess`` says
how far the judge agrees with human ratings (``compare_judges``: which of several agrees more; ``panel_gains``: what all
of them together gain), ``fit_calibration`` and ``fit_panel_calibration`` fit calibrated scores, ``estimate`` gives
means of systems, and ``compare`` and ``rank_ranges`` put them beside each other. ``plan`` chooses what to rate next.
The package knows nothing of the judge, its models or its files: any table of human ratings and any table of scores will
do. Names are imported when they are first used, as most need scipy and pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from calibration.errors import InputError, TableError

if TYPE_CHECKING:
    from calibration.agreement.assess import Assessment, assess
    from calibration.agreement.judges import JudgeDifference, compare_judges
    from calibration.agreement.metrics import agreement_with_published, chatanime_means
    from calibration.calibrators.calibration import Calibration, FittedMetric, fit_calibration
    from calibration.calibrators.panel import PanelGain, mean_panel, panel_gains
    from calibration.calibrators.panel_calibration import PanelCalibration, fit_panel_calibration
    from calibration.pairing import Paired, Pairing, pair, without_ratings
    from calibration.planning import Plan, plan
    from calibration.system_differences import Comparison, compare, rank_ranges
    from calibration.system_means import estimate
    from calibration.tables import read_ratings, read_scores

_LAZY = {
    "Assessment": "calibration.agreement.assess",
    "assess": "calibration.agreement.assess",
    "JudgeDifference": "calibration.agreement.judges",
    "compare_judges": "calibration.agreement.judges",
    "agreement_with_published": "calibration.agreement.metrics",
    "chatanime_means": "calibration.agreement.metrics",
    "Calibration": "calibration.calibrators.calibration",
    "FittedMetric": "calibration.calibrators.calibration",
    "fit_calibration": "calibration.calibrators.calibration",
    "PanelGain": "calibration.calibrators.panel",
    "mean_panel": "calibration.calibrators.panel",
    "panel_gains": "calibration.calibrators.panel",
    "PanelCalibration": "calibration.calibrators.panel_calibration",
    "fit_panel_calibration": "calibration.calibrators.panel_calibration",
    "Paired": "calibration.pairing",
    "Pairing": "calibration.pairing",
    "pair": "calibration.pairing",
    "without_ratings": "calibration.pairing",
    "Plan": "calibration.planning",
    "plan": "calibration.planning",
    "Comparison": "calibration.system_differences",
    "compare": "calibration.system_differences",
    "rank_ranges": "calibration.system_differences",
    "estimate": "calibration.system_means",
    "read_ratings": "calibration.tables",
    "read_scores": "calibration.tables",
}

__all__ = [
    "Assessment",
    "Calibration",
    "Comparison",
    "FittedMetric",
    "InputError",
    "JudgeDifference",
    "Paired",
    "Pairing",
    "PanelCalibration",
    "PanelGain",
    "Plan",
    "TableError",
    "agreement_with_published",
    "assess",
    "chatanime_means",
    "compare",
    "compare_judges",
    "estimate",
    "fit_calibration",
    "fit_panel_calibration",
    "mean_panel",
    "pair",
    "panel_gains",
    "plan",
    "rank_ranges",
    "read_ratings",
    "read_scores",
    "without_ratings",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'calibration' has no attribute {name!r}")
