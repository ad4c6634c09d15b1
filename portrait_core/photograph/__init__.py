"""A photograph taken apart: the person and what stands behind."""
