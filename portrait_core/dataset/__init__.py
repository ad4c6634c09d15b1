"""Manifests of many pairs, and dealing their rows to machines."""
