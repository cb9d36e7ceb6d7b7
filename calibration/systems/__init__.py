"""Means of systems, each with what it is a mean of; differences of two; ranks."""
