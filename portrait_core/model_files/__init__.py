"""Files of weights as users bring them: which a run needs, whether they are what they say, importing."""
