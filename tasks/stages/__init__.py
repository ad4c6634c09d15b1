"""Stages: one file per stage, with the functions that do its work."""
