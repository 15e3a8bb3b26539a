"""Copies of images: exact ones by content, near ones by features.

Two images are near copies if they are closer than their neighbourhood explains. The distances of a point to its
neighbours depend on the local density and the intrinsic dimension d of the data: the probability that a neighbour has
at most r times the distance of the k-th neighbour by chance is at most (k - 1) r^d (Levina and Bickel, *Maximum
likelihood estimation of intrinsic dimension*, NeurIPS 2004; Facco et al., *Estimating the intrinsic dimension of
datasets by a minimal neighborhood information*, Scientific Reports 2017). The threshold follows from the dimension of
the data, so no similarity threshold has to be chosen per model.
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

# k, the neighbour that sets the scale; larger groups of copies look like a dense region.
SCALE = 20
# Maximum expected number of false pairs in the data.
MAX_FALSE_PAIRS = 0.05
# Minimum number of images to estimate the dimension.
MIN_IMAGES = 50
# Maximum number of multiplications on a CPU, which take some minutes: 140,000 images with 512 features.
MAX_CPU_OPERATIONS = 1e13


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """Images with a copy.

    Attributes:
        rows: Shape (m,): rows of the images, ascending.
        others: Shape (m,): row of the most similar other image of each.
        similarity: Shape (m,), between 0 and 1: cosine of the features.
    """

    rows: NDArray[np.int64]
    others: NDArray[np.int64]
    similarity: NDArray[np.float32]


def exact_copies(contents: NDArray[np.uint64]) -> Copies:
    """Finds images with the same content: the first of a group is paired with the second, the others with the first.

    Args:
        contents: Shape (n,): a hash of each image.
    """
    order = np.argsort(contents, kind="stable")
    _, starts, sizes = np.unique(contents[order], return_index=True, return_counts=True)
    others = np.empty(len(order), dtype=np.int64)
    others[order] = np.repeat(order[starts], sizes)
    has_copies = sizes > 1
    others[order[starts[has_copies]]] = order[starts[has_copies] + 1]
    rows = np.sort(order[np.repeat(has_copies, sizes)])
    return _exact(rows, others[rows])


def exact_leaks(contents: NDArray[np.uint64], others: NDArray[np.uint64]) -> Copies:
    """Finds images whose content is among that of others, and pairs them with the first match.

    Args:
        contents: Shape (n,): a hash of each image.
        others: Shape (m,): hashes of the images to compare with.
    """
    known, first = np.unique(others, return_index=True)
    rows = np.flatnonzero(np.isin(contents, known))
    return _exact(rows, first[np.searchsorted(known, contents[rows])])


def _exact(rows: NDArray[np.int64], others: NDArray[np.int64]) -> Copies:
    return Copies(rows=rows, others=others, similarity=np.ones(len(rows), dtype=np.float32))


def near_copies(vectors: Tensor, *, count: int, progress: Progress | None = None) -> tuple[Copies, Copies]:
    """Finds near copies of the first n images among themselves, and among the others.

    The search is exact, in blocks: its time is O(n N D), its memory O(N D).

    Args:
        vectors: Normalised features of N images without exact copies, (N, D).
        count: n, the number of images of the data; they are also compared with the others.
        progress: Where to show progress.

    Returns:
        Copies among the first n images, and copies of them among the others, whose rows start from 0.
    """
    empty = Copies(rows=np.empty(0, np.int64), others=np.empty(0, np.int64), similarity=np.empty(0, np.float32))
    if count < MIN_IMAGES:
        return empty, empty
    neighbours = nearest(vectors, k=SCALE, queries=torch.arange(count), progress=progress)
    similarity, neighbour_rows = neighbours.similarity.double().numpy(), neighbours.rows.numpy()
    distance = np.sqrt(np.maximum(2 - 2 * similarity, 0.0))
    farthest = np.full(len(vectors), np.inf)
    farthest[:count] = distance[:, -1]
    # the smaller scale of both, so that the relation is symmetric
    limit = largest_ratio(distance, images=count) * np.minimum(farthest[:count, None], farthest[neighbour_rows])
    is_close = distance <= limit
    within, across = (
        _nearest_of(is_close & is_candidate, neighbour_rows, similarity)
        for is_candidate in (neighbour_rows < count, neighbour_rows >= count)
    )
    return within, Copies(rows=across.rows, others=across.others - count, similarity=across.similarity)


def is_too_slow(vectors: Tensor, *, count: int) -> bool:
    """Returns whether :func:`near_copies` would take much longer than a scan with cached features."""
    return vectors.device.type == "cpu" and count * vectors.numel() > MAX_CPU_OPERATIONS


def largest_ratio(distance: NDArray[np.float64], *, images: int) -> float:
    """Returns the maximum distance of a copy, relative to the k-th neighbour; -1 if it cannot be estimated.

    For the median image, the distance of the (k/2)-th neighbour is (1/2)^(1/d) times that of the k-th, whatever the
    density. These neighbours are used to estimate d, because copies are only among the nearest.

    Args:
        distance: Distances to the k nearest neighbours, ascending, (n, k).
        images: n.
    """
    k = distance.shape[1]
    is_apart = distance[:, -1] > 0
    ratios = distance[is_apart, -1] / np.maximum(distance[is_apart, k // 2 - 1], 1e-12)
    growth = float(np.median(ratios)) if is_apart.any() else 1.0
    if growth <= 1.0:
        return -1.0
    dimension = math.log(2) / math.log(growth)
    return float((MAX_FALSE_PAIRS / (images * (k - 1))) ** (1 / dimension))


def _nearest_of(is_close: NDArray[np.bool_], rows: NDArray[np.int64], similarity: NDArray[np.float64]) -> Copies:
    """Returns the nearest of the close neighbours of each image."""
    images = np.flatnonzero(is_close.any(axis=1))
    first = is_close[images].argmax(axis=1)
    cosine = np.clip(similarity[images, first], 0.0, 1.0).astype(np.float32)
    return Copies(rows=images, others=rows[images, first], similarity=cosine)


def groups(count: int, pairs: Sequence[Copies]) -> NDArray[np.int64]:
    """Returns the connected component of each of n images in the graph of copies, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left = np.concatenate([each.rows for each in pairs])
    right = np.concatenate([each.others for each in pairs])
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers
