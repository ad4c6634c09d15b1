"""Data sets: manifests of portraits and videos, and their division among machines."""
