"""The fit of joint evidence: the weights of the evidence and the kind of noise.

The likelihood of the given labels cannot distinguish a blurred class probability from a confused annotator. It
determines only the relative weights of the kinds of evidence (:func:`_likeliest`). The sharpness of their sum follows
from the share of wrong labels (:func:`_sharpen`), which the surest images show (:func:`noise_rate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.progress import Progress
from labelsieve.detect.chunks import CHUNK
from labelsieve.detect.evidence.noise_model import (
    FIRST_RATE,
    AssumedNoise,
    ClassNoise,
    Joined,
    JointModel,
    Noise,
    SymmetricNoise,
    clean_share,
    even_confusion,
    prior_confusion,
    start_rate,
)
from labelsieve.detect.evidence.noise_rate import (
    Surest,
    classes_differ,
    noise_rate,
    reliability_rate,
    shows_classes,
    strikes_all_alike,
    surest_images,
)
from labelsieve.detect.zero_shot import fitting_factor

Evidence = Callable[[NDArray[np.int64]], Tensor]
"""Function from n row numbers to logits (P, n, K) of P kinds of evidence."""
NoiseT = TypeVar("NoiseT", bound=Noise)

# Maximum number of rows to fit: more do not improve the few weights.
MAX_ROWS = 20_000
# Maximum number of logits to fit, to limit the time with many classes; one chunk of rows is always used.
MAX_LOGITS = 2**22
# Maximum size of the logits to keep in memory during the fit, in bytes.
MAX_HELD = 2**26
ROUNDS = 3
# Maximum number of classes for a confusion: above it, each cell has too few examples for the memory.
MAX_CLASSES_WITH_CONFUSION = 2_000
# Minimum gain of a class confusion over symmetric noise in held-out log-likelihood, in nats. On symmetric noise it is
# negative, and falls with the number of wrong labels.
MIN_GAIN = 2.0
# Minimum gain of a class confusion for pair noise, as a share of its gain on simulated pair noise.
PAIR_GAIN = 0.6
# Minimum gain of instance-dependent over class-dependent noise, in nats per wrong label.
INSTANCE_GAIN = 0.2
# Minimum gain of instance-dependent over symmetric noise, in nats per label, if no confusion shows, as with few images
# per class. Right labels of three images per class gain 0.1, because the evidence errs on similar classes.
INSTANCE_GAIN_OVER_SYMMETRIC = 0.15
# Limits of the factor of the logits in one round, and the number of bisection steps.
MIN_SHARPNESS, MAX_SHARPNESS, STEPS = 0.5, 5.0, 9
# Rounds and folds for the held-out likelihood of a noise model. Small data need most of their labels for learning;
# above this number of logits, two folds are enough.
HELD_OUT_ROUNDS, HELD_OUT_FOLDS, MAX_LOGITS_OF_FOLDS = 12, 5, 2**20


@dataclass(frozen=True, eq=False)
class Fit:
    """Result of :func:`fit_joint`.

    Attributes:
        model: The model.
        clean: p_clean of the fitted rows, (n,).
        ends: p_clean of these rows at the lower and the upper end of the share of wrong labels, (n,) each; empty if the
            surest images show no share.
        end_rates: Shares of wrong labels at both ends; empty without ends. `ends` may not sum to them, because no
            sharpness of the evidence reaches some rates.
        end_models: Models of both ends; empty without ends.
        factor: Factor of the logits of the zero-shot model that fits the labels best; None without such a model.
    """

    model: JointModel
    clean: Tensor
    ends: tuple[Tensor, ...]
    end_rates: tuple[float, ...]
    end_models: tuple[JointModel, ...]
    factor: float | None


def fit_joint(
    evidence: Evidence,
    labels: NDArray[np.int64],
    *,
    rows: NDArray[np.int64],
    classes: int,
    calibrated: bool,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Fit:
    """Fits weights, biases and noise to the given labels.

    Args:
        evidence: Function from n row numbers to logits (P, n, K). They should depend little or not at all on the label
            of the same row: evidence that has memorised a label explains it without noise.
        labels: Shape (N,).
        rows: Rows to use, in chunks of `CHUNK`. Above `MAX_ROWS`, or `MAX_LOGITS` / K with many classes, the fit uses a
            random subset.
        classes: K, at least 2.
        calibrated: Whether the first kind is a zero-shot model that knows the class names.
        generator: Draws the subset and the order of the rows.
        progress: Receives progress.
    """
    maximum = min(MAX_ROWS, max(CHUNK, MAX_LOGITS // classes))
    rows = rows[torch.randperm(len(rows), generator=generator)[:maximum].numpy()]
    with (progress or Progress()).task("weighing the evidence", total=ROUNDS, unit="rounds", brief=True) as advance:
        sample = _Sample(evidence, labels, rows, advance)
        start = JointModel(torch.ones(len(sample.spread)), torch.zeros(classes), SymmetricNoise.of(classes, FIRST_RATE))
        zero_shot = sample.first() if calibrated else None
        unbiased = _if_classes_differ(sample, start)
        model, assumed, like_pair, factor, reliable = start, AssumedNoise.SYMMETRIC, 0.0, None, None
        for number in range(ROUNDS):
            # under instance-dependent noise, the weights are not identified: it explains labels by the evidence itself
            is_by_image = assumed is AssumedNoise.INSTANCE_DEPENDENT
            noise = SymmetricNoise.of(classes, model.noise.rate) if is_by_image else model.noise
            likeliest = (
                _likeliest(sample, JointModel(model.weights, model.bias, noise))
                if number or unbiased is None
                else unbiased
            )
            joined = sample.joined(likeliest)
            surest = surest_images(joined, by_class=unbiased is not None)
            if not number:
                if zero_shot and surest:
                    factor = fitting_factor(*zero_shot, noise_rate=surest.shares.value)
                    reliable = reliability_rate(*zero_shot, factor=factor)
                assumed, like_pair = _assumed_noise(joined, surest, generator, advance)
            rate = surest and noise_rate(joined, surest, assumed, like_pair=like_pair, reliable=reliable)
            model, clean = _sharpen(joined, likeliest, rate=rate and rate.value, assumed=assumed, advance=advance)
            advance(1)
        end_rates = tuple(rate[1:]) if rate else ()
        ends = [_sharpen(joined, likeliest, rate=end, assumed=assumed, advance=advance) for end in end_rates]

    def unscaled(model: JointModel) -> JointModel:
        return JointModel(model.weights / sample.spread, model.bias, model.noise)

    cleans = tuple(each for _, each in ends)
    return Fit(unscaled(model), clean, cleans, end_rates, tuple(unscaled(each) for each, _ in ends), factor)


def _spread(parts: Tensor) -> Tensor:
    """Returns the scale of the logits of each kind of evidence, (P,), 1 if they are all equal."""
    spread = (parts - parts.mean(dim=2, keepdim=True)).square().mean(dim=(1, 2)).sqrt()
    return torch.where(spread > 0, spread, 1.0)


class _Sample:
    """Rows to fit. Logits above `MAX_HELD` bytes are computed again in each pass, chunk by chunk.

    Args:
        evidence: Function from n row numbers to logits (P, n, K).
        labels: Shape (N,).
        rows: Row numbers, (n,), in random order.
        advance: Called with 0 before each chunk, to show that the fit is running.

    Attributes:
        count: n.
        spread: Divisor of the logits of each kind of evidence, (P,).
    """

    def __init__(
        self,
        evidence: Evidence,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        advance: Callable[[int], None],
    ) -> None:
        self.evidence, self.labels, self.advance = evidence, labels, advance
        self.chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        first = evidence(self.chunks[0])
        self.count, self.spread = len(rows), _spread(first)
        held = first.nbytes * len(self.chunks) <= MAX_HELD
        self._held = [first, *(evidence(rows) for rows in self.chunks[1:])] if held else []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields logits (P, m, K), divided by their spread, and given labels (m,), chunk by chunk."""
        for number, rows in enumerate(self.chunks):
            self.advance(0)
            yield self._chunk(number) / self.spread[:, None, None], torch.from_numpy(self.labels[rows])

    def _chunk(self, number: int) -> Tensor:
        return self._held[number] if self._held else self.evidence(self.chunks[number])

    def first(self) -> tuple[Tensor, Tensor]:
        """Returns logits of the first kind of evidence, (n, K), and labels, (n,)."""
        logits = torch.cat([self._chunk(number)[0] for number in range(len(self.chunks))])
        return logits, torch.from_numpy(self.labels[np.concatenate(self.chunks)])

    @torch.no_grad()
    def joined(self, model: JointModel) -> Joined:
        """Returns the joint logits of all rows under a model."""
        logits, labels = zip(*((model.logits(parts), given) for parts, given in self), strict=True)
        return Joined(torch.cat(logits), torch.cat(labels))


