"""Images of no class: those that are far from all classes, by the Mahalanobis distance to the nearest one.

Class means and one covariance (Lee et al., *A simple unified framework for detecting out-of-distribution samples and
adversarial attacks*, NeurIPS 2018), fitted to images whose label is believed. An image is measured by a fit that has
not seen it, and its distance is compared with those of the believed images, which their fits have not seen either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.detect.evidence.discriminants import chunks, fold_statistics, means_and_covariance

FOLDS = 5
# Level of the one-sided test: of images that belong, as many lie above it by construction.
LEVEL = 0.01
# Fewer believed images than this tell nothing of the others.
MIN_BELIEVED = 100


@dataclass(frozen=True, eq=False)
class Strangeness:
    """How far n images are from all classes.

    Attributes:
        score: Shape (n,), between 0 and 1: share of the believed images that are nearer to their nearest class. It is
            one-sided, and calibrated on images that their fit has not seen: of images that belong, p % exceed 1 - p %.
        distance: Shape (n,): the distance itself, which orders images further away than all believed ones.
        outlier: Shape (n,): further away than all but `LEVEL` of the believed images.
    """

    score: NDArray[np.float32]
    distance: NDArray[np.float64]
    outlier: NDArray[np.bool_]


def strangeness(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    believed: NDArray[np.bool_],
    classes: int,
    generator: torch.Generator,
) -> Strangeness | None:
    """Measures how far images are from all classes.

    Args:
        features: Features before the projection, (N, D), may be memory-mapped.
        labels: Shape (N,): the given labels.
        rows: The n rows to measure.
        believed: Shape (n,): those of them whose label is believed.
        classes: K.
        generator: Draws the folds.

    Returns:
        None where too few labels are believed to tell.
    """
    if believed.sum() < MIN_BELIEVED:
        return None
    distance = distance_to_nearest(
        features, labels, rows=rows, believed=rows[believed], classes=classes, generator=generator
    )
    reference = np.sort(distance[believed])
    below = np.searchsorted(reference, distance, side="left")
    score = (below / len(reference)).astype(np.float32)
    return Strangeness(score, distance, score >= np.float32(1 - LEVEL))


def distance_to_nearest(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    believed: NDArray[np.int64],
    classes: int,
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """Returns the squared Mahalanobis distance to the nearest class, (n,), out of fold.

    Args:
        features: See :func:`strangeness`.
        labels: See :func:`strangeness`.
        rows: The n rows to measure.
        believed: The rows to fit to.
        classes: K.
        generator: Draws the folds.
    """
    statistics = fold_statistics(features, labels, believed, classes, FOLDS, generator)
    folds = np.where(statistics.folds < 0, np.arange(len(features)) % FOLDS, statistics.folds)  # others are in no fit
    result = np.empty(len(features))
    for fold in range(FOLDS):
        metric = _Metric.fit(statistics.counts[fold], statistics.sums[fold], statistics.scatter[fold])
        for part in chunks(rows[folds[rows] == fold]):
            values = (torch.from_numpy(features[part]).double() - statistics.mean) / statistics.scale
            result[part] = metric.nearest(values).numpy()
    return result[rows]


@dataclass(frozen=True, eq=False)
class _Metric:
    """Class means (K', D), in coordinates in which the distances of one covariance are Euclidean, (D, D)."""

    means: Tensor
    whitening: Tensor

    @classmethod
    def fit(cls, counts: Tensor, sums: Tensor, scatter: Tensor) -> _Metric:
        """Fits to the statistics of some folds; nothing is near to a class without images, which is left out."""
        there = counts > 0
        means, covariance = means_and_covariance(counts[there], sums[there], scatter)
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).double(), upper=False).T
        return cls(means @ whitening, whitening)

    def nearest(self, values: Tensor) -> Tensor:
        """Returns the squared distance of values (n, D) to the nearest mean, (n,)."""
        white = values @ self.whitening
        products = white @ self.means.T
        return white.square().sum(dim=1) + (self.means.square().sum(dim=1) - 2 * products).amin(dim=1)
