"""Trials that break things on purpose, for as long as you like: ``make torture``. The tests run a few of each."""
