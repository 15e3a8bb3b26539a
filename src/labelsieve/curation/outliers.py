"""Images of no class: outliers by the Mahalanobis distance to the nearest class.

Class means and one covariance (Lee et al., *A simple unified framework for detecting out-of-distribution samples and
adversarial attacks*, NeurIPS 2018), fitted to images whose label is trusted. All distances
are out of fold: those of the trusted images, too, which the others are compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.detect.evidence.discriminants import chunks, fold_statistics, means_and_covariance

FOLDS = 5
# Significance level of the one-sided test: the share of inliers above it, by construction.
LEVEL = 0.01
# Minimum number of trusted images.
MIN_TRUSTED = 100


@dataclass(frozen=True, eq=False)
class OutlierScores:
    """Distances of n images to the nearest class.

    Attributes:
        score: Shape (n,), between 0 and 1: share of the trusted images with a smaller distance. It is one-sided and
            calibrated out of fold: p % of the inliers exceed 1 - p %.
        distance: Shape (n,): the distance, which orders images with larger distances than all trusted ones.
        outlier: Shape (n,): whether the distance exceeds those of all but `LEVEL` of the trusted images.
    """

    score: NDArray[np.float32]
    distance: NDArray[np.float64]
    outlier: NDArray[np.bool_]


def outlier_scores(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    trusted: NDArray[np.bool_],
    classes: int,
    generator: torch.Generator,
) -> OutlierScores | None:
    """Computes the outlier scores of images.

    Args:
        features: Features before the projection, (N, D), may be memory-mapped.
        labels: Shape (N,): the given labels.
        rows: The n rows to measure.
        trusted: Shape (n,): whether the label of each is trusted.
        classes: K.
        generator: Draws the folds.

    Returns:
        None if too few labels are trusted.
    """
    if trusted.sum() < MIN_TRUSTED:
        return None
    distance = distance_to_nearest(
        features, labels, rows=rows, trusted=rows[trusted], classes=classes, generator=generator
    )
    reference = np.sort(distance[trusted])
    below = np.searchsorted(reference, distance, side="left")
    score = (below / len(reference)).astype(np.float32)
    return OutlierScores(score, distance, score >= np.float32(1 - LEVEL))


def distance_to_nearest(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    trusted: NDArray[np.int64],
    classes: int,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Returns the squared Mahalanobis distance to the nearest class, (n,), out of fold.

    Args:
        features: See :func:`outlier_scores`.
        labels: See :func:`outlier_scores`.
        rows: The n rows to measure.
        trusted: The rows to fit to.
        classes: K.
        generator: Draws the folds.
    """
    statistics = fold_statistics(features, labels, trusted, classes, FOLDS, generator)
    # other rows are in no fit
    folds = np.where(statistics.folds < 0, np.arange(len(features)) % FOLDS, statistics.folds)
    result = np.empty(len(features))
    for fold in range(FOLDS):
        metric = _Mahalanobis.fit(statistics.counts[fold], statistics.sums[fold], statistics.scatter[fold])
        for chunk in chunks(rows[folds[rows] == fold]):
            values = (torch.from_numpy(features[chunk]).double() - statistics.mean) / statistics.scale
            result[chunk] = metric.nearest(values).numpy()
    return result[rows]


@dataclass(frozen=True, eq=False)
class _Mahalanobis:
    """Whitened class means (K', D), and the whitening matrix of the covariance (D, D)."""

    means: Tensor
    whitening: Tensor

    @classmethod
    def fit(cls, counts: Tensor, sums: Tensor, scatter: Tensor) -> _Mahalanobis:
        """Fits to the statistics of some folds; classes without images are left out."""
        has_images = counts > 0
        means, covariance = means_and_covariance(counts[has_images], sums[has_images], scatter)
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).double(), upper=False).T
        return cls(means @ whitening, whitening)

    def nearest(self, values: Tensor) -> Tensor:
        """Returns the squared distance of values (n, D) to the nearest mean, (n,)."""
        white = values @ self.whitening
        products = white @ self.means.T
        return white.square().sum(dim=1) + (self.means.square().sum(dim=1) - 2 * products).amin(dim=1)
