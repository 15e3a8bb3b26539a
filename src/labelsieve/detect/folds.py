"""Folds for cross-fitting: each row is scored by a fit to the rows of the other folds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def random_folds(count: int, *, folds: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Returns random fold ids, (n,), from 0 to F-1, whose frequencies differ by at most 1.

    Args:
        count: n, the number of rows.
        folds: F, at least 1.
        generator: Shuffles the rows.
    """
    return torch.randperm(count, generator=generator).numpy() % folds


def stratified_folds(labels: NDArray[np.int64], *, folds: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Returns fold ids, (n,), from 0 to F-1, that split the rows of each class evenly, in random order.

    Random folds may put most images of a small class into one fold. Unlike `StratifiedKFold` of scikit-learn, these
    folds allow classes with fewer images than folds.

    Args:
        labels: Shape (n,).
        folds: F, at least 2.
        generator: Shuffles the rows of each class.
    """
    shuffled = torch.randperm(len(labels), generator=generator).numpy()
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold_ids = np.empty(len(labels), dtype=np.int64)
    fold_ids[by_class] = np.arange(len(labels)) % folds
    return fold_ids
