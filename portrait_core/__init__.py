"""Numerics, store and pipeline of portrait animation; usable without Prefect and Dask."""
