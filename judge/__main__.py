"""``python -m judge`` is the command ``esrp-judge``."""

from judge.cli import main

main()
