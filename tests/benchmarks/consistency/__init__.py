"""Is a head the same person from every side, made by a 3D generator and by a 2D one? See ``__main__.py``."""
