"""Out-of-fold class evidence from the image features alone: linear discriminant analysis on the given labels.

Class means of frozen features are robust to symmetric label noise, which pulls all of them towards the common mean, and
the analysis has a closed form. Each image is scored by a fit to the other folds, independent of its own label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.memory import reuse_allocations
from labelsieve.core.progress import Progress
from labelsieve.detect.chunks import SUM_CHUNK, chunks
from labelsieve.detect.folds import stratified_folds

# Number of folds for the temperature of a linear head.
TEMPERATURE_FOLDS = 5
# Minimum weights of the identity to try: the shrinkage rule allows for few images, but not for wrong labels.
SHRINKAGES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Linear discriminants, one per fold, each fitted to the other folds.

    Attributes:
        folds: Shape (N,): the fold of each row.
        mean: Shape (D,): subtracted from the features.
        scale: Shape (D,): divides the centred features.
        slopes: Shape (F, D, K).
        offsets: Shape (F, K).
    """

    folds: NDArray[np.int64]
    mean: Tensor
    scale: Tensor
    slopes: Tensor
    offsets: Tensor

    def logits(self, rows: NDArray[np.int64], features: Tensor) -> Tensor:
        """Returns the out-of-fold logits, (n, K), of some rows from their features, (n, D)."""
        standard = (features - self.mean.to(features)) / self.scale.to(features)
        fold_ids = torch.from_numpy(self.folds[rows])
        order, counts = fold_ids.argsort(stable=True), torch.bincount(fold_ids, minlength=len(self.offsets)).tolist()
        result = torch.empty(len(rows), self.offsets.shape[1], device=features.device)
        # each fold fills one contiguous block, because scattering rows is slow with many classes
        for fold, (part, in_fold) in enumerate(zip(result.split(counts), order.split(counts), strict=True)):
            torch.mm(standard[in_fold.to(features.device)], self.slopes[fold].to(features), out=part)
            part += self.offsets[fold].to(features)
        return result[order.argsort().to(features.device)]


