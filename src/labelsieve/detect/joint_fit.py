"""The fit of joint evidence: how much each kind counts, how often labels are wrong, and what is taken for what.

Given labels alone cannot tell a blurred class probability from a confused annotator: both explain them equally well. So
their likelihood says only how the kinds of evidence relate to each other (:func:`_likeliest`). How sharp their sum is
follows from how many labels are wrong (:func:`_sharpen`), and that the images show of which the evidence is surest
(:func:`noise_rate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.detect.base import GUESSING, Interval
from labelsieve.detect.noise_model import JointModel, Noise, clean_share, explain
from labelsieve.detect.zero_shot import CHUNK, fitting_factor
from labelsieve.progress import Progress

Evidence = Callable[[NDArray[np.int64]], Tensor]
"""Takes n row numbers and returns logits (P, n, K): P kinds of evidence."""

# The few weights do not get better with more rows than this.
MOST_ROWS = 20_000
# Nor many classes with more logits: they get by with fewer rows, a chunk at least.
MOST_LOGITS = 2**22
# Bytes of logits that are held while the weights are fitted.
MOST_HELD = 2**26
ROUNDS = 3
FIRST_RATE = 0.2
# The rate of a class is drawn to the common one as if so many of its images had been seen before.
PRIOR_IMAGES = 10.0
# The confusion of a class is drawn to an even one as if so many wrong labels had been seen before.
PRIOR_LABELS = 10.0
# A confusion of more classes takes more memory than it is worth, and has too few examples for each cell.
MOST_CLASSES_WITH_CONFUSION = 2_000
# The surest images are so large a share of all, and at least so many; more of them are tried in steps of a quarter.
SUREST, FEWEST_SURE, MORE = 0.15, 150, 1.25
# What is taken for something that looks alike is so more often on the other images, by a factor and a few in a hundred.
RISE, FLOOR = 1.5, 0.03
# A confusion of its own for each class has to make held-out labels so much more likely, in nats.
LEAST_GAIN = 5.0
# From this share of what a confusion can tell about wrong labels on, classes are exchanged rather than mistaken.
EXCHANGED = 0.25
# How far the evidence may be sharpened or blurred in one round, and in how many steps it is found how far.
LEAST_SHARP, MOST_SHARP, STEPS = 0.5, 5.0, 9


@dataclass(frozen=True, eq=False)
class Fit:
    """What :func:`fit_joint` found.

    Attributes:
        model: The model.
        clean: p_clean of the rows that its noise was fitted to, (n,).
        ends: p_clean of these rows where as few, and as many, labels are wrong as the surest images allow, (n,) each;
            empty where they tell nothing.
        factor: At which the logits of the zero-shot model would fit the labels best; None without such a model.
    """

    model: JointModel
    clean: Tensor
    ends: tuple[Tensor, ...]
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
    """Fits weights, biases, rates of noise and confusion to the given labels.

    Args:
        evidence: Gives logits (P, n, K) for n rows, which the own label of a row should have little or no part in: what
            has learned it by heart explains it without noise.
        labels: Shape (N,).
        rows: Rows to use; of more than `MOST_ROWS`, or with many classes `MOST_LOGITS` / K, a random part is taken.
            `CHUNK` of them are looked at at a time.
        classes: K, at least 2.
        calibrated: Whether the first kind is a zero-shot model that knows the names of the classes.
        generator: Chooses the part, and puts the rows into random order.
        progress: Where to show how far it is.
    """
    most = min(MOST_ROWS, max(CHUNK, MOST_LOGITS // classes))
    rows = rows[torch.randperm(len(rows), generator=generator)[:most].numpy()]
    with (progress or Progress()).task("weighing the evidence", total=ROUNDS, unit="rounds", brief=True) as advance:
        sample = _Sample(evidence, labels, rows, advance)
        start = JointModel(torch.ones(len(sample.spread)), torch.zeros(classes), _even(classes, FIRST_RATE))
        model, structure = start, 0.0
        zero_shot = sample.first(MOST_LOGITS // classes) if calibrated else None
        reliable = zero_shot and reliability_rate(*zero_shot)
        for number in range(ROUNDS):
            likeliest = _likeliest(sample, model)
            joined = sample.joined(likeliest)
            structure = structure if number else _structure(joined, advance)
            rate = noise_rate(joined, structure, reliable=reliable)
            model, clean = _sharpen(
                joined, likeliest, rate=rate and rate.value, confused=structure > 0, advance=advance
            )
            advance(1)
        ends = [
            _sharpen(joined, likeliest, rate=end, confused=structure > 0, advance=advance) for end in (rate or ())[1:]
        ]
    factor = zero_shot and rate and fitting_factor(*zero_shot, noise_rate=rate.value)
    model = JointModel(model.weights / sample.spread, model.bias, model.noise)
    return Fit(model, clean, tuple(each for _, each in ends), factor)


def _spread(parts: Tensor) -> Tensor:
    """Returns how far the logits of each kind of evidence lie apart, (P,): a wrong scale of theirs changes nothing."""
    apart = (parts - parts.mean(dim=2, keepdim=True)).square().mean(dim=(1, 2)).sqrt()
    return torch.where(apart > 0, apart, 1.0)


class Joined(NamedTuple):
    """Rows that the noise is fitted to: joined logits (n, K) and given labels (n,)."""

    logits: Tensor
    labels: Tensor

    def sharpened(self, scale: float) -> Joined:
        """Returns the logits times a factor."""
        return Joined(self.logits * scale, self.labels)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields probabilities (m, K) and labels (m,)."""
        for logits, labels in zip(self.logits.split(CHUNK), self.labels.split(CHUNK), strict=True):
            yield logits.softmax(dim=1), labels


