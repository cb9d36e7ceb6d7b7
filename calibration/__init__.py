"""How far a judge's ratings can stand in for people's: tables of ratings in, numbers with their target out.

``read_ratings`` and ``read_scores`` read tables, ``pair`` puts them side by side, ``assess`` says how far they agree.
Knows nothing of the judge, its models or its files: any table of human ratings and any table of judge scores will do.
"""

from calibration.assessment import Assessment, assess
from calibration.files import TableError
from calibration.pairing import Paired, Pairing, pair
from calibration.published import agreement_with_published, chatanime_means
from calibration.tables import read_ratings, read_scores

__all__ = [
    "Assessment",
    "Paired",
    "Pairing",
    "TableError",
    "agreement_with_published",
    "assess",
    "chatanime_means",
    "pair",
    "read_ratings",
    "read_scores",
]
