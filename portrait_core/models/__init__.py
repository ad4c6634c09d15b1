"""Loaded models of a process."""
