"""Class prototypes from the given labels, and the margin of each image to them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.core.progress import Progress
from labelsieve.detect.chunks import CHUNK
from labelsieve.detect.zero_shot import margins

# Below every cosine similarity, so that a class without images is never the nearest.
_NOWHERE = -2.0


@torch.inference_mode()
def prototype_margins(
    vectors: Tensor, labels: Tensor, *, classes: int, progress: Progress | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the margin of each row to the prototypes, and the class of the nearest prototype, (n,) each.

    The prototype of the row's own class excludes the row itself. If it is the only row of its class, the cosine
    similarity is 0.

    Args:
        vectors: Normalised, (n, D).
        labels: Given labels, (n,).
        classes: K, at least 2.
        progress: Receives progress.
    """
    vectors = vectors.cpu()
    sums = torch.zeros(classes, vectors.shape[1], dtype=torch.float64)
    for block, given in zip(vectors.split(CHUNK), labels.split(CHUNK), strict=True):
        sums.index_add_(0, given, block.double())
    prototypes = normalize(sums, dim=1)
    empty = torch.bincount(labels, minlength=classes) == 0
    margin_parts, nearest = [], []
    shown = progress or Progress()
    with shown.task("comparing with prototypes", total=len(labels), unit="images", brief=True) as advance:
        for part, given in zip(vectors.split(CHUNK), labels.split(CHUNK), strict=True):
            block = part.double()
            cosines = (block @ prototypes.T).masked_fill(empty, _NOWHERE)
            without = normalize(sums[given] - block, dim=1, eps=1e-9)
            cosines.scatter_(1, given[:, None], (block * without).sum(dim=1, keepdim=True))
            margin_parts.append(margins(cosines, given))
            nearest.append(cosines.argmax(dim=1))
            advance(len(given))
    return torch.cat(margin_parts).numpy(), torch.cat(nearest).numpy()
