"""Measurements. They print what they find and never assert a time."""
