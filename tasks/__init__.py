"""Stages, and the code that runs them on a unit of the store."""
