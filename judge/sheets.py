"""CSV files that people open in a spreadsheet, which takes some texts for formulas: here no text is one.

A text that begins as a formula does, or as one that was made safe already, gets a ``'`` before it.
``calibration`` takes that off again in reading, so that a name read back is the name that was written.
"""

from __future__ import annotations

import csv
import re
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""How a text begins that must not stand in a cell as it is."""


EXACT = "inclusion_probability"
"""The column whose numbers are written in full: what is weighted by a rounded chance is wrong by as much."""


def write_csv(table: pd.DataFrame, file: Any, header: bool = True) -> None:
    """Write a table to an open file: numbers with four decimals but chances in full, and no text that is a formula."""
    if EXACT in table:
        table = table.assign(**{EXACT: [repr(float(chance)) if pd.notna(chance) else "" for chance in table[EXACT]]})
    texts = {name: cells.map(_safe) for name, cells in table.items() if not is_numeric_dtype(cells)}
    table.assign(**{str(name): cells for name, cells in texts.items()}).to_csv(
        file, index=False, header=header, float_format="%.4f", lineterminator="\n", quoting=_quoting(texts.values())
    )


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _quoting(columns: Any) -> Any:
    """All texts in quotes where one has a bare carriage return, which would otherwise end its row."""
    bare = any(isinstance(cell, str) and "\r" in cell for cells in columns for cell in cells)
    return csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
