"""Morphable head, rasteriser, textures, expression templates and retargeting."""
