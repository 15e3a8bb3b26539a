"""HOC: estimates the share of wrong labels per class from the labels of images and their two nearest neighbours.

If an image and its two nearest neighbours have the same true class k, their given labels are three independent draws
from row k of the noise transition matrix T. Their joint frequencies are

    c1_a = Σ_k p_k T_ka,    c2_ab = Σ_k p_k T_ka T_kb,    c3_abc = Σ_k p_k T_ka T_kb T_kc,

where p is the share of each true class (Zhu, Song and Liu, *Clusterability as an Alternative to Anchor Points When
Learning with Noisy Labels*, ICML 2021, arXiv 2102.05291). As in the published code, T and p are softmaxes of free
parameters and minimise `|c1 - ĉ1| + |c2 - ĉ2| + |c3 - ĉ3|` in 400 steps of Adam. Here the learning rate decays, so that
the result does not depend on rounding. Because `|c3|² = Σ_kl p_k p_l (T_k · T_l)³`, only the observed triples of labels
are needed, not an array of K x K x K.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress

STEPS, LEARNING_RATE = 400, 0.1
# Maximum number of classes for T, which has a parameter per pair: more would need more images and slower steps.
MAX_CLASSES = 200
# Maximum number of triples to fit T to: more do not improve the fit, and each step takes longer.
MAX_TRIPLES = 50_000
# Number of values per block: blocks that fit into the cache of the processor halve the time.
_BLOCK = 2**16


def share_right(
    triples: Tensor, *, classes: int, generator: torch.Generator, progress: Progress
) -> NDArray[np.float64]:
    """Returns P(true class is j | label is j) per class, (K,), between 0 and 1; 1 if it cannot be estimated.

    If the labels have more than `MAX_CLASSES` classes, :func:`one_against_rest` estimates each class separately.

    Args:
        triples: Labels of images and of their two nearest neighbours, (n, 3).
        classes: K.
        generator: Draws `MAX_TRIPLES` of the triples if there are more.
        progress: Receives progress.
    """
    result = np.ones(classes)
    present, inverse = triples.unique(return_inverse=True)
    if len(present) < 2:
        return result
    if len(present) > MAX_CLASSES:
        return one_against_rest(triples, classes=classes)
    if len(triples) > MAX_TRIPLES:
        inverse = inverse[torch.randperm(len(triples), generator=generator)[:MAX_TRIPLES]]
    transition, prior = fit_transition(inverse, classes=len(present), progress=progress)
    first = inverse[:, 0].bincount(minlength=len(present)) / len(inverse)
    right = torch.where(first > 0, transition.diagonal() * prior / first, 1.0)
    result[present.numpy()] = right.clamp(0, 1).numpy()
    return result


class _Block(NamedTuple):
    """Some of the distinct triples, with sorted labels, because c3 does not depend on their order.

    Attributes:
        labels: (m, 3).
        weights: Frequency of each triple, (m, 1).
        positions: One sparse matrix (K, m) for each of the three positions, 1 where a triple has the label there.
    """

    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    positions: list[Any]


class _Counts(NamedTuple):
    """Observed frequencies of labels, pairs and triples.

    Attributes:
        single: ĉ1, (K,).
        pairs: ĉ2, (K, K).
        triples: Nonzero values of ĉ3.
        squared: |ĉ3|².
    """

    single: Tensor
    pairs: Tensor
    triples: list[_Block]
    squared: float


def _count(triples: Tensor, classes: int) -> _Counts:
    one = torch.ones(len(triples), dtype=torch.float64) / len(triples)
    single = torch.zeros(classes, dtype=torch.float64).index_add_(0, triples[:, 0], one)
    pairs = torch.zeros(classes * classes, dtype=torch.float64)
    pairs.index_add_(0, triples[:, 0] * classes + triples[:, 1], one)
    ordered = triples.unique(dim=0, return_counts=True)[1].double() / len(triples)
    different, times = triples.sort(dim=1).values.unique(dim=0, return_counts=True)
    size = max(1, _BLOCK // classes)
    blocks = [
        _block(labels.numpy(), weights.double().numpy() / len(triples), classes)
        for labels, weights in zip(different.split(size), times.split(size), strict=True)
    ]
    return _Counts(single, pairs.view(classes, classes), blocks, float(ordered.square().sum()))


def _block(labels: NDArray[np.int64], weights: NDArray[np.float64], classes: int) -> _Block:
    from scipy.sparse import csr_matrix

    each, ones = np.arange(len(labels)), np.ones(len(labels))
    positions = [csr_matrix((ones, (labels[:, place], each)), shape=(classes, len(labels))) for place in range(3)]
    return _Block(labels, weights[:, None], positions)


def fit_transition(triples: Tensor, *, classes: int, progress: Progress) -> tuple[Tensor, Tensor]:
    """Returns T, (K, K), whose rows sum to 1, and p, (K,), fitted to the labels of images and their neighbours.

    Args:
        triples: Labels of images and of their two nearest neighbours, (n, 3), values 0 to K-1, n at least 1.
        classes: K, at least 2.
        progress: Receives progress.
    """
    counts = _count(triples, classes)
    free = (5 * torch.eye(classes, dtype=torch.float64) - 1).requires_grad_()
    share = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([free, share], lr=LEARNING_RATE)
    best, solution = float("inf"), (free, share)
    with progress.task("estimating the noise", total=STEPS, unit="steps", brief=True) as advance:
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
            loss = _distance(free.softmax(dim=1), share.softmax(dim=0), counts)
            if loss.item() < best:
                best, solution = loss.item(), (free.detach().clone(), share.detach().clone())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            advance(1)
    return solution[0].softmax(dim=1).detach(), solution[1].softmax(dim=0).detach()


def _distance(transition: Tensor, prior: Tensor, counts: _Counts) -> Tensor:
    """Returns `|c1 - ĉ1| + |c2 - ĉ2| + |c3 - ĉ3|`."""
    first = (prior @ transition - counts.single).norm()
    second = ((transition * prior[:, None]).T @ transition - counts.pairs).norm()
    length = prior @ (transition @ transition.T) ** 3 @ prior
    third = length - 2 * _overlap(transition, prior, counts) + counts.squared
    return torch.stack([first, second, third.clamp(min=1e-24).sqrt()]).sum()


def _overlap(transition: Tensor, prior: Tensor, counts: _Counts) -> Tensor:
    """Returns `Σ_abc c3_abc ĉ3_abc` with a gradient derived by hand, computed in blocks.

    It uses numpy and scipy, which start no threads for the many small operations.
    """
    columns, shares = np.ascontiguousarray(transition.detach().numpy().T), prior.detach().numpy()
    by_columns, by_shares = np.zeros_like(columns), np.zeros_like(shares)
    for labels, weights, (in_a, in_b, in_c) in counts.triples:
        a, b, c = (columns[labels[:, place]] for place in range(3))
        product = a * b
        by_shares += (weights * product * c).sum(axis=0)
        scale = weights * shares
        by_columns += in_c @ (product * scale)
        c *= scale
        by_columns += in_a @ (b * c) + in_b @ (a * c)
    slopes, slope = torch.from_numpy(by_columns.T), torch.from_numpy(by_shares)
    value = prior.detach() @ slope
    return value + ((transition - transition.detach()) * slopes).sum() + (prior - prior.detach()) @ slope


def one_against_rest(triples: Tensor, *, classes: int) -> NDArray[np.float64]:
    """Returns P(true class is j | label is j) per class, (K,), with all other classes merged into one.

    Let two true classes with shares p and 1 - p get the label j with probabilities a and b. The frequencies m_1, m_2
    and m_3 of triples whose first one, two or three labels are j are then moments of a distribution on a and b. These
    are the roots of `x² - s x + t` with `s = (m_3 - m_1 m_2) / (m_2 - m_1²)` and `t = s m_1 - m_2`. The result is
    `p a / m_1` with `p = (m_1 - b) / (a - b)`, which is exact if all other classes get the label j equally often.

    Args:
        triples: As in :func:`share_right`.
        classes: K.
    """
    count, given = len(triples), triples[:, 0]
    two = given == triples[:, 1]
    three = two & (given == triples[:, 2])
    m_1, m_2, m_3 = (
        labels.bincount(minlength=classes).double().numpy() / count for labels in (given, given[two], given[three])
    )
    more = m_2 - m_1**2  # 0 if neighbours agree only by chance, and then nothing can be estimated
    identified = more > 1e-12
    s = np.divide(m_3 - m_1 * m_2, more, out=np.zeros(classes), where=identified)
    root = np.sqrt(np.maximum(s**2 / 4 - (s * m_1 - m_2), 0))
    a, b = np.minimum(s / 2 + root, 1), np.maximum(s / 2 - root, 0)
    identified &= a - b > 1e-12
    p = np.divide(m_1 - b, a - b, out=np.zeros(classes), where=identified)
    return np.where(identified, np.divide(p * a, m_1, out=np.ones(classes), where=m_1 > 0).clip(0, 1), 1.0)
