"""Where the repository and the packaged example are."""

from __future__ import annotations

import os
from pathlib import Path

from judge.data.dialogues import example_files

ROOT = Path(__file__).resolve().parents[2]
SHARED_DATA = Path(os.environ.get("ESRP_SHARED_DATA") or ROOT.parent / "shared" / "data")
"""Where published data are, if they are."""
EXAMPLE = sorted(example_files())
"""Its files of dialogues."""
RATINGS = EXAMPLE[0].with_name("ratings.csv")
