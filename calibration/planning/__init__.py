"""Which items people should rate next, and what to expect of it."""
