"""Readers of published files of weights; none runs anything that a file contains."""
