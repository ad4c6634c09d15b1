"""Measures of a reenactment, taken by the tracker on the finished frames."""