def _if_classes_differ(sample: _Sample, start: JointModel) -> JointModel | None:
    """Returns the most likely model without biases if it shows that classes differ, else None."""
    if not shows_classes(sample.count, len(start.bias)):  # saves a fit, which takes as long as a round
        return None
    unbiased = _likeliest(sample, start, biased=False)
    return unbiased if classes_differ(sample.joined(unbiased)) else None


def _likeliest(sample: _Sample, model: JointModel, *, biased: bool = True) -> JointModel:
    """Returns the weights, at least 0, and biases that make the given labels most likely under the noise of a model.

    Args:
        sample: Rows to fit.
        model: The noise, and the start of the weights and biases.
        biased: Whether to learn biases, else 0. Under noise with one rate for all classes, biases would explain the
            wrong labels of the classes that have more of them.
    """
    from scipy.optimize import minimize

    kinds = len(sample.spread)

    def loss_and_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = torch.from_numpy(values).float().requires_grad_()
        tried = JointModel(now[:kinds], now[kinds:], model.noise)
        # a standard normal prior keeps weights finite with few images, and the biases of empty classes at zero
        prior = 0.5 * now.square().sum() / sample.count
        (slope,) = torch.autograd.grad(prior, now)
        total = float(prior.detach())
        for parts, labels in sample:
            of_given, others = model.noise.explain(tried.logits(parts).softmax(dim=1), labels)
            loss = -(of_given + others.sum(dim=1)).clamp(min=1e-12).log().sum() / sample.count
            slope += torch.autograd.grad(loss, now)[0]
            total += float(loss.detach())
        return total, slope.double().numpy()

    # bounds instead of a positive transformation, whose gradient would vanish near zero weights
    bounds = [(0.0, None)] * kinds + [(None, None) if biased else (0.0, 0.0)] * len(model.bias)
    start = torch.cat([model.weights.clamp(min=0.02), model.bias]).double().numpy()
    result = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 15})
    best = torch.from_numpy(result.x).float()
    return JointModel(best[:kinds], best[kinds:], model.noise)


