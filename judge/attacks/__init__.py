"""Attacks on the judge: texts of our own that try to talk it round, and the run that measures whether they do."""
