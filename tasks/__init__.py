"""Stages of the pipelines: their declarations, their functions, and the code that runs them."""
