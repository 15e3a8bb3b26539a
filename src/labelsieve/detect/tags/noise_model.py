"""A noise model of tags: the shares of wrong and missing tags, and the posterior of each pair.

A share t_k of the images has the tag of class k. A share c_k of these tags is wrong, and a share o_k of the images that
show the class lacks the tag. Therefore a share π_k = t_k (1 - c_k) / (1 - o_k) of the images shows the class, and a
share a_k = c_k t_k / (1 - π_k) of the others is tagged. If p is the probability that an image shows the class,

    P(tagged) = (1 - o_k) p + a_k (1 - p).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress
from labelsieve.detect.chunks import chunks
from labelsieve.detect.tags.commission import allowed
from labelsieve.detect.tags.evidence import Kind

# Maximum number of logits for the fit of weights and rates (64 MiB): more do not improve the few parameters.
MAX_LOGITS = 2**24
# Standard deviation of the prior of the weights, for logits of unit spread: about the weight of perfect evidence.
WEIGHT_SPREAD = 5.0
# Prior of the common rates of missing and of wrong tags: centre, and standard deviation of their log-odds. Annotators
# overlook more classes than they invent.
FIRST_RATES, RATE_SPREAD = (0.2, 0.05), 1.5
# Standard deviations of the priors of each class, around the common log-odds of its rates and the log of its slope.
CLASS_SPREAD, SLOPE_SPREAD = 0.25, 0.3
# Minimum share of the deviance of the tags that the evidence explains, and factor for the fitted rates below it: such a
# fit treats as noise whatever its evidence does not see, and may consider a third of all right tags wrong.
MIN_EXPLAINED, UNEXPLAINED = 0.15, 0.05
HARDLY_FLAGGED = "that hardly any are flagged; another model may know these images"
ITERATIONS = 100
EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class TagNoise:
    """Shares of wrong and missing tags.

    Attributes:
        frequency: t, (K,): share of the images that have the tag.
        omission: o, (K,), between 0 and 1: share of the images with the class that lack the tag.
        commission: c, (K,), between 0 and 1: share of the tags that are wrong.
    """

    frequency: Tensor
    omission: Tensor
    commission: Tensor

    @property
    def prior(self) -> Tensor:
        """π, (K,): share of the images that show the class."""
        return (self.frequency * (1 - self.commission) / (1 - self.omission)).clamp(EPSILON, 1 - EPSILON)

    @property
    def added(self) -> Tensor:
        """a, (K,): share of the images without the class that have the tag."""
        return (self.commission * self.frequency / (1 - self.prior)).clamp(EPSILON, 1 - EPSILON)

    def scaled(self, commission: float, omission: float) -> TagNoise:
        """Returns the noise with each kind of rate multiplied by a factor."""
        return TagNoise(self.frequency, self.omission * omission, self.commission * commission)

    def tagged(self, probability: Tensor) -> Tensor:
        """Returns P(tagged), (n, K), from the probability that the image shows the class, (n, K)."""
        return (1 - self.omission) * probability + self.added * (1 - probability)

    def posterior(self, probability: Tensor, given: Tensor) -> Tensor:
        """Returns the posterior that the image shows the class, (n, K), given whether it has the tag."""
        tagged = self.tagged(probability)
        with_tag = (1 - self.omission) * probability / tagged.clamp(min=EPSILON)
        without = self.omission * probability / (1 - tagged).clamp(min=EPSILON)
        return torch.where(given, with_tag, without).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class TagNoiseModel:
    """Class probabilities from several kinds of evidence, and a noise model of the given tags.

    Attributes:
        kinds: The P kinds of evidence.
        weights: (P,), at least 0: weights of the logits of each kind.
        slope: (K,), above 0: factor of the weighted evidence per class.
        bias: (K,): added to the log-odds of the prior.
        noise: Rates of wrong and missing tags.
        telling: Share of the deviance of the tags that the evidence explains (McFadden, 1974), at most 1.
    """

    kinds: Sequence[Kind]
    weights: Tensor
    slope: Tensor
    bias: Tensor
    noise: TagNoise
    telling: float = 1.0

    def estimates(self) -> dict[str, Any]:
        """Returns rates and a note for :func:`labelsieve.detect.tags.scores.tag_scores`."""
        if self.telling < MIN_EXPLAINED:
            return {"notes": (f"the evidence tells little of the tags ({self.telling:.1%}), so {HARDLY_FLAGGED}",)}
        return {"omission": self.noise.omission.numpy(), "commission": self.noise.commission.numpy()}

    @torch.no_grad()
    def probability(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns the probability of each class from the evidence alone, (m, K), for the images at positions (m,)."""
        logits = torch.zeros(len(positions), len(self.bias))
        for weight, kind in zip(self.weights.tolist(), self.kinds, strict=True):
            if weight:  # many weights are 0, and each kind takes time
                logits += weight * kind(positions)
        return torch.sigmoid(logits * self.slope + self.bias + self.noise.prior.logit())

    def posterior(self, given: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Returns the posterior of each class in all n images from the evidence and the given tags, (n, K)."""
        posterior = np.empty(given.shape, dtype=np.float32)
        for part in chunks(np.arange(len(given))):
            posterior[part] = self.noise.posterior(self.probability(part), torch.from_numpy(given[part]))
        return posterior


def fit_pairs(
    kinds: Sequence[Kind],
    given: NDArray[np.bool_],
    frequency: Tensor,
    *,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> TagNoiseModel:
    """Fits the weights and rates that make the given tags most likely, under priors that keep them finite.

    The rates are the limits of the share of tagged images for the surest evidence: 1 - o among images that surely show
    a class, and a among those that surely do not. This requires out-of-fold evidence.

    Args:
        kinds: The P kinds of evidence.
        given: Given tags, (n, K).
        frequency: t, (K,), of all images, neither 0 nor 1.
        generator: Draws the images to fit to if there are too many.
        progress: Receives progress.
    """
    sample = _Sample(kinds, given, generator)
    with (progress or Progress()).task("weighing the evidence", total=1, unit="fits", brief=True) as advance:
        fitted = _likeliest(sample, frequency, None, advance)
        telling = fitted.telling(sample)
        lowered = (
            _lowered(fitted, sample) if telling >= MIN_EXPLAINED else fitted.noise.scaled(UNEXPLAINED, UNEXPLAINED)
        )
        fitted = _likeliest(sample, frequency, lowered, advance)
        advance(1)
    return TagNoiseModel(kinds, fitted.weights / sample.spread, fitted.slope, fitted.bias, fitted.noise, telling)


def _lowered(fitted: _Tried, sample: _Sample) -> TagNoise:
    """Returns the noise of a fit, with rates of wrong tags limited to what the surest pairs allow."""
    parts = [(fitted.tagged(logits), tags) for logits, tags in sample]
    noise, (tagged, tags) = fitted.noise, (torch.cat(each) for each in zip(*parts, strict=True))
    return noise.scaled(allowed(tagged, tags, frequency=noise.frequency, added=noise.added), 1.0)


def _likeliest(sample: _Sample, frequency: Tensor, noise: TagNoise | None, advance: Callable[[int], None]) -> _Tried:
    """Returns the parameters that make the tags of a sample most likely, with fixed noise, or fitted noise if None."""
    from scipy.optimize import minimize

    shape = _Shape(len(sample.spread), len(frequency))

    def loss_and_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        advance(0)
        now = torch.from_numpy(values).float().requires_grad_()
        drawn = shape.drawn(now)
        total, (slope,) = float(drawn.detach()), torch.autograd.grad(drawn, now)
        for logits, tags in sample:
            loss = shape.model(now, frequency, noise).loss(logits, tags)
            slope = slope + torch.autograd.grad(loss, now)[0]
            total += float(loss.detach())
        return total / sample.count, slope.double().numpy() / sample.count

    options = {"maxiter": ITERATIONS}
    best = minimize(loss_and_slope, shape.start, jac=True, method="L-BFGS-B", bounds=shape.bounds, options=options)
    return shape.model(torch.from_numpy(best.x).float(), frequency, noise)


class _Sample:
    """The images to fit to: logits of each kind, scaled to unit spread, and tags, in chunks."""

    def __init__(self, kinds: Sequence[Kind], given: NDArray[np.bool_], generator: torch.Generator) -> None:
        maximum = max(1, MAX_LOGITS // (len(kinds) * given.shape[1]))
        rows = np.sort(torch.randperm(len(given), generator=generator)[:maximum].numpy())
        self.count = len(rows)
        self._held = [(torch.stack([kind(part) for kind in kinds]), given[part]) for part in chunks(rows)]
        squared_sum = sum(logits.square().sum(dim=(1, 2), dtype=torch.float64) for logits, _ in self._held)
        spread = (torch.as_tensor(squared_sum) / (len(rows) * given.shape[1])).sqrt().float()
        self.spread = torch.where(spread > 0, spread, 1.0)
        for logits, _ in self._held:
            logits /= self.spread[:, None, None]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields logits (P, m, K) and tags (m, K)."""
        for logits, tags in self._held:
            yield logits, torch.from_numpy(tags)


class _Tried(NamedTuple):
    weights: Tensor
    slope: Tensor
    bias: Tensor
    noise: TagNoise

    def tagged(self, logits: Tensor) -> Tensor:
        joined = torch.einsum("p,pnk->nk", self.weights, logits) * self.slope
        return self.noise.tagged(torch.sigmoid(joined + self.bias + self.noise.prior.logit()))

    @torch.no_grad()
    def telling(self, sample: _Sample) -> float:
        """Returns the share of the deviance of the tags that the evidence explains."""
        loss = sum(float(self.loss(logits, tags)) for logits, tags in sample) / sample.count
        frequency = self.noise.frequency.double()
        return 1 - loss / float(
            -torch.xlogy(frequency, frequency).sum() - torch.xlogy(1 - frequency, 1 - frequency).sum()
        )

    def loss(self, logits: Tensor, tags: Tensor) -> Tensor:
        tagged = self.tagged(logits).clamp(EPSILON, 1 - EPSILON)
        return -torch.where(tags, tagged, 1 - tagged).log().sum()


class _Shape:
    """The layout of weights, common rates and parameters of each class in one vector."""

    def __init__(self, count: int, classes: int) -> None:
        self.sizes, self.classes = [count, 2, 4 * classes], classes
        free = 2 + 4 * classes
        self.start = np.concatenate([np.full(count, 1 / count), np.zeros(free)])
        # bounds instead of a positive transformation, whose gradient would vanish near a weight of 0
        self.bounds = [(0.0, None)] * count + [(None, None)] * free

    def model(self, values: Tensor, frequency: Tensor, noise: TagNoise | None) -> _Tried:
        weights, common, of_class = values.split(self.sizes)
        bias, steep, *rate_offsets = of_class.view(4, self.classes)
        rates = torch.sigmoid(torch.tensor(FIRST_RATES).logit()[:, None] + common[:, None] + torch.stack(rate_offsets))
        return _Tried(weights, steep.exp(), bias, noise or TagNoise(frequency.float(), *rates))

    def drawn(self, values: Tensor) -> Tensor:
        """Returns the negative log-prior up to a constant."""
        weights, common, of_class = values.split(self.sizes)
        bias, steep, *rate_offsets = of_class.view(4, self.classes)
        offset_penalty = (torch.stack(rate_offsets) / CLASS_SPREAD).square().sum()
        spread = (weights / WEIGHT_SPREAD).square().sum() + bias.square().sum() + (common / RATE_SPREAD).square().sum()
        total: Tensor = spread + (steep / SLOPE_SPREAD).square().sum() + offset_penalty
        return total / 2
