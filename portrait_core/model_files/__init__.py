"""Files of weights that users bring: which ones a run needs, their checks, import and conversion."""