class _Sample:
    """Rows to fit on. Where their logits are many, they are computed anew for each pass, one chunk at a time.

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
        advance: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.evidence, self.labels, self.advance = evidence, labels, advance
        self.chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        first = evidence(self.chunks[0])
        self.count, self.spread = len(rows), _spread(first)
        held = first.nbytes * len(self.chunks) <= MOST_HELD
        self._held = [first, *(evidence(rows) for rows in self.chunks[1:])] if held else []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields logits (P, m, K), each kind over its spread, and given labels (m,), chunk by chunk."""
        for number, rows in enumerate(self.chunks):
            self.advance(0)
            yield self._chunk(number) / self.spread[:, None, None], torch.from_numpy(self.labels[rows])

    def _chunk(self, number: int) -> Tensor:
        return self._held[number] if self._held else self.evidence(self.chunks[number])

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns logits of the first kind of evidence, (m, K), and labels, (m,), m at most `count` and a chunk."""
        return self._chunk(0)[0, :count], torch.from_numpy(self.labels[self.chunks[0][:count]])

    @torch.no_grad()
    def joined(self, model: JointModel) -> Joined:
        """Returns the logits that a model makes of all rows."""
        logits, labels = zip(*((model.logits(parts), given) for parts, given in self), strict=True)
        return Joined(torch.cat(logits), torch.cat(labels))


def _likeliest(sample: _Sample, model: JointModel) -> JointModel:
    """Returns weights, at least 0, and biases that make the given labels most likely under the noise of a model."""
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
            mine, others = explain(tried.logits(parts).softmax(dim=1), labels, model.noise)
            loss = -(mine + others.sum(dim=1)).clamp(min=1e-12).log().sum() / sample.count
            slope += torch.autograd.grad(loss, now)[0]
            total += float(loss.detach())
        return total, slope.double().numpy()

    # bounds, and no positive function of a free number: its slope would vanish where a weight came near 0
    bounds = [(0.0, None)] * kinds + [(None, None)] * len(model.bias)
    start = torch.cat([model.weights.clamp(min=0.02), model.bias]).double().numpy()
    found = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 15})
    best = torch.from_numpy(found.x).float()
    return JointModel(best[:kinds], best[kinds:], model.noise)


# ---------------------------------------------------------------- how many labels are wrong


@torch.no_grad()
def noise_rate(joined: Joined, structure: float, *, reliable: float | None = None) -> Interval | None:
    """Estimates the share of wrong labels, without which the sharpness of the evidence cannot be told.

    The surest images show it: what disagrees there is wrong (the anchor points of Patrini et al., CVPR 2017). Noise
    that is even over the classes, and an exchange of classes, strike all images alike. What is taken for something that
    looks alike is so more often on the other images. How much more tells the reliability curve of the zero-shot model
    where it knows the names; else `RISE` and `FLOOR` are assumed, which are the most in any case.

    Args:
        joined: Joined logits and given labels.
        structure: What :func:`_structure` found.
        reliable: What :func:`reliability_rate` found, if the zero-shot model knows the names.

    Returns:
        Between 0 and 1, the ends by the number of the surest images, and up to `RISE` where it may apply; None where
        the evidence knows no more of the labels than chance.
    """
    sure = [probability.max(dim=1) for probability, _ in joined.chunks()]
    confidence, predicted = (torch.cat(both) for both in zip(*sure, strict=True))
    shares = _among_surest((predicted != joined.labels)[confidence.argsort(descending=True)])
    chance = 1 / joined.logits.shape[1]
    if 1 - shares.high - chance < GUESSING * (1 - chance):
        return None
    if not 0 < structure < EXCHANGED:
        return shares
    risen = Interval(*(min(RISE * share + FLOOR, 1 - chance) for share in shares))
    if reliable is None:
        return risen
    return Interval(min(max(reliable, shares.value), risen.value), shares.low, risen.high)


@torch.no_grad()
def reliability_rate(logits: Tensor, labels: Tensor) -> float:
    """Estimates the share of wrong labels from the reliability curve of a model that has not learned from them.

    Let h(p) be the share of pairs (image, class) of probability p in which the class is the given label. If the model
    is calibrated for the true classes, h(p) = p where all labels are right. Its height near 1 is r, the share of right
    labels there, and of the labels whose class has probability p a share of r p / h(p) is right. h is isotonic.

    Args:
        logits: (m, K).
        labels: Given labels, (m,).

    Returns:
        Between 0 and 1.
    """
    from sklearn.isotonic import IsotonicRegression

    probability = logits.softmax(dim=1)
    mine = probability.gather(1, labels[:, None])[:, 0].double().numpy()
    given = torch.zeros_like(probability).scatter(1, labels[:, None], 1.0)
    curve = IsotonicRegression(y_min=1e-9, out_of_bounds="clip").fit(
        probability.flatten().numpy(), given.flatten().numpy()
    )
    confidence, predicted = probability.max(dim=1)
    surest = confidence.topk(max(1, int(SUREST * len(labels)))).indices
    height = min(1.0, float((predicted == labels)[surest].float().mean() / confidence[surest].mean()))
    return float(1 - np.clip(height * mine / curve.predict(mine), 0, 1).mean())


def _among_surest(disagrees: Tensor) -> Interval:
    """Returns the share that disagrees among the surest images, (n,), the surest first.

    More of them tell it more precisely, until the evidence itself errs. So it is the share among as many as agree with
    every smaller part: their intervals of one standard error have a point in common (Lepski, 1991; Goldenshluger and
    Nemirovski, 1997). The ends are those of the fewest (Clopper and Pearson, 1934), which the evidence errs least on.
    """
    from scipy.stats import binomtest

    total, hits = len(disagrees), disagrees.cumsum(0)
    count = max(int(SUREST * total), min(FEWEST_SURE, -(-total // 2)))
    ends = binomtest(int(hits[count - 1]), count).proportion_ci(0.95, method="exact")
    low, high, found = 0.0, 1.0, 0.0
    while count <= total:
        share = float(hits[count - 1]) / count
        error = math.sqrt(max(share * (1 - share), 1 / count) / count)
        low, high = max(low, share - error), min(high, share + error)
        if low > high:
            break
        found, count = share, int(MORE * count) + 1
    return Interval(found, min(found, float(ends.low)), max(found, float(ends.high)))


# ---------------------------------------------------------------- noise, at a sharpness that fits its rate


def _structure(joined: Joined, advance: Callable[[int], None]) -> float:
    """Tells how much a confusion of its own for each class says of wrong labels, by rows that it has not seen.

    Returns:
        Gain in log-likelihood for each wrong label, as a share of log(K - 1), which an exchange of classes would gain;
        0 where the confusion is even, or cannot be told.
    """
    classes, half = joined.logits.shape[1], len(joined.labels) // 2
    if not 2 < classes <= MOST_CLASSES_WITH_CONFUSION or half < 1:
        return 0.0
    surest = noise_rate(joined, 0.0)
    scale, found = _match(joined, surest and surest.value, confused=True, advance=advance)
    sharp = joined.sharpened(scale)
    halves = [Joined(*(part[:half] for part in sharp)), Joined(*(part[half : 2 * half] for part in sharp))]
    start = _even(classes, found.rate)

    def held_out(*, confused: bool) -> float:
        both = (_fit_noise(one, start, confused=confused, rounds=6, advance=advance) for one in halves)
        return sum(_log_likelihood(other, noise) for other, noise in zip(reversed(halves), both, strict=True))

    gain = held_out(confused=True) - held_out(confused=False)
    return gain / (found.rate * 2 * half * math.log(classes - 1)) if gain > LEAST_GAIN else 0.0


@torch.no_grad()
def _log_likelihood(joined: Joined, noise: Noise) -> float:
    total = 0.0
    for probability, labels in joined.chunks():
        mine, others = explain(probability, labels, noise)
        total += float((mine + others.sum(dim=1)).clamp(min=1e-12).log().sum())
    return total


def _sharpen(
    joined: Joined, model: JointModel, *, rate: float | None, confused: bool, advance: Callable[[int], None]
) -> tuple[JointModel, Tensor]:
    """Returns a model whose logits are so sharp that a given share of the labels is wrong, and its p_clean, (n,)."""
    scale, noise = _match(joined, rate, confused=confused, advance=advance)
    sharp = joined.sharpened(scale).chunks()
    clean = torch.cat([clean_share(*explain(probability, labels, noise)) for probability, labels in sharp])
    return JointModel(model.weights * scale, model.bias * scale, noise), clean


def _match(
    joined: Joined, rate: float | None, *, confused: bool, advance: Callable[[int], None]
) -> tuple[float, Noise]:
    """Finds the factor of the logits at which a share of the labels is wrong: the sharper, the more are."""
    noise = _even(joined.logits.shape[1], FIRST_RATE if rate is None else max(rate, 0.01))
    low, high = (0.0, 0.0) if rate is None else (math.log(LEAST_SHARP), math.log(MOST_SHARP))
    for step in range(STEPS):
        middle = (low + high) / 2
        sharp = joined.sharpened(math.exp(middle))
        noise = _fit_noise(sharp, noise, confused=confused, rounds=3 if step else 6, advance=advance)
        if rate is not None:
            low, high = (middle, high) if noise.rate < rate else (low, middle)
    return math.exp(middle), noise


def _even(classes: int, rate: float) -> Noise:
    return Noise(torch.full((classes,), rate), None, rate)


@torch.no_grad()
def _fit_noise(joined: Joined, noise: Noise, *, confused: bool, rounds: int, advance: Callable[[int], None]) -> Noise:
    """Re-estimates rates and confusion by expectation-maximisation (Dawid and Skene, 1979, for one annotator)."""
    classes = joined.logits.shape[1]
    for _ in range(rounds):
        right, wrong = torch.zeros(classes), torch.zeros(classes)  # by true class
        counts = torch.zeros(classes, classes) if confused else None  # rows: given label, columns: true class
        for probability, labels in joined.chunks():
            advance(0)
            mine, others = explain(probability, labels, noise)
            whole = (mine + others.sum(dim=1)).clamp(min=1e-30)
            others /= whole[:, None]
            right.index_add_(0, labels, mine / whole)
            wrong += others.sum(dim=0)
            if counts is not None:
                counts.index_add_(0, labels, others)
        rate = float(wrong.sum() / (wrong.sum() + right.sum()).clamp(min=1e-30))
        rates = (wrong + PRIOR_IMAGES * rate) / (right + wrong + PRIOR_IMAGES)
        noise = Noise(rates, None if counts is None else _confusion(counts.T), rate)
    return noise


def _confusion(counts: Tensor) -> Tensor:
    classes = len(counts)
    even = (1 - torch.eye(classes)) / (classes - 1)
    return (counts + PRIOR_LABELS * even) / (counts.sum(dim=1, keepdim=True) + PRIOR_LABELS)
