"""Weights on disk: the registry of every file, where files lie, and readers that run nothing in them."""
