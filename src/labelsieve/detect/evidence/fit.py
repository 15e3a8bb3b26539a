"""The fit of joint evidence: how much each kind counts, and how wrong labels come about.

Given labels alone cannot tell a blurred class probability from a confused annotator: both explain them equally well. So
their likelihood says only how the kinds of evidence relate to each other (:func:`_likeliest`). How sharp their sum is
follows from how many labels are wrong (:func:`_sharpen`), and that the images show of which the evidence is surest
(:func:`noise_rate`).
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
"""Takes n row numbers and returns logits (P, n, K): P kinds of evidence."""
NoiseT = TypeVar("NoiseT", bound=Noise)

# The few weights do not get better with more rows.
MAX_ROWS = 20_000
# With many classes fewer rows are enough: as many as have this many logits, and a chunk at least.
MAX_LOGITS = 2**22
# Bytes of logits that are held while the weights are fitted.
MAX_HELD = 2**26
ROUNDS = 3
# A confusion of more classes takes more memory than it is worth, and has too few examples for each cell.
MAX_CLASSES_WITH_CONFUSION = 2_000
# A confusion of its own for each class has to raise the log-likelihood of held-out labels by this much, in nats.
# Symmetric noise loses by one, the more the more labels are wrong.
MIN_GAIN = 2.0
# From this share of what it would gain of pair noise on, noise is that.
PAIR_GAIN = 0.6
# Instance-dependent noise has to explain labels better than classes do, by this many nats for each wrong label.
INSTANCE_GAIN = 0.2
# And better than symmetric noise does, by this many for each label, where few images a class show no confusion of them.
# By 0.1 it does of right labels of three images a class, too, since the evidence errs on similar classes.
INSTANCE_GAIN_OVER_SYMMETRIC = 0.15
# How far the evidence may be sharpened or blurred in one round, and in how many steps it is found how far.
MIN_SHARPNESS, MAX_SHARPNESS, STEPS = 0.5, 5.0, 9
# To compare two noises, each is learned in this many rounds from the labels of all folds but one and evaluated on that
# one. Small data need most of their labels to learn from; with more logits than this, two folds are enough.
HELD_OUT_ROUNDS, HELD_OUT_FOLDS, MAX_LOGITS_OF_FOLDS = 12, 5, 2**20


@dataclass(frozen=True, eq=False)
class Fit:
    """What :func:`fit_joint` found.

    Attributes:
        model: The model.
        clean: p_clean of the rows that its noise was fitted to, (n,).
        ends: p_clean of these rows where as few, and as many, labels are wrong as the surest images allow, (n,) each;
            empty where they tell nothing.
        end_rates: Shares of wrong labels at both ends, which p_clean may not add up to at any sharpness of the
            evidence; empty where there are no ends.
        end_models: The models of both ends; none where there are no ends.
        factor: At which the logits of the zero-shot model would fit the labels best; None without such a model.
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
        evidence: Gives logits (P, n, K) for n rows, which the own label of a row should have little or no part in: what
            has learned it by heart explains it without noise.
        labels: Shape (N,).
        rows: Rows to use; of more than `MAX_ROWS`, or with many classes `MAX_LOGITS` / K, a random part is taken.
            `CHUNK` of them are looked at at a time.
        classes: K, at least 2.
        calibrated: Whether the first kind is a zero-shot model that knows the names of the classes.
        generator: Chooses the part, and puts the rows into random order.
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
            # instance-dependent noise would explain whatever the evidence says, and what it does not
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
    """Returns how far the logits of each kind of evidence lie apart, (P,): a wrong scale of theirs changes nothing."""
    spread = (parts - parts.mean(dim=2, keepdim=True)).square().mean(dim=(1, 2)).sqrt()
    return torch.where(spread > 0, spread, 1.0)


