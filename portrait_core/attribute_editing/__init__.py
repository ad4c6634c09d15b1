"""Edits of a portrait's attributes: the conditional flow between w and z (StyleFlow), labels, pictures."""
