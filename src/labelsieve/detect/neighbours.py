"""Nearest neighbours by cosine similarity, computed in blocks: memory grows with N k, not with N²."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress

# Size of a block of similarities, rows by columns: 64 MiB in float32.
QUERIES, OTHERS = 1024, 16_384


class Neighbours(NamedTuple):
    """The k nearest other vectors of n, nearest first.

    Attributes:
        similarity: Cosine similarities, (n, k).
        rows: Row numbers of the neighbours, (n, k), int64.
    """

    similarity: Tensor
    rows: Tensor


@torch.inference_mode()
def nearest(vectors: Tensor, *, k: int, queries: Tensor | None = None, progress: Progress | None = None) -> Neighbours:
    """Finds the exact nearest neighbours of vectors among all other vectors.

    Time grows with N² D, memory with N (D + k).

    Args:
        vectors: Normalised, (N, D).
        k: Number of neighbours, at least 1; limited to N - 1.
        queries: Row numbers of the vectors to find neighbours for, (n,); None for all.
        progress: Receives progress.

    Returns:
        Two tensors (n, min(k, N - 1)) on the CPU.
    """
    rows = torch.arange(len(vectors)) if queries is None else queries.cpu()
    k = min(k, len(vectors) - 1)
    if k < 1 or not len(rows):
        return Neighbours(torch.empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64))
    parts_of_rows = []
    with (progress or Progress()).task("comparing images", total=len(rows), unit="images") as advance:
        for part in rows.split(QUERIES):
            parts_of_rows.append(_nearest_of(part.to(vectors.device), vectors, k))
            advance(len(part))
    return Neighbours(*(torch.cat(parts) for parts in zip(*parts_of_rows, strict=True)))


def _nearest_of(queries: Tensor, vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    block = vectors[queries]
    best = torch.empty(len(queries), 0, device=vectors.device)
    index = torch.empty(len(queries), 0, device=vectors.device, dtype=torch.int64)
    for start in range(0, len(vectors), OTHERS):
        similarity = block @ vectors[start : start + OTHERS].T
        is_self = (queries >= start) & (queries < start + OTHERS)
        similarity[is_self, queries[is_self] - start] = -torch.inf
        top = similarity.topk(min(k, similarity.shape[1]), dim=1)
        best, index = torch.cat([best, top.values], dim=1), torch.cat([index, top.indices + start], dim=1)
        keep = best.topk(min(k, best.shape[1]), dim=1)
        best, index = keep.values, index.gather(1, keep.indices)
    return best.cpu(), index.cpu()


class Vote(NamedTuple):
    """The votes of the neighbours of n rows, as arrays of shape (n,).

    Attributes:
        agreement: Agreement with the given label, between 0 and 1: the share of neighbours that have it.
        predicted: The label with the largest share; in a tie the given label, else that of the nearest neighbour.
        share: Share of the predicted label.
    """

    agreement: NDArray[np.floating[Any]]
    predicted: NDArray[np.int64]
    share: NDArray[np.floating[Any]]


def vote(index: Tensor, labels: Tensor, given: Tensor) -> Vote:
    """Counts the labels of neighbours, without an array of N times K.

    Args:
        index: Neighbours of n rows, nearest first, (n, k). If k is 0, every label gets an agreement of 1.
        labels: Labels of all rows, (N,).
        given: Labels of the n rows.
    """
    if not index.shape[1]:
        certain = np.ones(len(given), dtype=np.float32)
        return Vote(certain, given.numpy(), certain)
    parts = [_vote(labels[part], given) for part, given in zip(index.split(QUERIES), given.split(QUERIES), strict=True)]
    return Vote(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _vote(theirs: Tensor, given: Tensor) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    k = theirs.shape[1]
    starts, ends = runs(theirs.sort(dim=1).values, theirs)
    counts = ends - starts  # how often each label occurs among the neighbours of a row
    agreeing = (theirs == given[:, None]).sum(dim=1)
    # argmax returns the first of the largest counts, which is the nearest neighbour
    winning = counts.amax(dim=1)
    first = (counts == winning[:, None]).int().argmax(dim=1)
    predicted = torch.where(agreeing == winning, given, theirs.gather(1, first[:, None])[:, 0])
    return (agreeing / k).numpy(), predicted.numpy(), (winning / k).numpy()


def runs(ordered: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the run of each label starts and ends, (n, k), in the sorted labels of its row, (n, k)."""
    return torch.searchsorted(ordered, labels), torch.searchsorted(ordered, labels, right=True)
