"""Images of no class: outliers by the Mahalanobis distance to the nearest class.

Class means and a shared covariance (Lee et al., *A simple unified framework for detecting out-of-distribution samples
and adversarial attacks*, NeurIPS 2018) are fitted to images whose label is trusted. All distances are out of fold,
including those of the trusted images, which are the reference for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.curation.findings import LEVEL_OF_NO_CLASS
from labelsieve.detect.chunks import chunks
from labelsieve.detect.evidence.discriminants import FoldStatistics, fold_statistics, means_and_covariance

FOLDS = 5
# Minimum number of trusted images.
MIN_TRUSTED = 100


@dataclass(frozen=True, eq=False)
class OutlierScores:
    """Distances of n images to the nearest class.

    Attributes:
        score: Shape (n,), between 0 and 1: share of the trusted images with a smaller distance. It is one-sided and
            calibrated out of fold: p % of the inliers exceed 1 - p %.
        distance: Shape (n,): the distance, which also orders images with larger distances than all trusted ones.
        outlier: Shape (n,): whether the distance exceeds those of all but `LEVEL_OF_NO_CLASS` of the trusted images.
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
        rows: The n rows to score.
        trusted: Shape (n,): whether the label of each is trusted.
        classes: K.
        generator: Draws the folds.

    Returns:
        None if too few labels are trusted.
    """
    if trusted.sum() < MIN_TRUSTED:
        return None
    statistics = fold_statistics(features, labels, rows[trusted], classes, FOLDS, generator)
    # rows that are not trusted are in no fit, so their fold is arbitrary
    folds = np.where(statistics.folds < 0, np.arange(len(features)) % FOLDS, statistics.folds)[rows]
    distance = np.empty(len(rows))
    for fold in range(FOLDS):
        means, whitening = _whitened_means(statistics, fold)
        offsets = -means.square().sum(dim=1).float() / 2  # the nearest mean m maximises white · m - |m|² / 2
        for part in chunks(np.flatnonzero(folds == fold)):
            values = (torch.from_numpy(features[rows[part]]).double() - statistics.mean) / statistics.scale
            white = values @ whitening
            # the nearest class in single precision, which is twice as fast; its distance in double precision
            nearest = torch.addmm(offsets, white.float(), means.T.float()).argmax(dim=1)
            distance[part] = (white - means[nearest]).square().sum(dim=1).numpy()
    reference = np.sort(distance[trusted])
    below = np.searchsorted(reference, distance, side="left")
    score = (below / len(reference)).astype(np.float32)
    return OutlierScores(score, distance, score >= np.float32(1 - LEVEL_OF_NO_CLASS))


def _whitened_means(statistics: FoldStatistics, fold: int) -> tuple[Tensor, Tensor]:
    """Returns whitened class means without a fold, (K', D), and the whitening matrix (D, D); without empty classes."""
    counts, sums = statistics.counts[fold], statistics.sums[fold]
    has_images = counts > 0
    means, covariance = means_and_covariance(counts[has_images], sums[has_images], statistics.scatter[fold])
    factor = torch.linalg.cholesky(covariance)
    whitening = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).double(), upper=False).T
    return means @ whitening, whitening
