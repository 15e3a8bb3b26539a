"""How given labels come from the true classes, and what that says of each label.

    P(y | x) = Σ_k p_k(x) T_ky,    T_kk = 1 - ε_k,    T_ky = ε_k R_ky,

with a rate of wrong labels ε_k for each class and a confusion R. The posterior that y is the true class is

    p_clean = p_y T_yy / Σ_k p_k T_ky.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Noise:
    """How given labels come from the true classes.

    Attributes:
        rates: ε, (K,), between 0 and 1: share of wrong labels among the images of each true class.
        confusion: R, (K, K), rows sum to 1, zero on the diagonal; None stands for all wrong classes alike.
        rate: Share of wrong labels in all, between 0 and 1.
    """

    rates: Tensor
    confusion: Tensor | None
    rate: float


@dataclass(frozen=True, eq=False)
class JointModel:
    """Class probabilities from several kinds of evidence, and how the given labels come from the true classes.

    Attributes:
        weights: (P,): how much each kind of evidence counts.
        bias: (K,).
        noise: Rates of wrong labels and confusion.
    """

    weights: Tensor
    bias: Tensor
    noise: Noise

    def logits(self, parts: Tensor) -> Tensor:
        """Returns log p_k(x) but for a constant, (n, K), from logits (P, n, K) of each kind of evidence."""
        return torch.einsum("p,pnk->nk", self.weights, parts) + self.bias

    def posterior(self, parts: Tensor, labels: Tensor) -> Posterior:
        """Judges n labels from logits (P, n, K) of each kind of evidence; `labels` are the given ones, (n,)."""
        probability = self.logits(parts).softmax(dim=1)
        mine, others = explain(probability, labels, self.noise)
        instead, likeliest = others.argmax(1), probability.argmax(1)
        confidence = probability.gather(1, torch.stack([instead, likeliest], dim=1))
        return Posterior(clean_share(mine, others), instead, confidence[:, 0], likeliest, confidence[:, 1])


class Posterior(NamedTuple):
    """Judgements of n labels, each field a tensor or array of shape (n,).

    Attributes:
        clean: p_clean, between 0 and 1.
        instead: The class that explains the label best if it is wrong.
        instead_confidence: Its probability p_k(x).
        likeliest: The most likely class, whatever the given label is.
        likeliest_confidence: Its probability p_k(x).
    """

    clean: Any
    instead: Any
    instead_confidence: Any
    likeliest: Any
    likeliest_confidence: Any


def explain(probability: Tensor, labels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Splits P(y | x) into the parts of the true classes.

    Args:
        probability: p_k(x), (n, K).
        labels: y, (n,).
        noise: ε and R.

    Returns:
        The part of the given class, p_y T_yy, (n,), and those of the others, p_k T_ky, (n, K), zero at k = y.
    """
    spread = 1 / max(1, probability.shape[1] - 1) if noise.confusion is None else noise.confusion.T[labels]
    mine = (probability * (1 - noise.rates)).gather(1, labels[:, None])[:, 0]
    others = probability * noise.rates * spread
    return mine, others.scatter(1, labels[:, None], 0.0)


def clean_share(mine: Tensor, others: Tensor) -> Tensor:
    """Returns p_clean, (n,), of what :func:`explain` gives: the part of the given class in P(y | x)."""
    return mine / (mine + others.sum(dim=1)).clamp(min=1e-30)
