"""Copies of images: exact ones by content, near ones by features.

Two images are near copies where they lie closer together than the images around them explain. Around a point the
distances to its neighbours follow from the local density and the intrinsic dimension d of the data: a neighbour that is
r times as far as the k-th one, or nearer, is there by chance with a probability of at most (k - 1) r^d (Levina and
Bickel, *Maximum likelihood estimation of intrinsic dimension*, NeurIPS 2004; Facco et al., *Estimating the intrinsic
dimension of datasets by a minimal neighborhood information*, Scientific Reports 2017). The data's own dimension sets
the scale, so that there is no similarity to choose, which would mean another thing for every model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress
from labelsieve.detect.neighbours import nearest

# The scale is the distance of this neighbour: a group of copies may be so large, and larger ones are a dense place.
SCALE = 20
# Expected number of pairs, in all of the data, that are taken for copies by chance.
BY_CHANCE = 0.05
# Fewer images than this tell nothing of a dimension.
MIN_IMAGES = 50
# Products of a search that a CPU does in some minutes: 140,000 images of 512 features. To encode so many takes hours.
MOST_ON_CPU = 1e13


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """For some of n images the one that is most like it.

    Attributes:
        rows: Shape (m,): which images, ascending.
        others: Shape (m,): of which each is a copy.
        similarity: Shape (m,), between 0 and 1: cosine of the features.
    """

    rows: NDArray[np.int64]
    others: NDArray[np.int64]
    similarity: NDArray[np.float32]


def exact_copies(contents: NDArray[np.uint64]) -> Copies:
    """Finds images with the same content: the first of a group is said to be a copy of the second, others of the first.

    Args:
        contents: Shape (n,): a hash of each image.
    """
    order = np.argsort(contents, kind="stable")
    _, start, sizes = np.unique(contents[order], return_index=True, return_counts=True)
    others = np.empty(len(order), dtype=np.int64)
    others[order] = np.repeat(order[start], sizes)
    several = sizes > 1
    others[order[start[several]]] = order[start[several] + 1]
    rows = np.sort(order[np.repeat(several, sizes)])
    return _exact(rows, others[rows])


def exact_leaks(contents: NDArray[np.uint64], others: NDArray[np.uint64]) -> Copies:
    """Finds images whose content is among others: the first one there.

    Args:
        contents: Shape (n,): a hash of each image.
        others: Shape (m,): of the images to compare with.
    """
    known, first = np.unique(others, return_index=True)
    rows = np.flatnonzero(np.isin(contents, known))
    return _exact(rows, first[np.searchsorted(known, contents[rows])])


def _exact(rows: NDArray[np.int64], others: NDArray[np.int64]) -> Copies:
    return Copies(rows=rows, others=others, similarity=np.ones(len(rows), dtype=np.float32))


def near_copies(vectors: Tensor, *, own: int, progress: Progress | None = None) -> tuple[Copies, Copies]:
    """Finds near copies of the first images among each other, and among the rest.

    Exact, block by block: time grows with n N D, memory with N D.

    Args:
        vectors: Normalised features of N images without exact copies, (N, D).
        own: n: how many of them are the data; the rest is what they are compared with.
        progress: Where to show how far it is.

    Returns:
        Copies among the first n images, and copies of these among the rest, whose rows count from 0.
    """
    none = Copies(rows=np.empty(0, np.int64), others=np.empty(0, np.int64), similarity=np.empty(0, np.float32))
    if own < MIN_IMAGES:
        return none, none
    found = nearest(vectors, k=SCALE, queries=torch.arange(own), progress=progress)
    similarity, rows = found.similarity.double().numpy(), found.rows.numpy()
    distance = np.sqrt(np.maximum(2 - 2 * similarity, 0.0))
    farthest = np.full(len(vectors), np.inf)
    farthest[:own] = distance[:, -1]
    # by the lesser scale of both: a pair is a pair from either side
    limit = largest_ratio(distance, images=own) * np.minimum(farthest[:own, None], farthest[rows])
    close = distance <= limit
    inside, across = (_nearest_of(close & side, rows, similarity) for side in (rows < own, rows >= own))
    return inside, Copies(rows=across.rows, others=across.others - own, similarity=across.similarity)


def too_much(vectors: Tensor, *, own: int) -> bool:
    """Returns whether :func:`near_copies` would take far longer than a scan whose features are at hand."""
    return vectors.device.type == "cpu" and own * vectors.numel() > MOST_ON_CPU


def largest_ratio(distance: NDArray[np.float64], *, images: int) -> float:
    """Returns how near a copy is, as a share of the distance to the k-th neighbour; -1 where nothing can be said.

    Half of the way to the k-th neighbour in ranks is (1/2)^(1/d) of the way in distance, for the median image, whatever
    the density: so d is estimated from neighbours that copies, which are the nearest, do not reach.

    Args:
        distance: To the k nearest, ascending, (n, k).
        images: n.
    """
    k = distance.shape[1]
    far = distance[:, -1] > 0
    growth = float(np.median(distance[far, -1] / np.maximum(distance[far, k // 2 - 1], 1e-12))) if far.any() else 1.0
    if growth <= 1.0:
        return -1.0
    dimension = math.log(2) / math.log(growth)
    return float((BY_CHANCE / (images * (k - 1))) ** (1 / dimension))


def _nearest_of(close: NDArray[np.bool_], rows: NDArray[np.int64], similarity: NDArray[np.float64]) -> Copies:
    """Returns the first, that is the nearest, of those that are close to each image."""
    images = np.flatnonzero(close.any(axis=1))
    first = close[images].argmax(axis=1)
    cosine = np.clip(similarity[images, first], 0.0, 1.0).astype(np.float32)
    return Copies(rows=images, others=rows[images, first], similarity=cosine)


def groups(count: int, pairs: Sequence[Copies]) -> NDArray[np.int64]:
    """Returns for each of n images a number that all copies of one another share, also by way of others, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left = np.concatenate([each.rows for each in pairs])
    right = np.concatenate([each.others for each in pairs])
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers
