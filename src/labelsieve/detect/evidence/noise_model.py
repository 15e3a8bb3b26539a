"""Models of label noise, and the posterior of each given label under them.

A noise model splits P(y | x), the probability of the given label y, into one term per true class k. The term of k = y
divided by P(y | x) is the posterior that the label is right, p_clean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from labelsieve.detect.chunks import CHUNK

# Initial noise rate if it is unknown, and minimum initial noise rate.
FIRST_RATE, MIN_RATE = 0.2, 0.01
# Pseudo-images at the common rate, added to each class or group of images.
PRIOR_IMAGES = 10.0
# Pseudo-labels distributed as the prior confusion, added to the wrong labels of each class.
PRIOR_LABELS = 10.0
# Maximum number of groups of images by confidence, for instance-dependent noise.
PARTS = 10
# Added to the probability of each wrong class, so that instance-dependent noise excludes none.
SMALL = 1e-7
# Minimum value of a denominator, or of a probability in a logarithm.
EPSILON = 1e-30
# Minimum expected number of wrong labels: without noise, all labels would be equally likely right.
MIN_WRONG = 0.5


class Noise(ABC):
    """A model of how given labels arise from the true classes.

    Attributes:
        rate: Share of wrong labels, between 0 and 1.
        rounds: Rounds of expectation-maximisation from the start, and from a fit to sharper or blurrier probabilities;
            the latter is 0 if such a warm start may lead to another solution.
    """

    rate: float
    rounds: ClassVar[tuple[int, int]]

    @abstractmethod
    def explain(self, probability: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Splits P(y | x) into one term per true class.

        Args:
            probability: p_k(x), (n, K).
            labels: y, (n,).

        Returns:
            The term of the given class, (n,), and those of the others, (n, K), zero at k = y.
        """

    @abstractmethod
    def learned(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """Returns the noise after a round of expectation-maximisation over probabilities (m, K) and labels (m,)."""


@dataclass(frozen=True, eq=False)
class TransitionNoise(Noise):
    """Wrong labels that depend only on the true class: P(y | x) = Σ_k p_k(x) T_ky, T_kk = 1 - ε_k.

    Attributes:
        rate: Share of wrong labels, between 0 and 1.
        rates: ε, (K,), between 0 and 1: share of wrong labels per true class.
    """

    rounds = (6, 3)
    rate: float
    rates: Tensor

    def explain(self, probability: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Noise.explain`: p_y T_yy and p_k T_ky."""
        of_given = (probability * (1 - self.rates)).gather(1, labels[:, None])[:, 0]
        others = probability * self.rates * self._confusion_with(labels)
        return of_given, others.scatter(1, labels[:, None], 0.0)

    @abstractmethod
    def _confusion_with(self, labels: Tensor) -> Tensor | float:
        """Returns the probability that a wrong label of each true class is the given one, (n, K), or one number."""

    def _learned_rates(
        self, chunks: Iterable[tuple[Tensor, Tensor]], *, counts: Tensor | None = None
    ) -> tuple[float, Tensor]:
        """Returns the next `rate` and `rates`, and adds to `counts`, (K, K), by given and true class, if passed."""
        right, wrong = torch.zeros_like(self.rates), torch.zeros_like(self.rates)  # by true class
        for probability, labels in chunks:
            of_given, others = self.explain(probability, labels)
            total = (of_given + others.sum(dim=1)).clamp(min=EPSILON)
            others /= total[:, None]
            right.index_add_(0, labels, of_given / total)
            wrong += others.sum(dim=0)
            if counts is not None:
                counts.index_add_(0, labels, others)
        rate = float(wrong.sum().clamp(min=MIN_WRONG) / (wrong.sum() + right.sum()).clamp(min=MIN_WRONG))
        return rate, (wrong + PRIOR_IMAGES * rate) / (right + wrong + PRIOR_IMAGES)


@dataclass(frozen=True, eq=False)
class SymmetricNoise(TransitionNoise):
    """Wrong labels that are equally likely of any other class: T_ky = ε_k / (K - 1)."""

    @classmethod
    def of(cls, classes: int, rate: float) -> SymmetricNoise:
        """Returns noise with the same rate, between 0 and 1, for all K classes."""
        return SymmetricNoise(rate, torch.full((classes,), rate))

    def _confusion_with(self, labels: Tensor) -> float:
        return 1 / max(1, len(self.rates) - 1)

    def learned(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> SymmetricNoise:
        """See :meth:`Noise.learned` (Dawid and Skene, 1979, for one annotator)."""
        return SymmetricNoise(*self._learned_rates(chunks))


@dataclass(frozen=True, eq=False)
class ClassNoise(TransitionNoise):
    """Class-dependent noise, which includes pair noise: T_ky = ε_k R_ky.

    Attributes:
        confusion: R, (K, K), rows sum to 1, zero on the diagonal.
        prior: Prior of R, towards which each class is shrunk; see :func:`prior_confusion`.
    """

    confusion: Tensor
    prior: Tensor

    @classmethod
    def start(cls, prior: Tensor, rate: float) -> ClassNoise:
        """Returns noise with the prior as its confusion and the same rate, between 0 and 1, for all classes."""
        return ClassNoise(rate, torch.full((len(prior),), rate), prior, prior)

    def _confusion_with(self, labels: Tensor) -> Tensor:
        return self.confusion.T[labels]

    def partners(self) -> Tensor:
        """Returns the most frequent wrong label of each true class, (K,)."""
        return self.confusion.argmax(dim=1)

    def learned(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> ClassNoise:
        """See :meth:`Noise.learned` (Dawid and Skene, 1979, for one annotator)."""
        counts = torch.zeros(self.confusion.shape)
        rates = self._learned_rates(chunks, counts=counts)
        drawn = counts.T + PRIOR_LABELS * self.prior
        return ClassNoise(*rates, drawn / drawn.sum(dim=1, keepdim=True), self.prior)


@dataclass(frozen=True, eq=False)
class InstanceNoise(Noise):
    """Instance-dependent noise: wrong labels are classes that the image resembles, and are more likely if ambiguous.

        P(y | x) = (1 - ε(x)) p_y + ε(x) Σ_{k≠y} p_k [π p_y / (1 - p_k) + (1 - π) / (K - 1)]

    A share π of the wrong labels follows the class probability. ε(x) does not rise with max_k p_k.

    Attributes:
        rate: Share of wrong labels, between 0 and 1.
        rates: ε by group of images, (B,), the group with the smallest max_k p_k first.
        edges: Values of max_k p_k between the groups, (B - 1,), ascending.
        alike: π, between 0 and 1: share of wrong labels that follow the class probability; others are of any class.
    """

    rounds = (8, 0)
    rate: float
    rates: Tensor
    edges: Tensor
    alike: float

    @classmethod
    def flat(cls, rate: float) -> Self:
        """Returns noise with the same rate for all images and π = 0.5."""
        return cls(rate, torch.tensor([rate]), torch.empty(0), 0.5)

    def explain(self, probability: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Noise.explain`."""
        of_given, alike, any_class = self._parts(probability, labels)
        return of_given, alike + any_class

    def _parts(self, probability: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        confidence, at = probability.max(dim=1, keepdim=True)
        rate = self.rates[torch.bucketize(confidence.detach(), self.edges)]
        column, others = labels[:, None], max(1, probability.shape[1] - 1)
        of_given = probability.gather(1, column)
        # for the most likely class, 1 - p_k is the sum of the others: the subtraction would lose precision
        left = (1 - probability).scatter(1, at, probability.scatter(1, at, 0.0).sum(dim=1, keepdim=True))
        alike = rate * self.alike * probability * (of_given + SMALL) / (left + others * SMALL)
        any_class = rate * (1 - self.alike) * probability / others
        return ((1 - rate) * of_given)[:, 0], alike.scatter(1, column, 0.0), any_class.scatter(1, column, 0.0)

    def learned(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """See :meth:`Noise.learned`; the groups are of equal size, and ε is isotonic over them."""
        parts = []
        for probability, labels in chunks:
            of_given, alike, any_class = self._parts(probability, labels)
            both = torch.stack([alike.sum(dim=1), any_class.sum(dim=1)])
            parts.append(
                torch.cat([probability.amax(dim=1)[None], both / (of_given + both.sum(dim=0)).clamp(min=EPSILON)])
            )
        confidence, alike, any_class = torch.cat(parts, dim=1)
        wrong = (alike + any_class).clamp(min=MIN_WRONG / len(alike))
        share = float(alike.sum() / wrong.sum().clamp(min=EPSILON))
        return type(self)(float(wrong.mean()), *_by_part(confidence, wrong), share)


def _by_part(confidence: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the share of wrong labels per group of images, which does not rise, and the edges of the groups."""
    parts = max(1, min(PARTS, int(len(confidence) / PRIOR_IMAGES)))
    edges = confidence.quantile(torch.arange(1, parts) / parts)
    part = torch.bucketize(confidence, edges)
    count = torch.bincount(part, minlength=parts) + PRIOR_IMAGES
    rates = (torch.zeros(parts).index_add_(0, part, wrong) + PRIOR_IMAGES * wrong.mean()) / count
    return _falling(rates, count), edges


def _falling(values: Tensor, weights: Tensor) -> Tensor:
    from sklearn.isotonic import isotonic_regression

    fitted = isotonic_regression(values.double().numpy(), sample_weight=weights.double().numpy(), increasing=False)
    return torch.from_numpy(fitted.copy()).float()


def even_confusion(classes: int) -> Tensor:
    """Returns R, (K, K), with the same probability for all wrong classes."""
    return (1 - torch.eye(classes)) / max(1, classes - 1)


def prior_confusion(joined: Joined) -> Tensor:
    """Returns the prior of R, (K, K): the mean of an even confusion and of how often two classes are likely together.

    Similar classes are confused most, and a class with few images provides little more information.
    """
    even = even_confusion(joined.logits.shape[1])
    together = torch.zeros_like(even)
    for probability, _ in joined.chunks():
        together += probability.T @ probability
    together = together.fill_diagonal_(0.0) + EPSILON * even
    return (even + together / together.sum(dim=1, keepdim=True)) / 2


@dataclass(frozen=True, eq=False)
class JointModel:
    """Class probabilities from several kinds of evidence, and a model of the noise of the given labels.

    Attributes:
        weights: Weight of each kind of evidence, (P,).
        bias: (K,).
        noise: The noise model.
    """

    weights: Tensor
    bias: Tensor
    noise: Noise

    def logits(self, parts: Tensor) -> Tensor:
        """Returns log p_k(x) up to a constant, (n, K), from logits (P, n, K) of each kind of evidence."""
        return torch.einsum("p,pnk->nk", self.weights, parts) + self.bias

    def posterior(self, parts: Tensor, labels: Tensor) -> Posterior:
        """Returns the posteriors of given labels, (n,), from logits (P, n, K) of each kind of evidence."""
        probability = self.logits(parts).softmax(dim=1)
        of_given, others = self.noise.explain(probability, labels)
        clean, instead, likeliest = clean_share(of_given, others), others.max(dim=1), probability.max(dim=1)
        share = instead.values / others.sum(dim=1).clamp(min=EPSILON)
        return Posterior(clean, instead.indices, (1 - clean) * share, likeliest.indices, likeliest.values)


class Posterior(NamedTuple):
    """Posteriors of n labels, each field a tensor or array of shape (n,).

    Attributes:
        clean: p_clean, between 0 and 1.
        instead: Most likely true class if the label is wrong.
        instead_confidence: Probability of that class given the image and the label; at most 1 - p_clean.
        likeliest: Most likely class given the image, independent of the given label.
        likeliest_confidence: Its probability: p_k(x) or, with several annotators, given all of their labels as well.
    """

    clean: Any
    instead: Any
    instead_confidence: Any
    likeliest: Any
    likeliest_confidence: Any


def clean_share(of_given: Tensor, others: Tensor) -> Tensor:
    """Returns p_clean, (n,), from the result of :meth:`Noise.explain`: the share of the given class in P(y | x)."""
    return of_given / (of_given + others.sum(dim=1)).clamp(min=EPSILON)


class AssumedNoise(Enum):
    """Kinds of noise: wrong labels of any class, of one partner per class, by true class, or by image."""

    SYMMETRIC = auto()
    PAIR = auto()
    CLASS_DEPENDENT = auto()
    INSTANCE_DEPENDENT = auto()

    def noise(self, joined: Joined, rate: float | None) -> Noise:
        """Returns initial noise of this kind with a given rate, for the classes of joined logits."""
        if self is AssumedNoise.INSTANCE_DEPENDENT:
            return InstanceNoise.flat(start_rate(rate))
        if self is AssumedNoise.SYMMETRIC:
            return SymmetricNoise.of(joined.logits.shape[1], start_rate(rate))
        return ClassNoise.start(prior_confusion(joined), start_rate(rate))


def start_rate(rate: float | None) -> float:
    """Returns the initial rate, which is above 0 because expectation-maximisation cannot leave 0."""
    return FIRST_RATE if rate is None else max(rate, MIN_RATE)


class Joined(NamedTuple):
    """Rows that the noise is fitted to: joined logits (n, K) and given labels (n,)."""

    logits: Tensor
    labels: Tensor

    def sharpened(self, scale: float) -> Joined:
        """Returns the same rows with scaled logits."""
        return Joined(self.logits * scale, self.labels)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields probabilities (m, K) and labels (m,)."""
        for logits, labels in zip(self.logits.split(CHUNK), self.labels.split(CHUNK), strict=True):
            yield logits.softmax(dim=1), labels
