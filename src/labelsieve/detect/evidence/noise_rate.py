"""The share of wrong labels, from the surest images and the reliability curve of the zero-shot model.

The likelihood of the given labels cannot estimate it, because it cannot distinguish a confused annotator from a blurred
model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from labelsieve.detect.evidence.noise_model import EPSILON, AssumedNoise, Joined
from labelsieve.detect.scores import GUESSING
from labelsieve.detect.zero_shot import fitting_factor
from labelsieve.metrics import Interval

# Share and minimum number of the surest images, and the factor between the larger numbers to try.
SURE_SHARE, MIN_SURE, SURE_STEP = 0.15, 150, 1.25
# Minimum number of the surest images per class, on average, for comparing the noise rates of classes.
SURE_OF_A_CLASS = 30
# Rise of the noise rate from the surest images to all: a factor (another for instance-dependent noise) and a summand.
RISE, INSTANCE_RISE, FLOOR = 1.5, 2.0, 0.03
# Factor of the rise that the reliability curve shows, because it explains about half as uncertainty of the model.
CURVE_FACTOR = 2.0
# Standard errors by which a rise within the surest images has to exceed that one to count as errors of the evidence.
RISING_ERRORS = 3.0
# Standard errors by which the rates of sure and less sure images may differ under pair noise.
UNLIKE_ERRORS = 2.0
# Rate that the reliability curve may show if all labels are right.
CURVE_RATE_OF_RIGHT = RISE * FLOOR
# Factor by which a logit scale may be off without a correction.
FAR_OFF = 2.0


class Surest(NamedTuple):
    """The disagreement of the surest images with their given labels.

    Attributes:
        order: Shape (n,): all images, the surest first.
        shares: Share of the surest images that disagree with their given labels, and its confidence interval.
        images: Number of the surest images of the share.
        images_of_ends: Number of the surest images of the interval.
    """

    order: Tensor
    shares: Interval
    images: int
    images_of_ends: int


@torch.no_grad()
def surest_images(joined: Joined, *, by_class: bool) -> Surest | None:
    """Returns the surest images and the share of them that disagrees with the given labels.

    Args:
        joined: Joined logits and given labels.
        by_class: Whether :func:`classes_differ`. The surest images are then chosen within each predicted class, because
            the evidence is less sure of a class with many wrong labels.

    Returns:
        None if the evidence predicts the labels no better than chance.
    """
    order = _surest_first(joined, by_class=by_class)
    shares, *images = _among_surest(_disagreeing(joined)[order])
    chance = 1 / joined.logits.shape[1]
    if 1 - shares.high - chance < GUESSING * (1 - chance):
        return None
    return Surest(order, shares, *images)


@torch.no_grad()
def noise_rate(
    joined: Joined, surest: Surest, assumed: AssumedNoise, *, like_pair: float, reliable: float | None
) -> Interval:
    """Estimates the share of wrong labels, which determines the sharpness of the evidence.

    The disagreement of the surest images, without the doubt of the evidence, is the share of wrong labels among them
    (the anchor points of Patrini et al., CVPR 2017). Symmetric and pair noise have this rate in all images. Other noise
    is more frequent in less sure images: by `RISE` and `FLOOR` for class-dependent noise, the less the closer it is to
    pair noise, and by `INSTANCE_RISE` and `FLOOR` for instance-dependent noise. At most the images that disagree are
    wrong.

    The reliability curve of a zero-shot model refines this for class-dependent and symmetric noise:

    * If it shows at least the rate of the surest images, the rise is `CURVE_FACTOR` times the difference.
    * If it shows less than the lower end of their rate, it explains wrong labels by its own uncertainty, and only
      bounds the estimate: at most `RISE` times its rate plus `FLOOR`. In between, the estimate is interpolated.
    * With few images per class, class-dependent noise looks symmetric. What the curve shows beyond the surest images,
      minus `CURVE_RATE_OF_RIGHT`, then counts up to the rise. The upper end is at least the rate of the curve.

    Args:
        joined: Joined logits and given labels.
        surest: Result of :func:`surest_images`.
        assumed: Kind of noise.
        like_pair: Similarity of class-dependent noise to pair noise, between 0 and 1.
        reliable: Result of :func:`reliability_rate`, None unless the zero-shot model knows the class names.

    Returns:
        Between 0 and 1, with the interval that follows from the number of the surest images.
    """
    if assumed is AssumedNoise.PAIR:
        return surest.shares
    bound = 1.0 if reliable is None else RISE * reliable + FLOOR
    disagreeing = float(_disagreeing(joined).float().mean())

    def raised(share: float, rise: float) -> float:
        return max(share, min(rise * share + FLOOR, disagreeing))

    if assumed is AssumedNoise.SYMMETRIC:
        value, low, high = _without_doubt(joined, surest)
        if reliable is not None:
            by_curve = min(raised(value, RISE), reliable - CURVE_RATE_OF_RIGHT)
            value += _unsure_of_symmetric(joined) * max(0.0, by_curve - value)
        return Interval(min(value, bound), min(low, bound), max(high, value, reliable or 0.0))
    if assumed is AssumedNoise.INSTANCE_DEPENDENT:  # it blurs the evidence, which looks like doubt
        (share, low, _), rise = surest.shares, INSTANCE_RISE
        value = raised(share, rise)
    else:
        (share, low, _), rise = _without_doubt(joined, surest), RISE
        value = min(raised(share, 1 + (rise - 1) * (1 - like_pair)), bound)
        if reliable is not None:
            shown, lower = surest.shares.value, surest.shares.low
            by_curve = min(shown + CURVE_FACTOR * max(0.0, reliable - shown), raised(shown, rise))
            value += float(np.clip((reliable - lower) / max(shown - lower, EPSILON), 0, 1)) * (by_curve - value)
    # may exceed the share that disagrees, because the evidence agrees with some wrong labels
    high = max(surest.shares.high, min(rise * surest.shares.high, disagreeing) + FLOOR)
    return Interval(value, min(low, value), max(high, value))


@torch.no_grad()
def strikes_all_alike(joined: Joined, surest: Surest) -> bool:
    """Returns whether wrong labels are as frequent among less sure images as among the surest, as under pair noise.

    Compares the surest images with the rest of the surer half. The doubt of the evidence is subtracted from both rates,
    which may differ by `UNLIKE_ERRORS` standard errors.

    Args:
        joined: Joined logits and given labels.
        surest: Result of :func:`surest_images`.
    """
    disagrees, doubt = _disagreeing(joined).float()[surest.order], _doubt(joined, surest, surest.shares.high)
    half, first = len(disagrees) // 2, _minimum_count(len(disagrees))
    if half <= first:
        return True
    parts = slice(first), slice(first, half)
    of_first, of_rest = (_beyond(float(disagrees[part].mean()), float(doubt[part].mean())) for part in parts)
    of_both = max((first * of_first + (half - first) * of_rest) / half, 1 / half)
    error = math.sqrt(of_both * (1 - of_both) * (1 / first + 1 / (half - first)))
    return of_rest - of_first <= UNLIKE_ERRORS * error


def _unsure_of_symmetric(joined: Joined) -> float:
    """Returns the uncertainty, from 0 to 1, that noise without a visible confusion is symmetric.

    Below the number of images per class of :func:`shows_classes`, mistakes between similar classes show no confusion.
    """
    images, classes = joined.logits.shape
    return min(1.0, SURE_OF_A_CLASS * classes / (SURE_SHARE * images))


def _doubt(joined: Joined, surest: Surest, rate: float) -> Tensor:
    """Returns the doubt of the evidence, (n,), the surest image first, at the temperature for this symmetric rate."""
    return _doubt_of_all(joined, rate)[surest.order]


def _doubt_of_all(joined: Joined, rate: float) -> Tensor:
    """Returns the same in the original order."""
    sharp = joined.sharpened(fitting_factor(*joined, noise_rate=rate))
    return 1 - torch.cat([probability.amax(dim=1) for probability, _ in sharp.chunks()])


def _beyond(share: float, doubt: float) -> float:
    """Returns the share that disagrees beyond the doubt of the evidence."""
    return max(0.0, (share - doubt) / max(1 - doubt, EPSILON))


def _without_doubt(joined: Joined, surest: Surest) -> Interval:
    """Returns the share of wrong labels among the surest images, without the doubt of the evidence.

    Weak evidence, and any evidence with few images per class, also errs on its surest images, but it doubts them at the
    temperature that fits the labels. That temperature requires the rate. The value uses the upper end as the rate,
    which credits the evidence with as much knowledge as possible; the lower end uses itself.
    """

    def wrong(share: float, images: int, rate: float) -> float:
        return _beyond(share, float(_doubt(joined, surest, rate)[:images].mean()))

    value, low, high = surest.shares
    value, low = wrong(value, surest.images, high), wrong(low, surest.images_of_ends, low)
    return Interval(value, min(low, value), high)


def shows_classes(images: int, classes: int) -> bool:
    """Returns whether there are enough images per class, on average, for :func:`classes_differ`."""
    return SURE_SHARE * images >= SURE_OF_A_CLASS * classes


@torch.no_grad()
def classes_differ(joined: Joined) -> bool:
    """Returns whether some classes have many more wrong labels than others.

    They do if the surest images of each predicted class disagree more often than the surest of all, by more than chance
    and `FLOOR`, and more often than the evidence doubts them at the temperature that fits the labels best. Evidence
    that knows a class little doubts it as much as it errs. Wrong labels of one class are as frequent in images that the
    evidence knows well, so that it is too sure of them at any temperature.

    Args:
        joined: Logits of a fit under symmetric noise without biases, which would explain such labels; at least as many
            images as :func:`shows_classes` requires.
    """
    disagrees, order = _disagreeing(joined), _surest_first(joined, by_class=True)
    of_each, _, _ = _among_surest(disagrees[order])
    of_all, _, _ = _among_surest(disagrees[_surest_first(joined, by_class=False)])
    doubt = _doubt_of_all(joined, 0.0)
    return of_each.low > max(of_all.high + FLOOR, float(doubt[order[: _minimum_count(len(order))]].mean()))


def far_off(factor: float) -> bool:
    """Returns whether the factor that fits the logits to the labels means a wrong scale."""
    return not 1 / FAR_OFF < factor < FAR_OFF


@torch.no_grad()
def reliability_rate(logits: Tensor, labels: Tensor, *, factor: float = 1.0) -> float:
    """Estimates the share of wrong labels from the reliability curve of a model that has not learned from them.

    Over all pairs of image and class, the isotonic curve h(p) is the share of pairs with probability p whose class is
    the given label. For a model that is calibrated for the true classes, h(p) = p if all labels are right. Otherwise,
    with r the height of the curve near p = 1, a share r p / h(p) of the labels with probability p is right.

    Args:
        logits: (m, K).
        labels: Given labels, (m,).
        factor: Factor that fits the logits to the labels, applied if it is far off.

    Returns:
        Between 0 and 1.
    """
    from sklearn.isotonic import IsotonicRegression

    probability = (logits * factor if far_off(factor) else logits).softmax(dim=1)
    p_given = probability.gather(1, labels[:, None])[:, 0].double().numpy()
    given = torch.zeros_like(probability).scatter(1, labels[:, None], 1.0)
    curve = IsotonicRegression(y_min=1e-9, out_of_bounds="clip").fit(
        probability.flatten().numpy(), given.flatten().numpy()
    )
    confidence, predicted = probability.max(dim=1)
    surest = confidence.topk(max(1, int(SURE_SHARE * len(labels)))).indices
    height = min(1.0, float((predicted == labels)[surest].float().mean() / confidence[surest].mean()))
    return float(1 - np.clip(height * p_given / curve.predict(p_given), 0, 1).mean())


def _disagreeing(joined: Joined) -> Tensor:
    return joined.logits.argmax(dim=1) != joined.labels


def _surest_first(joined: Joined, *, by_class: bool) -> Tensor:
    """Returns the order of images, (n,), by confidence, or by its rank within the predicted class."""
    sure = [probability.max(dim=1) for probability, _ in joined.chunks()]
    confidence, predicted = (torch.cat(both) for both in zip(*sure, strict=True))
    order = confidence.argsort(descending=True)
    if not by_class:
        return order
    order = order[predicted[order].argsort(stable=True)]
    sizes, group = predicted.bincount(), predicted[order]
    rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[group]
    return order[((rank + 0.5) / sizes[group]).argsort(stable=True)]


def _minimum_count(total: int) -> int:
    return max(int(SURE_SHARE * total), min(MIN_SURE, -(-total // 2)))


def _where_flat(hits: Tensor) -> int:
    """Returns the number of the surest images whose disagreement comes from the labels, not from the evidence.

    Wrong labels are nearly as frequent among the very surest images as among the sure ones (up to `RISE` and `FLOOR`),
    whereas errors of weak evidence become rarer the surer it is. While the surest third disagrees much less often than
    all, it replaces them.

    Args:
        hits: Number of the first 1, 2, ... images that disagree, (n,), the surest first.
    """
    count = _minimum_count(len(hits))
    while (third := max(count // 3, min(MIN_SURE, count))) < count:
        share, of_third = float(hits[count - 1]) / count, float(hits[third - 1]) / third
        error = math.sqrt(share * (1 - share) * (1 / third - 1 / count))
        if share <= max(RISE * of_third + FLOOR, of_third + RISING_ERRORS * error):
            break
        count = third
    return count


def _among_surest(disagrees: Tensor) -> tuple[Interval, int, int]:
    """Returns the share of disagreement among the surest images, their number, and the number for its interval.

    :func:`_where_flat` gives the minimum number. More images are more precise, until the evidence itself errs. The
    largest number is therefore used whose share is within one standard error of those of all smaller numbers (Lepski,
    1991; Goldenshluger and Nemirovski, 1997). The interval is that of the minimum number (Clopper and Pearson, 1934),
    on which the evidence errs least.

    Args:
        disagrees: Whether each image disagrees, (n,), the surest first.
    """
    from scipy.stats import binomtest

    hits = disagrees.cumsum(0)
    count = smallest = images = _where_flat(hits)
    ends = binomtest(int(hits[count - 1]), count).proportion_ci(0.95, method="exact")
    low, high, value = 0.0, 1.0, 0.0
    while count <= len(disagrees):
        share = float(hits[count - 1]) / count
        if not low <= share <= high:
            break
        error = math.sqrt(max(share * (1 - share), 1 / count) / count)
        low, high = max(low, share - error), min(high, share + error)
        value, images, count = share, count, int(SURE_STEP * count) + 1
    return Interval(value, min(value, float(ends.low)), max(value, float(ends.high))), images, smallest