# ---------------------------------------------------------------- noise, at the sharpness that gives its rate


def _assumed_noise(
    joined: Joined, surest: Surest | None, generator: torch.Generator, advance: Callable[[int], None]
) -> tuple[AssumedNoise, float]:
    """Returns the kind of noise, and the similarity of class-dependent noise to pair noise, from 0 to 1.

    Kinds of noise are compared by their likelihood of held-out labels.

    Pair noise is class-dependent noise whose confusion gains nearly as much as on simulated pair noise. A fixed
    threshold does not work, because with few images per class, or with weak evidence, a confusion gains little. Pair
    noise is also equally frequent in all images, unlike mistakes between similar classes; with few images
    :func:`_images_tell_more` detects these.
    """
    rate = surest and surest.shares.value
    # a class without given labels would look like a confusion
    given, labels = joined.labels.unique(return_inverse=True)
    present, classes = Joined(joined.logits[:, given], labels), len(given)
    if not 2 < classes <= MAX_CLASSES_WITH_CONFUSION or len(labels) < 2:
        return AssumedNoise.SYMMETRIC, 0.0

    def matched(prior: Tensor) -> tuple[Joined, ClassNoise]:
        scale, noise = _match(present, ClassNoise.start(prior, start_rate(rate)), rate, advance)
        return present.sharpened(scale), noise

    def by_class(sharp: Joined, noise: ClassNoise) -> tuple[float, float]:
        """Returns the held-out log-likelihood of class-dependent noise, and its gain over symmetric noise."""
        likelihood = _held_out(sharp, ClassNoise.start(noise.prior, start_rate(noise.rate)), advance)
        return likelihood, likelihood - _held_out(sharp, AssumedNoise.SYMMETRIC.noise(sharp, noise.rate), advance)

    # an even prior, because the evidence also errs on similar classes: only the labels may show a confusion
    sharp, noise = matched(even_confusion(classes))
    likelihood, gain = by_class(sharp, noise)
    if gain <= MIN_GAIN:
        by_image = _held_out(sharp, AssumedNoise.INSTANCE_DEPENDENT.noise(sharp, noise.rate), advance)
        is_by_image = by_image - (likelihood - gain) > INSTANCE_GAIN_OVER_SYMMETRIC * len(labels)
        return AssumedNoise.INSTANCE_DEPENDENT if is_by_image else AssumedNoise.SYMMETRIC, 0.0
    sharp, noise = matched(prior_confusion(present))
    likelihood, gain = by_class(sharp, noise)
    gain_of_pairs = by_class(_with_pair_noise(sharp, noise, generator), noise)[1]
    scale, _ = _match(present, AssumedNoise.INSTANCE_DEPENDENT.noise(present, rate), rate, advance)
    by_image = _held_out(present.sharpened(scale), AssumedNoise.INSTANCE_DEPENDENT.noise(present, noise.rate), advance)
    gain_of_images = by_image - likelihood
    is_like_pair = gain >= PAIR_GAIN * gain_of_pairs and not _images_tell_more(gain, gain_of_pairs, gain_of_images)
    if is_like_pair and (surest is None or strikes_all_alike(joined, surest)):
        return AssumedNoise.PAIR, 1.0
    is_by_image = gain_of_images > INSTANCE_GAIN * noise.rate * len(labels)
    assumed = AssumedNoise.INSTANCE_DEPENDENT if is_by_image else AssumedNoise.CLASS_DEPENDENT
    like_pair = gain / (PAIR_GAIN * gain_of_pairs) if gain_of_pairs > 0 else 0.0
    return assumed, min(max(like_pair, 0.0), 1.0)


