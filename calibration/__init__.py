"""How far a judge's ratings can stand in for people's: tables of ratings in, numbers with their target out.

Knows nothing of the judge, its models or its files: any table of human ratings and any table of judge scores will do.
"""

from calibration.tables import TableError, read_ratings, read_scores

__all__ = ["TableError", "read_ratings", "read_scores"]
