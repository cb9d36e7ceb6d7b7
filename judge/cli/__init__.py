"""The command line: a module per kind of command, ``app`` to put them together."""

from judge.cli.app import main

__all__ = ["main"]
