"""Kinds of evidence that a class is in an image: the zero-shot model, discriminants out of fold, and neighbours.

Each kind gives logits (n, K) for some rows, whose scale and level do not matter: `noise.py` fits both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from labelsieve.core.errors import SettingsError
from labelsieve.detect.evidence.discriminants import Discriminant, Rows, chunks, moments
from labelsieve.detect.neighbours import Neighbours, nearest
from labelsieve.detect.tags.inputs import TagInputs

Kind = Callable[[NDArray[np.int64]], Tensor]
"""Takes m positions among the n readable images and returns logits (m, K) on the CPU."""
# The images beside an own one at the common mean, and neighbours beside own ones with the share of all images.
PSEUDO_IMAGES, PSEUDO_NEIGHBOURS = 1.0, 1.0


def zero_shot_kind(pairs: TagInputs) -> Kind:
    """Returns the cosines of images with class texts, at the model's own temperature, less the mean of each class.

    Raises:
        SettingsError: There are no class texts.
    """
    if pairs.images.text is None:
        raise SettingsError("zero-shot pairs need text features of the classes, which are not there; use knn or joint")
    return centred_kind(pairs, pairs.images.logits)


def centred_kind(pairs: TagInputs, logits: Callable[[NDArray[np.int64]], Tensor]) -> Kind:
    """Returns logits less the mean of each class.

    Those of one class lie higher than those of another, whatever an image shows; what is left when their mean is gone
    tells images apart.

    Args:
        pairs: The images.
        logits: Takes m row numbers and returns logits (m, K).
    """
    rows = pairs.images.rows
    total = torch.zeros(pairs.images.classes, dtype=torch.float64)
    for part in chunks(rows):
        total += logits(part).sum(dim=0).double().cpu()
    mean = (total / len(rows)).float()
    return lambda here: logits(rows[here]).float().cpu() - mean


def neighbour_kind(pairs: TagInputs, weights: Tensor, found: Neighbours) -> Kind:
    """Returns the log-odds of the share of the neighbours that have the class, less those of all images.

    Args:
        pairs: The images.
        weights: How much each of them has each class, (n, K), float32, between 0 and 1.
        found: Neighbours of each readable image among all of them.
    """
    level = weights.mean(dim=0, dtype=torch.float64).clamp(1e-6, 1 - 1e-6).float()
    k = found.rows.shape[1]
    near = (found.similarity - found.similarity.amax(dim=1, keepdim=True)) if k else found.similarity
    near = (near / near.abs().mean().clamp(min=1e-6)).exp()
    near = near * k / near.sum(dim=1, keepdim=True).clamp(min=1e-6)

    def logits(here: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(here)
        total = (
            embedding_bag(found.rows[rows], weights, mode="sum", per_sample_weights=near[rows])
            if k
            else torch.zeros(len(here), weights.shape[1])
        )
        share = (total + PSEUDO_NEIGHBOURS * level) / (k + PSEUDO_NEIGHBOURS)
        return share.clamp(1e-6, 1 - 1e-6).logit() - level.logit()

    return logits


def neighbours_of(pairs: TagInputs, k: int) -> Neighbours:
    """Returns the k nearest other images of each readable image in the joint space."""
    return nearest(pairs.images.all_joint(), k=k, progress=pairs.images.progress)


def discriminant_kinds(
    pairs: TagInputs, weights: Tensor, deal: NDArray[np.int64], *, shrinkages: Sequence[float]
) -> list[Kind]:
    """Returns for each shrinkage the kind of evidence of :func:`fit_against_rest` on whole images.

    Args:
        pairs: The images.
        weights: How much each of them has each class, (n, K), float32, between 0 and 1.
        deal: The fold of each readable image, (n,).
        shrinkages: The least weight of the identity in the covariance.
    """
    features = pairs.images.features.pooled[pairs.images.rows]
    fitted = fit_against_rest(
        features, lambda rows: weights[torch.from_numpy(rows)], deal, shrinkages=shrinkages, classes=weights.shape[1]
    )
    return [_discriminant_kind(features, each) for each in fitted]


def _discriminant_kind(features: NDArray[np.float32], discriminant: Discriminant) -> Kind:
    return lambda here: discriminant.logits(here, torch.from_numpy(features[here]))


def fit_against_rest(
    features: Rows,
    weights: Callable[[NDArray[np.int64]], Tensor],
    deal: NDArray[np.int64],
    *,
    shrinkages: Sequence[float],
    classes: int,
) -> list[Discriminant]:
    """Fits one linear discriminant for each class against the rest, all at once, each to be asked about another fold.

    Args:
        features: Shape (n, D).
        weights: Takes m row numbers and returns how much each has each class, (m, K), float32, between 0 and 1.
        deal: The fold of each row, (n,).
        shrinkages: The least weight of the identity in the covariance, one set of discriminants for each.
        classes: K.

    Returns:
        For each shrinkage what gives the log-likelihood ratio of the class and the rest, without the prior odds.
    """
    every = np.arange(len(deal))
    mean, scale = moments(features, every)
    folds = int(deal.max()) + 1
    parts = [_sums(features, weights, every[deal == fold], mean, scale, classes=classes) for fold in range(folds)]
    whole = [torch.stack(each).sum(dim=0) for each in zip(*parts, strict=True)]
    solved = [_solve([total - own for total, own in zip(whole, part, strict=True)], shrinkages) for part in parts]
    found = []
    for each in zip(*solved, strict=True):
        slopes, offsets = (torch.stack(values).float() for values in zip(*each, strict=True))
        found.append(Discriminant(deal, mean.float(), scale.float(), slopes, offsets))
    return found


def _sums(
    features: Rows,
    weights: Callable[[NDArray[np.int64]], Tensor],
    rows: NDArray[np.int64],
    mean: Tensor,
    scale: Tensor,
    *,
    classes: int,
) -> tuple[Tensor, ...]:
    """Returns of some rows their number, sum (D,), second moments (D, D), and class by class number and sum."""
    width = features.shape[1]
    total, squares = torch.zeros(width).double(), torch.zeros(width, width).double()
    counts, sums = torch.zeros(classes).double(), torch.zeros(classes, width).double()
    for part in chunks(rows):
        values = ((torch.from_numpy(features[part]) - mean) / scale).float()
        own = weights(part)
        total += values.sum(dim=0, dtype=torch.float64)
        squares += (values.T @ values).double()
        counts += own.sum(dim=0, dtype=torch.float64)
        sums += (own.T @ values).double()
    return torch.tensor(float(len(rows))).double(), total, squares, counts, sums


def _solve(parts: Sequence[Tensor], shrinkages: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Returns for each shrinkage slopes (D, K) and offsets (K,).

    The covariance within a class and its rest is that of all images less what lies between the two means, which is of
    rank one: so one linear system does for all classes (Sherman and Morrison, 1950).
    """
    count, total, squares, counts, sums = parts
    mean = total / count.clamp(min=1)
    ours = (sums + PSEUDO_IMAGES * mean) / (counts + PSEUDO_IMAGES)[:, None]
    theirs = count - counts
    rest = (total - sums + PSEUDO_IMAGES * mean) / (theirs + PSEUDO_IMAGES)[:, None]
    apart, middle = ours - rest, (ours + rest) / 2
    spread = squares / count.clamp(min=1) - torch.outer(mean, mean)
    level = spread.trace() / len(mean)
    found = []
    for least in shrinkages:
        weight = _oracle_weight(spread, count).clamp(min=least, max=1.0)
        shrunk = (1 - weight) * spread + (weight * level + 1e-6) * torch.eye(len(mean)).double()
        slopes = torch.linalg.solve(shrunk, apart.T)
        between = (1 - weight) * counts * theirs / count.clamp(min=1).square()
        slopes = slopes / (1 - between * (apart * slopes.T).sum(dim=1)).clamp(min=0.05)
        found.append((slopes, -(middle * slopes.T).sum(dim=1)))
    return found


def _oracle_weight(spread: Tensor, count: Tensor) -> Tensor:
    """Returns how far to shrink a covariance (D, D) of so many images (Chen et al., IEEE TSP 2010)."""
    width = len(spread)
    level, energy = spread.trace() / width, spread.square().sum()
    most = (count + 1 - 2 / width) * (energy - level.square() * width)
    return ((1 - 2 / width) * energy + (level * width).square()) / most.clamp(min=1e-12)
