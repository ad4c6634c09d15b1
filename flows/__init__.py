"""Prefect flows, the engine that runs their work, and the command line."""
