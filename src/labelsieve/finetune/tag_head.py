"""The linear head that training on tags starts from: logistic regressions of each class against the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.memory import reuse_allocations
from labelsieve.core.progress import Progress
from labelsieve.detect.evidence.discriminants import moments
from labelsieve.detect.tags.evidence import deal_folds
from labelsieve.detect.tags.probe import fit_one_against_rest
from labelsieve.finetune.losses import binary_cross_entropy

# L2 regularisation of the slopes on standardised features; which one suits is seen out of fold. Each fit begins where
# the one before has ended, and the first is the easiest.
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3)


class TagHead(NamedTuple):
    """A linear layer over features, and what it says of images that it was not fitted to.

    Attributes:
        weights: Shape (K, D).
        biases: Shape (K,).
        logits: Shape (n, K), float32: those out of fold of the rows that were used.
    """

    weights: Tensor
    biases: Tensor
    logits: Tensor


def fit_tag_head(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    *,
    rows: NDArray[np.int64],
    generator: torch.Generator,
    folds: int = 5,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> TagHead:
    """Fits logistic regressions with the L2 regularisation that makes the targets most likely out of fold.

    Args:
        features: Shape (N, D), may be memory-mapped; the rows that are used have to fit into memory.
        targets: Shape (N, K): 1, 0, or NaN for a pair that is left out.
        rows: The n rows to use, at least one.
        generator: Deals the rows into folds.
        folds: Their number, at least 2; no more than rows.
        device: Where to compute.
        progress: Where to show how far it is.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> rng = np.random.default_rng(0)
        >>> features = rng.normal(size=(200, 4)).astype(np.float32)
        >>> targets = (features[:, :2] > 0).astype(np.float32)
        >>> head = fit_tag_head(features, targets, rows=np.arange(200), generator=torch.Generator().manual_seed(0))
        >>> found = torch.from_numpy(features) @ head.weights.T + head.biases > 0
        >>> float((found.numpy() == targets).mean()) > 0.95
        True
    """
    folds = min(folds, len(rows))
    deal = torch.from_numpy(deal_folds(len(rows), folds=folds, generator=generator)).to(device)
    mean, scale = (each.float() for each in moments(features, rows))
    own = ((torch.from_numpy(features[rows]) - mean) / scale).to(device)
    right = torch.from_numpy(targets[rows]).to(device)
    shown, total = progress or Progress(), len(STRENGTHS) * folds + 1
    with shown.task("fitting a head", total=total, unit="fits", brief=True) as advance, reuse_allocations():
        found = torch.empty(len(STRENGTHS), *right.shape, device=device)
        for fold in range(folds):
            here, last = deal == fold, None
            for logits, strength in zip(found, STRENGTHS, strict=True):
                last = fit_one_against_rest(own[~here], right[~here], strength=strength, start=last)
                logits[here] = own[here] @ last[0] + last[1]
                advance(1)
        best = min(range(len(STRENGTHS)), key=lambda each: float(binary_cross_entropy(found[each], right).mean()))
        slopes, biases = (each.cpu() for each in fit_one_against_rest(own, right, strength=STRENGTHS[best]))
        advance(1)
    weights = (slopes / scale[:, None]).T.contiguous()
    return TagHead(weights, biases - weights @ mean, found[best].cpu())
