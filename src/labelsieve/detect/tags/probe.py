"""Out-of-fold probabilities of one-vs-rest logistic regressions, fitted for all classes at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from labelsieve.core.memory import reuse_allocations
from labelsieve.core.seeds import Purpose
from labelsieve.detect.folds import random_folds
from labelsieve.detect.tags.inputs import TagInputs

# L2 regularisation of the biases: without it, the bias of a class that no image or every image has would diverge.
_OF_BIASES = 1e-4
# Maximum number of iterations, and tolerance of the gradient: smaller ones change no verdict.
_ITERATIONS, _FLAT = 100, 1e-4


def out_of_fold_pair_probabilities(pairs: TagInputs, *, folds: int, strength: float) -> NDArray[np.float32]:
    """Returns the out-of-fold probability of each class in each readable image, (n, K).

    Features are standardised by the training folds. Classes share no parameters, so that one optimisation of the summed
    losses finds the optimum of each.

    Args:
        pairs: Features and tags.
        folds: F, at least 2; limited to the number of images.
        strength: Inverse of the L2 regularisation strength (C of scikit-learn).
    """
    images = pairs.images
    features, given = images.features.pooled[images.rows], pairs.given
    folds = min(folds, len(given))
    fold_ids = random_folds(len(given), folds=folds, generator=images.engine.generator(Purpose.PROBE_FOLDS))
    if len(given) == 1:  # the training fold is empty
        return pairs.frequency.float().numpy()[None]
    probability = np.empty(given.shape, dtype=np.float32)
    with images.progress.task("fitting a probe", total=folds, unit="folds") as advance, reuse_allocations():
        for fold in range(folds):
            held_out = fold_ids == fold
            mean, deviation = features[~held_out].mean(axis=0), features[~held_out].std(axis=0)
            deviation[deviation == 0] = 1
            fitted = (
                torch.from_numpy((features[~held_out] - mean) / deviation),
                torch.from_numpy(given[~held_out]).float(),
            )
            slopes, biases = fit_one_against_rest(*fitted, penalty=1 / (strength * len(fitted[0])))
            probability[held_out] = torch.sigmoid(
                torch.from_numpy((features[held_out] - mean) / deviation) @ slopes + biases
            ).numpy()
            advance(1)
    return probability


def fit_one_against_rest(
    features: Tensor, targets: Tensor, *, penalty: float, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Fits logistic regressions with L2 regularisation, as scikit-learn does.

    Args:
        features: Shape (n, D), standardised.
        targets: Shape (n, K), on the same device: 1, 0, or NaN for a pair that is left out.
        penalty: L2 regularisation of the slopes relative to the mean loss of an image, 1 / (C n) of scikit-learn.
            Biases are weakly regularised towards the log-odds of the targets.
        start: Initial slopes and biases.

    Returns:
        Slopes (D, K) and biases (K,).
    """
    known, classes = ~targets.isnan(), targets.shape[1]
    right, counted = targets.nan_to_num(), known.to(features.dtype)
    # half a pseudo-image with the tag and half a one without it, so that no share is 0 or 1
    level = ((right.sum(dim=0) + 0.5) / (known.sum(dim=0) + 1)).logit()
    first = (torch.zeros(features.shape[1], classes, device=features.device), level) if start is None else start
    slopes, biases = (each.clone().requires_grad_(True) for each in first)
    optimizer = torch.optim.LBFGS(
        [slopes, biases], max_iter=_ITERATIONS, tolerance_grad=_FLAT, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = binary_cross_entropy_with_logits(features @ slopes + biases, right, weight=counted, reduction="sum")
        drawn = 0.5 * penalty * slopes.square().sum() + 0.5 * _OF_BIASES * (biases - level).square().sum()
        value = fit / max(1, len(targets)) + drawn
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return slopes.detach(), biases.detach()
