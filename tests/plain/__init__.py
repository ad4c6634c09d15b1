"""The published formulas written down as directly as possible, to test and to measure against.

Nothing here is quick: weights are modulated for each sample, whole images are sampled at once, and autograd
keeps everything. ``tests/reference/test_plain.py`` holds it to the published numbers.
"""
