"""Out-of-fold probabilities of one logistic regression for each class against the rest, all fitted at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.core.seeds import Purpose
from labelsieve.detect.evidence.discriminants import CHUNK
from labelsieve.detect.pairs.evidence import deal_folds
from labelsieve.detect.pairs.inputs import PairInputs
from labelsieve.detect.probe import MOST_ITERATIONS


def out_of_fold_pair_probabilities(pairs: PairInputs, *, folds: int, strength: float) -> NDArray[np.float32]:
    """Returns how likely each class is in each readable image, (n, K), each from a fit that has not seen the image.

    Features are standardised by the images that are fitted. The classes share nothing but the features, so the sum of
    their losses has the optimum of each; one optimisation does for all.

    Args:
        pairs: Features and tags.
        folds: F, at least 2; there are no more than images.
        strength: Inverse of the L2 regularisation (C of scikit-learn).
    """
    images = pairs.images
    features, given = images.features.pooled[images.rows], pairs.given
    folds = max(1, min(folds, len(given)))
    deal = deal_folds(len(given), folds=folds, generator=images.engine.generator(Purpose.PROBE_FOLDS))
    found = np.empty(given.shape, dtype=np.float32)
    with images.progress.task("fitting a probe", total=folds, unit="folds") as advance:
        for fold in range(folds):
            here = deal == fold
            mean, deviation = features[~here].mean(axis=0), features[~here].std(axis=0)
            deviation[deviation == 0] = 1
            weights, bias = fit_one_against_rest((features[~here] - mean) / deviation, given[~here], strength=strength)
            found[here] = torch.sigmoid(torch.from_numpy((features[here] - mean) / deviation) @ weights + bias).numpy()
            advance(1)
    return found


def fit_one_against_rest(
    features: NDArray[np.float32], given: NDArray[np.bool_], *, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits logistic regressions with L2 regularisation of the slopes, as scikit-learn does.

    Args:
        features: Shape (n, D), standardised.
        given: Shape (n, K).
        strength: Inverse of the regularisation. The biases are drawn to the log-odds of the tags by a thousandth of
            it, so that they stay finite for a class that none or all of the images have.

    Returns:
        Slopes (D, K) and biases (K,).
    """
    from scipy.optimize import minimize

    width, classes = features.shape[1], given.shape[1]
    level = torch.from_numpy((given.sum(axis=0) + 0.5) / (len(given) + 1)).float().logit()

    def loss_and_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = torch.from_numpy(values).float().view(width + 1, classes)
        slope, away = now / strength, now[-1] - level
        slope[-1] = 1e-3 * away / strength
        total = float(0.5 * now[:-1].square().sum() + 0.5e-3 * away.square().sum()) / strength
        for start in range(0, len(features), CHUNK):
            part, tags = torch.from_numpy(features[start : start + CHUNK]), given[start : start + CHUNK]
            mine = torch.from_numpy(tags).float()
            logits = part @ now[:-1] + now[-1]
            total += float(torch.nn.functional.binary_cross_entropy_with_logits(logits, mine, reduction="sum"))
            error = torch.sigmoid(logits) - mine
            slope[:-1] += part.T @ error
            slope[-1] += error.sum(dim=0)
        return total / len(features), slope.double().numpy().ravel() / len(features)

    start = np.zeros((width + 1, classes))
    start[-1] = level.numpy()
    best = minimize(
        loss_and_slope, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MOST_ITERATIONS, "maxcor": 10}
    )
    fitted = torch.from_numpy(best.x).float().view(width + 1, classes)
    return fitted[:-1], fitted[-1]
