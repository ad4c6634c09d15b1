"""How sound is a generator tuned on ONE photograph, seen from other sides? See ``__main__.py``."""
