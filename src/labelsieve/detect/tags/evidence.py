"""Kinds of evidence that a class is in an image: the zero-shot model, out-of-fold discriminants and neighbours.

Each kind gives logits (n, K) for some rows. Their scale and level do not matter, because `noise_model.py` fits both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from labelsieve.detect.chunks import chunks
from labelsieve.detect.evidence.discriminants import Discriminant, Rows, moments, shrunk
from labelsieve.detect.neighbours import Neighbours, nearest
from labelsieve.detect.tags.inputs import TagInputs

Kind = Callable[[NDArray[np.int64]], Tensor]
"""Takes m positions among the n readable images and returns logits (m, K) on the CPU."""
# Number of pseudo-images at the common mean, and of pseudo-neighbours with the class frequencies of all images.
PSEUDO_IMAGES, PSEUDO_NEIGHBOURS = 1.0, 1.0


def zero_shot_kind(pairs: TagInputs) -> Kind:
    """Returns the zero-shot logits at the model's own temperature, minus the mean of each class."""
    return centred_kind(pairs, pairs.images.logits)


def centred_kind(pairs: TagInputs, logits: Callable[[NDArray[np.int64]], Tensor]) -> Kind:
    """Returns logits minus the mean of each class, because their levels differ between classes for any image.

    Args:
        pairs: The images.
        logits: Function from m row numbers to logits (m, K).
    """
    rows = pairs.images.rows
    total = torch.zeros(pairs.images.classes, dtype=torch.float64)
    for part in chunks(rows):
        total += logits(part).sum(dim=0).double().cpu()
    mean = (total / len(rows)).float()
    return lambda positions: logits(rows[positions]).float().cpu() - mean


