"""``python -m judge`` is the command ``esrp-judge``."""

from __future__ import annotations

from judge.cli import main

main()
