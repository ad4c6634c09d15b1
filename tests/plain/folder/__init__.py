"""Another reference folder of the published one's form, with other seeds and other shapes.

``python -m tests.plain.folder FOLDER`` writes it from the plain implementations, mostly in double precision,
and ``PORTRAIT_REFERENCE=FOLDER pytest tests/reference`` runs the parity tests on it. So the tests can be
shown to read what they compare from the folder, and a clone without the published numbers can run them all.
What no plain implementation makes is our own: gradients of the flow's training, FFHQ's padded squares.
"""
