"""Protocols of evaluation: which methods animate which pairs, and how their clips become tables."""
