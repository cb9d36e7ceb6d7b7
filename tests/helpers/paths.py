"""Where the repository and the packaged example are."""

from __future__ import annotations

from pathlib import Path

from judge.data.dialogues import example_files

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = sorted(example_files())
"""Its files of dialogues."""
RATINGS = EXAMPLE[0].with_name("ratings.csv")
