"""Evidence from the other tags of an image: classes that often occur together support a tag, others oppose it.

In an Ising model, the pairwise model of presence and absence, the log-odds of one class are linear in the others. The
inverse covariance of the tags is the mean-field solution for the couplings (Kappen and Rodríguez, Neural Computation
1998).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.detect.chunks import chunks
from labelsieve.detect.evidence.discriminants import Discriminant
from labelsieve.detect.tags.evidence import Kind


def other_tags_kind(given: NDArray[np.bool_], fold_ids: NDArray[np.int64]) -> Kind:
    """Returns out-of-fold log-odds of each tag given the other tags of its image, relative to the prior log-odds.

    Time grows with F K³, memory with F K².

    Args:
        given: Tags, (n, K).
        fold_ids: The fold of each image, (n,).
    """
    tags, classes = torch.from_numpy(given), given.shape[1]
    together, fitted = _together(tags, np.arange(len(given))), []
    for fold, size in enumerate(np.bincount(fold_ids).tolist()):
        fitted.append(_couplings(together - _together(tags, np.flatnonzero(fold_ids == fold)), len(given) - size))
    slopes, offsets = (torch.stack(each) for each in zip(*fitted, strict=True))
    couplings = Discriminant(fold_ids, torch.zeros(classes), torch.ones(classes), slopes, offsets)
    return lambda rows: couplings.logits(rows, tags[torch.from_numpy(rows)].float())


def _together(tags: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Returns the number of the given images that have both tags of each pair, (K, K)."""
    total = torch.zeros(tags.shape[1], tags.shape[1]).double()
    for part in chunks(rows):
        block = tags[torch.from_numpy(part)].float()
        total += (block.T @ block).double()
    return total


def _couplings(together: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns slopes (K, K), from other tags to a tag, and offsets (K,).

    Correlations are shrunk towards one that is common to all pairs of classes, by the part of their scatter that is due
    to chance (Ledoit and Wolf, Journal of Portfolio Management 2004).

    Args:
        together: Number of images with both tags of each pair, (K, K).
        count: Number of images.
    """
    mean, count = (together.diagonal() + 0.5) / (count + 1), max(count, 1)
    spread = (mean * (1 - mean)).sqrt()
    correlation = (together / count - torch.outer(mean, mean)) / torch.outer(spread, spread)
    off_diagonal = ~torch.eye(len(mean), dtype=torch.bool)
    if not off_diagonal.any():
        return torch.zeros(1, 1), torch.zeros(1)
    common = correlation[off_diagonal].mean()
    # for a centred binary x of mean m scaled to unit variance, x² = 1 + x (1 - 2 m) / s: its moments follow from x
    skew = (1 - 2 * mean) / spread
    chance = (1 + torch.outer(skew, skew) * correlation - correlation.square())[off_diagonal].mean() / count
    scatter = (correlation - common)[off_diagonal].square().mean()
    weight = (chance / scatter.clamp(min=1e-12)).clamp(0, 1)
    shrunk = torch.where(off_diagonal, (1 - weight) * correlation + weight * common, 1 + 1 / count)
    inverse = torch.linalg.inv(shrunk)
    slopes = torch.where(off_diagonal, -inverse, 0.0) / torch.outer(spread, spread)
    return slopes.float(), (-mean @ slopes).float()
