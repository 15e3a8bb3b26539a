"""Multinomial logistic regression on features, computed in blocks of rows without an array of N times K."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from labelsieve.core.progress import Progress
from labelsieve.detect.chunks import CHUNK

MAX_ITERATIONS = 200


class SoftmaxRegression(NamedTuple):
    """A fitted linear classifier.

    Attributes:
        weight: (K, D).
        bias: (K,), minus infinity for a class without images.
    """

    weight: Tensor
    bias: Tensor

    def log_probability(self, vectors: Tensor) -> Tensor:
        """Returns log p_k(x), (n, K), for features (n, D)."""
        return log_softmax(vectors.double() @ self.weight.T + self.bias, dim=1)


def fit_balanced(vectors: Tensor, labels: Tensor, *, classes: int, progress: Progress) -> SoftmaxRegression:
    """Fits a classifier to all labels, with equal weight for each class.

    The objective is that of `LogisticRegression(C=1, class_weight="balanced")` of scikit-learn: the sum of the
    cross-entropies, each times n / (present classes * images of its class), plus half of the squared weights. L-BFGS
    starts at zero and uses double precision, so that the order of the rows does not matter.

    Args:
        vectors: Features, (n, D), n at least 1, on the CPU.
        labels: (n,), values 0 to K-1.
        classes: K. Classes without images get probability 0.
        progress: Receives progress.
    """
    from scipy.optimize import minimize

    present, inverse = labels.unique(return_inverse=True)
    count, width = len(present), vectors.shape[1]
    weights = len(labels) / (count * inverse.bincount().double())
    with progress.task("fitting a classifier", total=1, unit="fits", brief=True) as advance:
        result = minimize(
            lambda flat: _objective(flat.reshape(count, width + 1), vectors, inverse, weights),
            np.zeros(count * (width + 1)),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_ITERATIONS, "gtol": 1e-5, "ftol": 1e-12},
        )
        advance(1)
    solution = torch.from_numpy(result.x.reshape(count, width + 1))
    weight = torch.zeros(classes, width, dtype=torch.float64)
    bias = torch.full((classes,), -torch.inf, dtype=torch.float64)
    weight[present], bias[present] = solution[:, :-1], solution[:, -1]
    return SoftmaxRegression(weight, bias)


@torch.inference_mode()
def _objective(
    parameters: NDArray[np.float64], vectors: Tensor, labels: Tensor, weights: Tensor
) -> tuple[float, NDArray[np.float64]]:
    """Returns the objective divided by n, and its gradient; the parameters are (K, D + 1), with the bias last."""
    theta = torch.from_numpy(parameters)
    weight, bias = theta[:, :-1], theta[:, -1]
    gradient = torch.cat([weight, torch.zeros(len(bias), 1, dtype=torch.float64)], dim=1)
    total = 0.5 * float(weight.square().sum())
    for part, given in zip(vectors.split(CHUNK), labels.split(CHUNK), strict=True):
        block = part.double()
        log_p = log_softmax(block @ weight.T + bias, dim=1)
        total -= float(weights[given] @ log_p.gather(1, given[:, None])[:, 0])
        residual = log_p.exp()
        residual[torch.arange(len(given)), given] -= 1
        residual *= weights[given][:, None]
        gradient[:, :-1] += residual.T @ block
        gradient[:, -1] += residual.sum(dim=0)
    return total / len(labels), gradient.numpy().ravel() / len(labels)