def neighbour_kind(pairs: TagInputs, weights: Tensor, neighbours: Neighbours) -> Kind:
    """Returns the log-odds of the share of neighbours with the class, minus those of all images.

    Args:
        pairs: The images.
        weights: Weight of each class in each image, (n, K), float32, between 0 and 1.
        neighbours: Neighbours of each readable image among all readable images.
    """
    level = weights.mean(dim=0, dtype=torch.float64).clamp(1e-6, 1 - 1e-6).float()
    k = neighbours.rows.shape[1]
    near = (neighbours.similarity - neighbours.similarity.amax(dim=1, keepdim=True)) if k else neighbours.similarity
    near = (near / near.abs().mean().clamp(min=1e-6)).exp()
    near = near * k / near.sum(dim=1, keepdim=True).clamp(min=1e-6)

    def logits(positions: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(positions)
        total = (
            embedding_bag(neighbours.rows[rows], weights, mode="sum", per_sample_weights=near[rows])
            if k
            else torch.zeros(len(positions), weights.shape[1])
        )
        share = (total + PSEUDO_NEIGHBOURS * level) / (k + PSEUDO_NEIGHBOURS)
        return share.clamp(1e-6, 1 - 1e-6).logit() - level.logit()

    return logits


def neighbours_of(pairs: TagInputs, k: int) -> Neighbours:
    """Returns the k nearest other images of each readable image in the joint space."""
    return nearest(pairs.images.all_joint(), k=k, progress=pairs.images.progress)


def discriminant_kinds(
    pairs: TagInputs, weights: Tensor, fold_ids: NDArray[np.int64], *, shrinkages: Sequence[float]
) -> list[Kind]:
    """Returns the evidence of :func:`fit_against_rest` on whole images, one kind per shrinkage.

    Args:
        pairs: The images.
        weights: Weight of each class in each image, (n, K), float32, between 0 and 1.
        fold_ids: The fold of each readable image, (n,).
        shrinkages: Minimum weights of the identity in the covariance.
    """
    features = pairs.images.features.pooled[pairs.images.rows]
    fitted = fit_against_rest(
        features,
        lambda rows: weights[torch.from_numpy(rows)],
        fold_ids,
        shrinkages=shrinkages,
        classes=weights.shape[1],
    )
    return [_discriminant_kind(features, each) for each in fitted]


def _discriminant_kind(features: NDArray[np.float32], discriminant: Discriminant) -> Kind:
    return lambda positions: discriminant.logits(positions, torch.from_numpy(features[positions]))


def fit_against_rest(
    features: Rows,
    weights: Callable[[NDArray[np.int64]], Tensor],
    fold_ids: NDArray[np.int64],
    *,
    shrinkages: Sequence[float],
    classes: int,
) -> list[Discriminant]:
    """Fits linear discriminants of each class against the rest for cross-fitting, all classes at once.

    Args:
        features: Shape (n, D).
        weights: Function from m row numbers to the weights of each class, (m, K), float32, between 0 and 1.
        fold_ids: The fold of each row, (n,).
        shrinkages: Minimum weights of the identity in the covariance, one set of discriminants for each.
        classes: K.

    Returns:
        One discriminant per shrinkage; its logits are log-likelihood ratios of class and rest, without prior odds.
    """
    every = np.arange(len(fold_ids))
    mean, scale = moments(features, every)
    folds = int(fold_ids.max()) + 1
    parts = [_sums(features, weights, every[fold_ids == fold], mean, scale, classes=classes) for fold in range(folds)]
    totals = [torch.stack(each).sum(dim=0) for each in zip(*parts, strict=True)]
    solved = [
        _solve([total - fold_sum for total, fold_sum in zip(totals, part, strict=True)], shrinkages) for part in parts
    ]
    discriminants = []
    for each in zip(*solved, strict=True):
        slopes, offsets = (torch.stack(values).float() for values in zip(*each, strict=True))
        discriminants.append(Discriminant(fold_ids, mean.float(), scale.float(), slopes, offsets))
    return discriminants


def _sums(
    features: Rows,
    weights: Callable[[NDArray[np.int64]], Tensor],
    rows: NDArray[np.int64],
    mean: Tensor,
    scale: Tensor,
    *,
    classes: int,
) -> tuple[Tensor, ...]:
    """Returns the number of some rows, their sum (D,) and second moments (D, D), and number and sum per class."""
    width = features.shape[1]
    total, second_moments = torch.zeros(width).double(), torch.zeros(width, width).double()
    counts, sums = torch.zeros(classes).double(), torch.zeros(classes, width).double()
    for part in chunks(rows):
        values = ((torch.from_numpy(features[part]) - mean) / scale).float()
        class_weights = weights(part)
        total += values.sum(dim=0, dtype=torch.float64)
        second_moments += (values.T @ values).double()
        counts += class_weights.sum(dim=0, dtype=torch.float64)
        sums += (class_weights.T @ values).double()
    return torch.tensor(float(len(rows))).double(), total, second_moments, counts, sums


def _solve(parts: Sequence[Tensor], shrinkages: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Returns slopes (D, K) and offsets (K,) for each shrinkage.

    The covariance within a class and its rest is that of all images minus the rank-one covariance between the two
    means. Therefore one linear system is enough for all classes (Sherman and Morrison, 1950).
    """
    count, total, second_moments, counts, sums = parts
    mean = total / count.clamp(min=1)
    class_mean = (sums + PSEUDO_IMAGES * mean) / (counts + PSEUDO_IMAGES)[:, None]
    rest_counts = count - counts
    rest_mean = (total - sums + PSEUDO_IMAGES * mean) / (rest_counts + PSEUDO_IMAGES)[:, None]
    difference, middle = class_mean - rest_mean, (class_mean + rest_mean) / 2
    spread = second_moments / count.clamp(min=1) - torch.outer(mean, mean)
    solutions = []
    for shrinkage in shrinkages:
        covariance, weight = shrunk(spread, count, min_weight=shrinkage)
        slopes = torch.linalg.solve(covariance, difference.T)
        between = (1 - weight) * counts * rest_counts / count.clamp(min=1).square()
        slopes = slopes / (1 - between * (difference * slopes.T).sum(dim=1)).clamp(min=0.05)
        solutions.append((slopes, -(middle * slopes.T).sum(dim=1)))
    return solutions
