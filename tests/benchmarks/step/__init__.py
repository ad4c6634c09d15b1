"""What a step of inversion and of tuning costs; see ``__main__.py``."""