def logits_of(
    discriminants: tuple[Discriminant, Discriminant], rows: NDArray[np.int64], features: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the out-of-fold logits of both discriminants, (n, K) each.

    Args:
        discriminants: Result of :func:`fit_discriminants`.
        rows: Row numbers, (n,).
        features: Features of these rows, (n, D).
    """
    unsmoothed, smoothed = discriminants
    first = unsmoothed.logits(rows, features)
    return first, first if smoothed is unsmoothed else smoothed.logits(rows, features)


def fit_discriminants(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    classes: int,
    folds: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> tuple[Discriminant, Discriminant]:
    """Fits two linear discriminants for cross-fitting, reading the features in chunks.

    Each has class means and a pooled covariance that is shrunk towards a multiple of the identity. The first uses
    oracle approximating shrinkage (Chen et al., IEEE TSP 2010), for few images or many dimensions. The second, for data
    with many wrong labels, also has a minimum weight of the identity: the one of `SHRINKAGES` with the smallest
    out-of-fold loss, each at its best temperature.

    Args:
        features: Shape (N, D), may be memory-mapped.
        labels: Shape (N,), values 0 to K-1.
        rows: The rows to use.
        classes: K.
        folds: F, at least 2.
        generator: Assigns the rows of each class to folds.
        progress: Receives progress.

    Returns:
        Both discriminants; the second is the first one if more shrinkage does not make the labels more likely.
    """
    shown, total = progress or Progress(), 2 + len(SHRINKAGES)
    with shown.task("fitting discriminants", total=total, unit="fits", brief=True) as advance, reuse_allocations():
        statistics = fold_statistics(features, labels, rows, classes, folds, generator)
        advance(1)
        unsmoothed = smoothed = statistics.fit(0.0)
        if not len(rows):
            return unsmoothed, smoothed
        _, lowest = _calibrate(unsmoothed, features, labels, rows, statistics.present, advance)
        advance(1)
        for min_weight in SHRINKAGES:  # at most three are held at a time: they are large with many classes
            other = statistics.fit(min_weight)
            _, loss = _calibrate(other, features, labels, rows, statistics.present, advance)
            if loss < lowest:
                smoothed, lowest = other, loss
            advance(1)
        return unsmoothed, smoothed


@dataclass(frozen=True, eq=False)
class FoldStatistics:
    """Folds, mean and scale of a :class:`Discriminant`, and the sums over the rows outside each fold.

    Attributes:
        counts: Shape (F, K).
        sums: Shape (F, K, D).
        scatter: Shape (F, D, D).
        present: Shape (K,): whether each class has rows.
    """

    folds: NDArray[np.int64]
    mean: Tensor
    scale: Tensor
    counts: Tensor
    sums: Tensor
    scatter: Tensor
    present: Tensor

    def fit(self, min_weight: float) -> Discriminant:
        """Fits a discriminant without each fold, with a minimum weight of the identity, from 0 to 1."""
        parts = zip(self.counts, self.sums, self.scatter, strict=True)
        slopes, offsets = zip(*(_solve(*part, min_weight=min_weight) for part in parts), strict=True)
        stacked = torch.stack(slopes).float(), torch.stack(offsets).float()
        return Discriminant(self.folds, self.mean.float(), self.scale.float(), *stacked)


def fold_statistics(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    classes: int,
    folds: int,
    generator: torch.Generator,
) -> FoldStatistics:
    """Returns the statistics for fitting discriminants, from one pass over some rows.

    Args:
        features: See :func:`fit_discriminants`.
        labels: See :func:`fit_discriminants`.
        rows: The rows to use; all others get the fold -1.
        classes: K.
        folds: F, at least 2.
        generator: Assigns the rows of each class to folds.
    """
    fold_ids = np.full(len(features), -1, dtype=np.int64)
    fold_ids[rows] = stratified_folds(labels[rows], folds=folds, generator=generator)
    mean, scale = moments(features, rows)
    parts = _statistics(features, labels, fold_ids, rows, mean, scale, classes, folds)
    counts, sums, scatter = (part.sum(dim=0) - part for part in parts)
    return FoldStatistics(fold_ids, mean, scale, counts, sums, scatter, present=parts[0].sum(dim=0) > 0)


def fit_linear(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    classes: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Fits one discriminant to the given rows and returns it as a linear layer over the original features.

    With few images for its dimensions, a discriminant is overconfident. Its logits are divided by the temperature, at
    least 1, that minimises the out-of-fold loss (Guo et al., ICML 2017, section 4.2).

    Args:
        features: Shape (N, D), may be memory-mapped.
        labels: Shape (N,), values 0 to K-1.
        rows: The rows to use, at least one.
        classes: K.
        generator: Assigns the rows of each class to folds.
        progress: Receives progress.

    Returns:
        Weights (K, D) and biases (K,), with the shares of the classes in the rows as prior probabilities. A class
        without rows gets zero weights and the smallest bias.
    """
    with (progress or Progress()).task("fitting discriminants", total=3, unit="fits", brief=True) as advance:
        crossed = fold_statistics(features, labels, rows, classes, TEMPERATURE_FOLDS, generator).fit(0.0)
        advance(1)
        mean, scale = crossed.mean.double(), crossed.scale.double()
        one_fold = np.zeros(len(features), dtype=np.int64)
        statistics = _statistics(features, labels, one_fold, rows, mean, scale, classes, 1)
        counts, sums, scatter = (part[0] for part in statistics)
        slopes, offsets = _solve(counts, sums, scatter)
        advance(1)
        # the slope of an empty class is already zero, because its mean is the common one
        offsets = torch.where(counts > 0, offsets, offsets[counts > 0].min())
        temperature, _ = _calibrate(crossed, features, labels, rows, counts > 0, advance)
        advance(1)
    weights = (slopes / scale[:, None]).T / temperature
    priors = (counts.clamp(min=0.5) / len(rows)).log()
    return weights.float(), (offsets / temperature + priors - weights @ mean).float()


def _calibrate(
    crossed: Discriminant,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    present: Tensor,
    advance: Callable[[int], None],
) -> tuple[float, float]:
    """Returns the temperature that minimises the out-of-fold loss on a subset of the rows, and that loss."""
    from scipy.optimize import minimize_scalar

    sample = rows[:: -(-len(rows) // SUM_CHUNK)]
    logits = crossed.logits(sample, torch.from_numpy(features[sample])).masked_fill(~present, -torch.inf)
    target = torch.from_numpy(labels[sample])

    def loss(log_temperature: float) -> float:
        advance(0)
        return float(torch.nn.functional.cross_entropy(logits / math.exp(log_temperature), target))

    optimum = minimize_scalar(loss, bounds=(0.0, math.log(1000)), method="bounded")
    return math.exp(optimum.x), float(optimum.fun)


class Rows(Protocol):
    """A float32 array (N, D), or an object that reads rows of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:
        """Returns some rows, (n, D)."""


def moments(features: Rows, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Returns the mean and standard deviation of each dimension, (D,) each."""
    total, square_sum = torch.zeros(features.shape[1]).double(), torch.zeros(features.shape[1]).double()
    for part in chunks(rows):
        values = torch.from_numpy(features[part]).double()
        total += values.sum(dim=0)
        square_sum += values.square().sum(dim=0)
    mean = total / max(1, len(rows))
    return mean, (square_sum / max(1, len(rows)) - mean.square()).clamp(min=1e-12).sqrt()


def _statistics(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    fold_ids: NDArray[np.int64],
    rows: NDArray[np.int64],
    mean: Tensor,
    scale: Tensor,
    classes: int,
    folds: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns per fold the counts (F, K) and sums (F, K, D) of the classes, and the second moments (F, D, D)."""
    width = features.shape[1]
    counts, sums = torch.zeros(folds, classes).double(), torch.zeros(folds, classes, width).double()
    scatter = torch.zeros(folds, width, width).double()
    for part in chunks(rows):
        values = (torch.from_numpy(features[part]).double() - mean) / scale
        folds_of_part, given = torch.from_numpy(fold_ids[part]), torch.from_numpy(labels[part])
        for fold in range(folds):
            in_fold = folds_of_part == fold
            counts[fold] += torch.bincount(given[in_fold], minlength=classes)
            sums[fold].index_add_(0, given[in_fold], values[in_fold])
            scatter[fold] += values[in_fold].T @ values[in_fold]
    return counts, sums, scatter


def _solve(counts: Tensor, sums: Tensor, scatter: Tensor, *, min_weight: float = 0.0) -> tuple[Tensor, Tensor]:
    """Returns the slopes (D, K) and offsets (K,) of a discriminant from the statistics of some folds.

    Args:
        counts: Shape (K,).
        sums: Shape (K, D).
        scatter: Shape (D, D).
        min_weight: Minimum weight of the identity, from 0 to 1.
    """
    means, covariance = means_and_covariance(counts, sums, scatter, min_weight=min_weight)
    slopes = torch.linalg.solve(covariance, means.T)
    return slopes, -0.5 * (means.T * slopes).sum(dim=0)


def means_and_covariance(
    counts: Tensor, sums: Tensor, scatter: Tensor, *, min_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Returns the class means, (K, D), and the shrunk within-class covariance, (D, D).

    Args:
        counts: Shape (K,): number of images per class; may be 0.
        sums: Shape (K, D): sums of their standardised features.
        scatter: Shape (D, D): sum of the second moments of all images.
        min_weight: Minimum weight of the identity, from 0 to 1.
    """
    # one pseudo-image per class at the common mean: small classes are shrunk towards it, and empty ones are neutral
    means = sums / (counts + 1)[:, None]
    images = counts.sum().clamp(min=1)
    within = (scatter - sums.T @ means - means.T @ sums + means.T @ (counts[:, None] * means)) / images
    return means, shrunk(within, images, min_weight=min_weight)[0]


def shrunk(covariance: Tensor, images: Tensor, *, min_weight: float) -> tuple[Tensor, Tensor]:
    """Returns a covariance that is shrunk towards the identity, (D, D), and the weight of the identity, from 0 to 1.

    Args:
        covariance: Shape (D, D).
        images: Number of images, a tensor with one value; fewer images give more shrinkage (Chen et al., 2010).
        min_weight: Minimum weight of the identity, from 0 to 1.
    """
    width = len(covariance)
    level, energy = covariance.trace() / width, covariance.square().sum()
    spread = (images + 1 - 2 / width) * (energy - level.square() * width)
    weight = ((1 - 2 / width) * energy + (level * width).square()) / spread.clamp(min=1e-12)
    weight = weight.clamp(min=min_weight, max=1.0)
    return (1 - weight) * covariance + (weight * level + 1e-6) * torch.eye(width).double(), weight