class _Sample:
    """Rows to fit on. Where their logits are many, they are computed again for each pass, one chunk at a time.

    Args:
        evidence: Gives logits (P, n, K) for n rows.
        labels: Shape (N,).
        rows: Row numbers, (n,), in random order.
        advance: Gets 0 before each chunk, as a sign of life.

    Attributes:
        count: n.
        spread: What the logits of each kind of evidence are divided by, (P,).
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
        """Yields logits (P, m, K), each kind over its spread, and given labels (m,), chunk by chunk."""
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
        """Returns the logits that a model makes of all rows."""
        logits, labels = zip(*((model.logits(parts), given) for parts, given in self), strict=True)
        return Joined(torch.cat(logits), torch.cat(labels))


def _if_classes_differ(sample: _Sample, start: JointModel) -> JointModel | None:
    """Returns the model without biases that explains the labels best, where it shows that classes differ."""
    if not shows_classes(sample.count, len(start.bias)):  # the fit takes as long as a round
        return None
    unbiased = _likeliest(sample, start, biased=False)
    return unbiased if classes_differ(sample.joined(unbiased)) else None


def _likeliest(sample: _Sample, model: JointModel, *, biased: bool = True) -> JointModel:
    """Returns weights, at least 0, and biases that make the given labels most likely under the noise of a model.

    Args:
        sample: Rows to fit on.
        model: Where to start, and the noise.
        biased: Whether biases are learned; else they are 0. Under noise that is even over the classes they would
            explain wrong labels that some classes have and others have not.
    """
    from scipy.optimize import minimize

    kinds = len(sample.spread)

    def loss_and_slope(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = torch.from_numpy(values).float().requires_grad_()
        tried = JointModel(now[:kinds], now[kinds:], model.noise)
        # a standard normal prior: weights stay finite where few images are, and classes without images where they are
        prior = 0.5 * now.square().sum() / sample.count
        (slope,) = torch.autograd.grad(prior, now)
        total = float(prior.detach())
        for parts, labels in sample:
            of_given, others = model.noise.explain(tried.logits(parts).softmax(dim=1), labels)
            loss = -(of_given + others.sum(dim=1)).clamp(min=1e-12).log().sum() / sample.count
            slope += torch.autograd.grad(loss, now)[0]
            total += float(loss.detach())
        return total, slope.double().numpy()

    # bounds, and no positive function of a free number: its slope would vanish where a weight came near 0
    bounds = [(0.0, None)] * kinds + [(None, None) if biased else (0.0, 0.0)] * len(model.bias)
    start = torch.cat([model.weights.clamp(min=0.02), model.bias]).double().numpy()
    result = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 15})
    best = torch.from_numpy(result.x).float()
    return JointModel(best[:kinds], best[kinds:], model.noise)


# ---------------------------------------------------------------- noise, at a sharpness that fits its rate


def _assumed_noise(
    joined: Joined, surest: Surest | None, generator: torch.Generator, advance: Callable[[int], None]
) -> tuple[AssumedNoise, float]:
    """Tells how wrong labels come about, and how close class-dependent noise comes to pair noise (1).

    The kind of noise shows in how likely it makes labels that were not learned from.

    Pair noise differs from other class-dependent noise by how much a confusion would gain of it. That is drawn: true
    classes from the class probabilities, and of as many as are wrong the label of the class that is most often given
    instead. No fixed bound does: few images a class, or evidence that knows little, tell less of it. And it strikes all
    images alike, which mistakes between similar classes do not; with few images :func:`_images_tell_more` shows that.
    """
    rate = surest and surest.shares.value
    # classes that are never given are left out: they would look like a confusion
    given, labels = joined.labels.unique(return_inverse=True)
    present, classes = Joined(joined.logits[:, given], labels), len(given)
    if not 2 < classes <= MAX_CLASSES_WITH_CONFUSION or len(labels) < 2:
        return AssumedNoise.SYMMETRIC, 0.0

    def matched(prior: Tensor) -> tuple[Joined, ClassNoise]:
        scale, noise = _match(present, ClassNoise.start(prior, start_rate(rate)), rate, advance)
        return present.sharpened(scale), noise

    def by_class(sharp: Joined, noise: ClassNoise) -> tuple[float, float]:
        """Returns how likely class-dependent noise makes the labels, and how much more than symmetric noise."""
        likelihood = _held_out(sharp, ClassNoise.start(noise.prior, start_rate(noise.rate)), advance)
        return likelihood, likelihood - _held_out(sharp, AssumedNoise.SYMMETRIC.noise(sharp, noise.rate), advance)

    # similar classes are what the evidence errs on, too: the labels alone have to show that classes are confused
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
    """Returns whether labels look like pair noise only as similar classes are mistaken where an image is ambiguous.

    Then the image gains a larger share of what classes gain than classes gain of what they would of pair noise. Neither
    share alone tells: where the evidence knows little, or images are few, both change.

    Args:
        gain: How much more likely class-dependent noise makes the labels than symmetric noise does.
        of_pairs: What that would be of pair noise.
        of_images: How much more likely still instance-dependent noise makes them.
    """
    return of_images * of_pairs > gain**2


def _with_pair_noise(joined: Joined, noise: ClassNoise, generator: torch.Generator) -> Joined:
    """Draws labels of which as many are wrong, each that of the class that is given most instead of the true one."""
    chunks = [probability for probability, _ in joined.chunks()]
    truth = torch.cat([probability.multinomial(1, generator=generator)[:, 0] for probability in chunks])
    wrong = torch.rand(len(truth), generator=generator) < noise.rate
    return Joined(joined.logits, torch.where(wrong, noise.partners()[truth], truth))


def _held_out(joined: Joined, start: Noise, advance: Callable[[int], None]) -> float:
    """Returns the log-likelihood of the labels of each fold under the noise that the other folds show."""
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
    """Returns a model whose logits are so sharp that a given share of the labels is wrong, and its p_clean, (n,)."""
    scale, noise = _match(joined, assumed.noise(joined, rate), rate, advance)
    sharp = joined.sharpened(scale).chunks()
    clean = torch.cat([clean_share(*noise.explain(probability, labels)) for probability, labels in sharp])
    return JointModel(model.weights * scale, model.bias * scale, noise), clean


def _match(joined: Joined, start: NoiseT, rate: float | None, advance: Callable[[int], None]) -> tuple[float, NoiseT]:
    """Finds the factor of the logits at which a share of the labels is wrong: the sharper, the more are."""
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
    """Re-estimates a noise by expectation-maximisation."""
    held = list(joined.chunks()) if joined.logits.numel() <= MAX_LOGITS else None

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in held or joined.chunks():
            advance(0)
            yield chunk

    for _ in range(rounds):
        noise = noise.learned(chunks())
    return noise
