"""Making of ``data/models``: synthetic people, generators, heads, converters, calibrations."""
