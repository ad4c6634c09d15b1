"""Attributes of a face and their edits: the conditional flow between w and z (StyleFlow)."""