def _images_tell_more(gain: float, of_pairs: float, of_images: float) -> bool:
    """Returns whether mistakes on ambiguous images explain the labels better than pair noise does.

    True if `of_images / gain` exceeds `gain / of_pairs`. Neither ratio has a fixed threshold: both change with the
    strength of the evidence and the number of images.

    Args:
        gain: Gain of class-dependent over symmetric noise, in nats.
        of_pairs: The same gain on simulated pair noise.
        of_images: Gain of instance-dependent over class-dependent noise.
    """
    return of_images * of_pairs > gain**2


def _with_pair_noise(joined: Joined, noise: ClassNoise, generator: torch.Generator) -> Joined:
    """Simulates pair noise: draws true classes, and replaces a share of them by their most frequent wrong label."""
    chunks = [probability for probability, _ in joined.chunks()]
    truth = torch.cat([probability.multinomial(1, generator=generator)[:, 0] for probability in chunks])
    wrong = torch.rand(len(truth), generator=generator) < noise.rate
    return Joined(joined.logits, torch.where(wrong, noise.partners()[truth], truth))


def _held_out(joined: Joined, start: Noise, advance: Callable[[int], None]) -> float:
    """Returns the cross-validated log-likelihood of the labels."""
    folds = HELD_OUT_FOLDS if joined.logits.numel() <= MAX_LOGITS_OF_FOLDS else 2
    total = 0.0
    for rows in torch.arange(len(joined.labels)).tensor_split(min(folds, len(joined.labels))):
        start_row, end_row = int(rows[0]), int(rows[-1]) + 1
        others = Joined(*(torch.cat([part[:start_row], part[end_row:]]) for part in joined))
        noise = _learn(others, start, rounds=HELD_OUT_ROUNDS, advance=advance)
        total += _log_likelihood(Joined(*(part[start_row:end_row] for part in joined)), noise)
    return total


@torch.no_grad()
def _log_likelihood(joined: Joined, noise: Noise) -> float:
    total = 0.0
    for probability, labels in joined.chunks():
        of_given, others = noise.explain(probability, labels)
        total += float((of_given + others.sum(dim=1)).clamp(min=1e-12).log().sum())
    return total


def _sharpen(
    joined: Joined, model: JointModel, *, rate: float | None, assumed: AssumedNoise, advance: Callable[[int], None]
) -> tuple[JointModel, Tensor]:
    """Returns the model scaled to a given share of wrong labels, and its p_clean, (n,)."""
    scale, noise = _match(joined, assumed.noise(joined, rate), rate, advance)
    sharp = joined.sharpened(scale).chunks()
    clean = torch.cat([clean_share(*noise.explain(probability, labels)) for probability, labels in sharp])
    return JointModel(model.weights * scale, model.bias * scale, noise), clean


def _match(joined: Joined, start: NoiseT, rate: float | None, advance: Callable[[int], None]) -> tuple[float, NoiseT]:
    """Returns the factor of the logits that gives a share of wrong labels, which rises with it, and the noise."""
    noise, (first, more) = start, start.rounds
    low, high = (0.0, 0.0) if rate is None else (math.log(MIN_SHARPNESS), math.log(MAX_SHARPNESS))
    for step in range(STEPS):
        middle = (low + high) / 2
        before, rounds = (noise, more) if step and more else (start, first)
        noise = _learn(joined.sharpened(math.exp(middle)), before, rounds=rounds, advance=advance)
        if rate is not None:
            low, high = (middle, high) if noise.rate < rate else (low, middle)
    return math.exp(middle), noise


@torch.no_grad()
def _learn(joined: Joined, noise: NoiseT, *, rounds: int, advance: Callable[[int], None]) -> NoiseT:
    """Returns the noise after rounds of expectation-maximisation."""
    held = list(joined.chunks()) if joined.logits.numel() <= MAX_LOGITS else None

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in held or joined.chunks():
            advance(0)
            yield chunk

    for _ in range(rounds):
        noise = noise.learned(chunks())
    return noise
