"""The initial linear head for tags: one-vs-rest logistic regressions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.memory import reuse_allocations
from labelsieve.core.progress import Progress
from labelsieve.detect.evidence.discriminants import moments
from labelsieve.detect.folds import random_folds
from labelsieve.detect.tags.probe import fit_one_against_rest
from labelsieve.finetune.losses import binary_cross_entropy

# L2 regularisation of the coefficients on standardised features, chosen out of fold. Each fit is warm-started from the
# one before; the strongest regularisation converges fastest.
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3)
FOLDS = 5


def fit_tag_head(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    *,
    rows: NDArray[np.int64],
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fits logistic regressions with the L2 regularisation of the highest out-of-fold likelihood.

    Args:
        features: Shape (N, D), may be memory-mapped; the used rows have to fit into memory.
        targets: Shape (N, K): 1, 0, or NaN for a pair that is left out.
        rows: The n rows to use, at least one.
        generator: Draws the folds.
        device: Device of the computation.
        progress: Receives progress.

    Returns:
        Weights (K, D), biases (K,), and out-of-fold logits of the used rows, (n, K), float32.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> rng = np.random.default_rng(0)
        >>> features = rng.normal(size=(200, 4)).astype(np.float32)
        >>> targets = (features[:, :2] > 0).astype(np.float32)
        >>> generator = torch.Generator().manual_seed(0)
        >>> weights, biases, _ = fit_tag_head(features, targets, rows=np.arange(200), generator=generator)
        >>> predicted = torch.from_numpy(features) @ weights.T + biases > 0
        >>> float((predicted.numpy() == targets).mean()) > 0.95
        True
    """
    folds = min(FOLDS, len(rows))
    fold_ids = torch.from_numpy(random_folds(len(rows), folds=folds, generator=generator)).to(device)
    mean, scale = (each.float() for each in moments(features, rows))
    inputs = ((torch.from_numpy(features[rows]) - mean) / scale).to(device)
    outputs = torch.from_numpy(targets[rows]).to(device)
    bars, total = progress or Progress(), len(PENALTIES) * folds + 1
    with bars.task("fitting a head", total=total, unit="fits", brief=True) as advance, reuse_allocations():
        logits_by_penalty = torch.empty(len(PENALTIES), *outputs.shape, device=device)
        for fold in range(folds):
            in_fold, solution = fold_ids == fold, None
            for logits, penalty in zip(logits_by_penalty, PENALTIES, strict=True):
                solution = fit_one_against_rest(inputs[~in_fold], outputs[~in_fold], penalty=penalty, start=solution)
                logits[in_fold] = inputs[in_fold] @ solution[0] + solution[1]
                advance(1)
        best = min(
            range(len(PENALTIES)),
            key=lambda each: float(binary_cross_entropy(logits_by_penalty[each], outputs).mean()),
        )
        slopes, biases = (each.cpu() for each in fit_one_against_rest(inputs, outputs, penalty=PENALTIES[best]))
        advance(1)
    weights = (slopes / scale[:, None]).T.contiguous()
    return weights, biases - weights @ mean, logits_by_penalty[best].cpu()
