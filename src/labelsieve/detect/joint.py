"""One clean probability from several kinds of evidence, calibrated without any truth.

Each kind of evidence gives class logits. They are weighted and added to a class probability `p_k(x)`, and the given
label y is explained as

    P(y | x) = (1 - ε) p_y(x) + ε Σ_{k≠y} p_k(x) R_ky,

the image's own class with probability 1 - ε, else a wrong label drawn from row k of the confusion R. The weights, a bias
for each class and the noise rate ε maximise the likelihood of the given labels; R is re-estimated in turn
(expectation-maximisation, as Dawid and Skene, 1979, do for one annotator). The posterior that y is the true class,

    p_clean = (1 - ε) p_y / P(y | x),

weighs the evidence for the given label against that of the other classes at the rate of noise that the data show. Logits
that know nothing of the label get weight zero, and clean data get an ε near zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

Evidence = Callable[[NDArray[np.int64]], Tensor]
"""Takes n row numbers and returns logits (P, n, K): P kinds of evidence."""

CHUNK = 4096
# The few parameters do not get better with more rows than this.
MOST_ROWS = 50_000
ROUNDS = 4
# A confusion of more classes than this would take more memory than it is worth, and have too few examples for each cell.
MOST_CLASSES_WITH_CONFUSION = 2_000


@dataclass(frozen=True, eq=False)
class JointModel:
    """What :func:`fit_joint` found.

    Attributes:
        weights: (P,): how much each kind of evidence counts.
        bias: (K,).
        noise_rate: ε, between 0 and 1: the estimated share of wrong labels.
        confusion: R, (K, K), rows sum to 1, zero on the diagonal; None stands for all wrong classes alike.
    """

    weights: Tensor
    bias: Tensor
    noise_rate: float
    confusion: Tensor | None

    def posterior(self, parts: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judges n labels.

        Args:
            parts: (P, n, K), logits of each kind of evidence.
            labels: (n,), given labels.

        Returns:
            p_clean (n,), the most likely class (n,) and its probability p_k(x) (n,). Where p_clean is at most one half,
            the class is the most likely one among the others.
        """
        log_p = log_softmax(torch.einsum("p,pnk->nk", self.weights, parts) + self.bias, dim=1)
        mine, others = _explain(log_p, labels, self.confusion)
        right, wrong = (1 - self.noise_rate) * mine, self.noise_rate * others.sum(dim=1)
        clean = right / (right + wrong).clamp(min=1e-30)
        probability = log_p.exp()
        if log_p.shape[1] > 1:
            instead = others.argmax(dim=1)
            predicted = torch.where(clean <= 0.5, instead, probability.argmax(dim=1))
        else:
            predicted = labels
        return clean, predicted, probability.gather(1, predicted[:, None])[:, 0]


def _explain(log_p: Tensor, labels: Tensor, confusion: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns p_y, (n,), and p_k R_ky with zero at k = y, (n, K)."""
    probability = log_p.exp()
    mine = probability.gather(1, labels[:, None])[:, 0]
    if confusion is None:
        others = probability / max(1, log_p.shape[1] - 1)
    else:
        others = probability * confusion.T[labels]
    return mine, others.scatter(1, labels[:, None], 0.0)


def fit_joint(
    evidence: Evidence,
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    classes: int,
    start: tuple[float, ...],
    generator: torch.Generator,
) -> JointModel:
    """Fits weights, bias, noise rate and confusion to the given labels.

    Logits are asked for in chunks and never kept, so memory does not grow with the number of rows.

    Args:
        evidence: Gives logits (P, n, K) for n rows; they must not depend on the own label of a row.
        labels: Shape (N,).
        rows: Rows to use; of more than `MOST_ROWS` a random part is taken.
        classes: K.
        start: P weights to begin with.
        generator: Chooses the part.
    """
    if len(rows) > MOST_ROWS:
        rows = np.sort(rows[torch.randperm(len(rows), generator=generator)[:MOST_ROWS].numpy()])
    weights = torch.tensor(start, dtype=torch.float32).requires_grad_()
    bias = torch.zeros(classes).requires_grad_()
    odds = torch.tensor(-1.5).requires_grad_()  # ε of 18 %, amid what real data have
    given, confusion = torch.from_numpy(labels), None
    for _ in range(ROUNDS):
        _maximise(evidence, given, rows, weights, bias, odds, confusion)
        model = JointModel(weights.detach(), bias.detach(), float(torch.sigmoid(odds)), confusion)
        if classes > MOST_CLASSES_WITH_CONFUSION or classes < 3:
            break
        confusion = _confusion(evidence, given, rows, model, classes)
    return model


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def _maximise(
    evidence: Evidence,
    labels: Tensor,
    rows: NDArray[np.int64],
    weights: Tensor,
    bias: Tensor,
    odds: Tensor,
    confusion: Tensor | None,
) -> None:
    optimizer = torch.optim.LBFGS([weights, bias, odds], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        # a standard normal prior on the biases keeps classes without images where they are
        total = 0.5 * bias.square().sum() / len(rows)
        total.backward()
        value = total.detach()
        for part in _chunks(rows):
            log_p = log_softmax(torch.einsum("p,pnk->nk", weights, evidence(part)) + bias, dim=1)
            mine, others = _explain(log_p, labels[torch.from_numpy(part)], confusion)
            rate = torch.sigmoid(odds)
            loss = -((1 - rate) * mine + rate * others.sum(dim=1)).clamp(min=1e-12).log().sum() / len(rows)
            loss.backward()
            value = value + loss.detach()
        return value

    optimizer.step(closure)


@torch.no_grad()
def _confusion(
    evidence: Evidence, labels: Tensor, rows: NDArray[np.int64], model: JointModel, classes: int
) -> Tensor:
    """Re-estimates R from the posterior of the true class, with one pseudo-count in each cell (Laplace)."""
    counts = torch.zeros(classes, classes)
    for part in _chunks(rows):
        given = labels[torch.from_numpy(part)]
        log_p = log_softmax(torch.einsum("p,pnk->nk", model.weights, evidence(part)) + model.bias, dim=1)
        mine, others = _explain(log_p, given, model.confusion)
        whole = (1 - model.noise_rate) * mine + model.noise_rate * others.sum(dim=1)
        counts.index_add_(0, given, model.noise_rate * others / whole.clamp(min=1e-30)[:, None])
    smoothed = counts.T + 1.0 - torch.eye(classes)  # rows: true class, columns: given label
    return smoothed / smoothed.sum(dim=1, keepdim=True)
