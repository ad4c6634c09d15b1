"""Morphable heads in FLAME's arrays: decoding, landmarks, rasterising, tools on their meshes."""
