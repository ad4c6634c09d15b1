"""Fuzzing of everything that reads a stranger's bytes: `python -m tests.fuzz TARGET --minutes 60`."""
