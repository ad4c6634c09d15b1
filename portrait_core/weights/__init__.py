"""Weights: the registry of all files, their locations, and readers that run nothing in them."""
