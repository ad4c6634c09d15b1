"""Training pictures in memory: shards of synthetic views, read as they appear, sampled in batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

ARRAYS = ("z", "image", "alpha", "depth", "camera", "key_points", "wall")


@dataclass(frozen=True)
class ViewBatch:
    """A batch of ``B = I * V`` views of ``I`` synthetic heads, the views of a head adjacent.

    The planes of a head are synthesised once for all its views: they cost more than the rays.

    Attributes:
        z: scene latents ``[I,Z]``, of about unit variance.
        image: ``[B,3,H,H]`` in [-1,1], foreground over background.
        alpha: soft foreground coverage ``[B,1,H,H]`` in 0..1.
        depth: distance along the ray ``[B,H/2,H/2]`` in box units, 0 where there is no foreground.
        camera: labels ``[B,25]``.
        key_points: mouth, right eye, left eye ``[B,3,2]``, 0..1 of the image.
        wall: texture of the background plane ``[I,3,S,S]`` in [-1,1].
    """

    z: Tensor
    image: Tensor
    alpha: Tensor
    depth: Tensor
    camera: Tensor
    key_points: Tensor
    wall: Tensor

    @property
    def views(self) -> int:
        """Number of views per head."""
        return len(self.camera) // len(self.z)

    def by_head(self, values: Tensor) -> Tensor:
        """Reshape ``[I*V,N,...]`` to ``[I,V*N,...]``: all rays of a head together."""
        return values.reshape(len(self.z), -1, *values.shape[2:])

    def by_view(self, values: Tensor) -> Tensor:
        """Invert :meth:`by_head`."""
        return values.reshape(len(self.camera), -1, *values.shape[2:])

    @property
    def image_half(self) -> Tensor:
        """The image at neural resolution, ``[B,3,H/2,H/2]``."""
        return F.avg_pool2d(self.image, 2)

    @property
    def alpha_half(self) -> Tensor:
        """The coverage at neural resolution, ``[B,1,H/2,H/2]``."""
        return F.avg_pool2d(self.alpha, 2)


def _to_signed(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


class ShardSet:
    """All shards of a folder (``*.npz`` as :mod:`portrait_core.training.scenes` writes them).

    Args:
        folder: folder of the shards.
        held_out: number of shards, first by name, that are kept for evaluation and never sampled.
        limit: maximum number of training shards to read (memory: about 45 MB each at 256 px).
    """

    def __init__(self, folder: str | Path, held_out: int = 1, limit: int = 160) -> None:
        self.folder, self.held_out, self.limit = Path(folder), held_out, limit
        self._seen: dict[str, dict[str, NDArray[Any]]] = {}
        self.refresh(limit)
        if not self._seen:
            raise ValueError(
                f"no training shard in {folder} (the first {held_out} are held out); "
                "write some with python -m portrait_core.training.scenes"
            )

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.npz") if not p.name.startswith("."))

    def refresh(self, at_most: int = 4) -> None:
        """Read up to ``at_most`` shards that have appeared since the last call."""
        new = [p for p in self._paths()[self.held_out :] if p.name not in self._seen]
        for path in new[: max(0, min(at_most, self.limit - len(self._seen)))]:
            self._seen[path.name] = _read(path)

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def latent_size(self) -> int:
        """Length of ``z``."""
        return next(iter(self._seen.values()))["z"].shape[1]

    def latents(self) -> Tensor:
        """Return the latents ``[N,Z]`` of all heads that are sampled."""
        return torch.from_numpy(np.concatenate([shard["z"] for shard in self._seen.values()]))

    def sample(self, heads: int, views: int, rng: np.random.Generator) -> ViewBatch:
        """Draw ``heads`` heads with replacement, and ``views`` different views of each."""
        shards = list(self._seen.values())
        picks = []
        for _ in range(heads):
            shard = shards[rng.integers(len(shards))]
            heads_there, views_there = shard["image"].shape[:2]
            picks.append((shard, int(rng.integers(heads_there)), rng.permutation(views_there)[:views]))
        return _collate(picks)

    def sample_pairs(self, pairs: int, views: int, rng: np.random.Generator) -> ViewBatch:
        """Draw ``pairs`` persons with two expressions each, next to each other, seen by the same cameras.

        Raises:
            ValueError: if no shard has two expressions of a person.
        """
        shards = [s for s in self._seen.values() if s["expressions"] > 1]
        if not shards:
            raise ValueError("no shard has pairs of expressions; write some with --expressions 2")
        picks = []
        for _ in range(pairs):
            shard = shards[rng.integers(len(shards))]
            each = int(shard["expressions"])
            first = each * int(rng.integers(len(shard["z"]) // each))
            seen_from = rng.permutation(shard["image"].shape[1])[:views]
            picks += [(shard, first + int(i), seen_from) for i in rng.permutation(each)[:2]]
        return _collate(picks)

    @property
    def has_pairs(self) -> bool:
        """True if there are shards with several expressions of a person."""
        return any(s["expressions"] > 1 for s in self._seen.values())

    def held_out_views(self, count: int) -> ViewBatch:
        """Return one view each of the first ``count`` identities of the first held-out shard, or of all."""
        return load_views(self._paths()[0], count)


def load_views(path: str | Path, count: int, views: int = 1) -> ViewBatch:
    """Read ``views`` views of the first ``count`` identities of a shard, or as many as there are."""
    shard = _read(Path(path))
    there = range(min(views, shard["image"].shape[1]))
    return _collate([(shard, i, np.array(there)) for i in range(min(count, len(shard["z"])))])


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        shard = {name: file[name] for name in ARRAYS}
        shard["expressions"] = file["expressions"] if "expressions" in file else np.array(1)
        return shard


def _collate(picks: list[tuple[dict[str, NDArray[Any]], int, NDArray[Any]]]) -> ViewBatch:
    def views(name: str) -> NDArray[Any]:
        return np.concatenate([shard[name][i][k] for shard, i, k in picks])

    return ViewBatch(
        z=torch.from_numpy(np.stack([shard["z"][i] for shard, i, _ in picks])),
        image=_to_signed(views("image")),
        alpha=torch.from_numpy(views("alpha"))[:, None].float() / 255,
        depth=torch.from_numpy(views("depth").astype(np.float32)),
        camera=torch.from_numpy(views("camera")),
        key_points=torch.from_numpy(views("key_points")),
        wall=_to_signed(np.stack([shard["wall"][i] for shard, i, _ in picks])),
    )
