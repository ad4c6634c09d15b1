"""How ``data/models`` was made: synthetic people, generators, heads, converters, calibrations."""
