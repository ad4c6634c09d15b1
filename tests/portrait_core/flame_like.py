"""Heads in FLAME's arrays, made of random numbers or of the embedded head."""

import numpy as np

from portrait_core.weights.readers.flame_files import FlameArrays, LandmarkEmbedding


def arrays(n_vertices: int = 12, seed: int = 0) -> FlameArrays:
    """A random head of a few vertices, in float64."""
    rng = np.random.default_rng(seed)
    regress, weights = rng.uniform(0, 1, (5, n_vertices)), rng.uniform(0, 1, (n_vertices, 5))
    return FlameArrays(
        v_template=rng.normal(size=(n_vertices, 3)),
        shapedirs=rng.normal(size=(n_vertices, 3, 400)) * 0.1,
        posedirs=rng.normal(size=(n_vertices, 3, 36)) * 0.01,
        j_regressor=regress / regress.sum(1, keepdims=True),
        weights=weights / weights.sum(1, keepdims=True),
        kintree_table=np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        faces=np.stack([rng.permutation(n_vertices)[:3] for _ in range(20)]),
    )


def embedding(n_faces: int = 20, seed: int = 1) -> LandmarkEmbedding:
    """Random places of the 68 landmarks."""
    rng = np.random.default_rng(seed)

    def points(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, n_faces, shape), rng.dirichlet([1, 1, 1], shape)

    return LandmarkEmbedding(*points(51), *points(79, 17), *points(68))
