"""How many labels are wrong: what the surest images show, and the reliability curve of the zero-shot model.

Given labels alone cannot tell it: their likelihood takes a confused annotator for a blurred model.
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

# The surest images are this share of all images, and at least this many; larger numbers are tried by this factor.
SURE_SHARE, MIN_SURE, SURE_STEP = 0.15, 150, 1.25
# Images of each class, on average, that must be among the surest before the noise rates of classes are compared.
SURE_OF_A_CLASS = 30
# Wrong labels are more frequent on the other images: by a factor (another for instance-dependent noise) and this share.
RISE, INSTANCE_RISE, FLOOR = 1.5, 2.0, 0.03
# The reliability curve explains about half of the rise as uncertainty of the model, so what it shows of it is doubled.
CURVE_FACTOR = 2.0
# Where the rate rises by more than that within the surest images, by this many standard errors, the evidence errs.
RISING_ERRORS = 3.0
# Pair noise strikes all images alike: rates may differ by this many standard errors.
UNLIKE_ERRORS = 2.0
# The rate that the reliability curve may show although all labels are right.
CURVE_RATE_OF_RIGHT = RISE * FLOOR
# A logit scale is far off from this factor on.
FAR_OFF = 2.0


class Surest(NamedTuple):
    """What the surest images show.

    Attributes:
        order: Shape (n,): all images, the surest first.
        shares: The share of the surest that disagrees with its given labels, the ends by their number.
        images: How many of the surest the share is of.
        images_of_ends: How many of them the ends are of.
    """

    order: Tensor
    shares: Interval
    images: int
    images_of_ends: int


@torch.no_grad()
def surest_images(joined: Joined, *, by_class: bool) -> Surest | None:
    """Finds the surest images and how many of them disagree with their given labels.

    Args:
        joined: Joined logits and given labels.
        by_class: Whether :func:`classes_differ`. Then the surest are those of each predicted class: of a class with
            many wrong labels the evidence is less sure, so that few of the surest images of all are of it.

    Returns:
        None where the evidence knows no more of the labels than chance.
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
    """Estimates the share of wrong labels, without which the sharpness of the evidence is not known.

    The surest images show it: what disagrees there is wrong (the anchor points of Patrini et al., CVPR 2017), but for
    what the evidence doubts itself. Symmetric and pair noise strike all images alike. Other wrong labels are more
    frequent on the other images: those of class-dependent noise by `RISE` and `FLOOR`, and by the less the closer it
    comes to pair noise; those of instance-dependent noise by `INSTANCE_RISE`. The reliability curve of a zero-shot
    model that shows at least as many as the surest images gives the rise: `CURVE_FACTOR` times what it shows of it. One
    that shows fewer than the lower end of theirs explains wrong labels by its own uncertainty, but no more than the
    rise: that bounds class-dependent and symmetric noise. Between that end and what they show the estimate goes from
    one to the other in proportion. No more are considered wrong than disagree with the evidence. With few images a
    class noise that seems symmetric may be class-dependent, which strikes the surest images less: what the curve shows
    beyond them counts, less `CURVE_RATE_OF_RIGHT`, and up to the rise. The upper end for symmetric noise is at least
    what the curve shows.

    Args:
        joined: Joined logits and given labels.
        surest: What :func:`surest_images` found.
        assumed: How wrong labels come about.
        like_pair: How close class-dependent noise comes to pair noise, between 0 and 1.
        reliable: What :func:`reliability_rate` found, None unless the zero-shot model knows the names.

    Returns:
        Between 0 and 1, the ends by the number of the surest images.
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
    if assumed is AssumedNoise.INSTANCE_DEPENDENT:  # such noise blurs the evidence, which would be taken for doubt
        (share, low, _), rise = surest.shares, INSTANCE_RISE
        value = raised(share, rise)
    else:
        (share, low, _), rise = _without_doubt(joined, surest), RISE
        value = min(raised(share, 1 + (rise - 1) * (1 - like_pair)), bound)
        if reliable is not None:
            shown, lower = surest.shares.value, surest.shares.low
            by_curve = min(shown + CURVE_FACTOR * max(0.0, reliable - shown), raised(shown, rise))
            value += float(np.clip((reliable - lower) / max(shown - lower, EPSILON), 0, 1)) * (by_curve - value)
    # the evidence agrees with some wrong labels: this end may be above what disagrees
    high = max(surest.shares.high, min(rise * surest.shares.high, disagreeing) + FLOOR)
    return Interval(value, min(low, value), max(high, value))


@torch.no_grad()
def strikes_all_alike(joined: Joined, surest: Surest) -> bool:
    """Returns whether wrong labels are no more frequent in the rest of the surer half than among the surest images.

    Pair noise strikes all images alike. What the evidence doubts there comes off both shares; more is more
    than `UNLIKE_ERRORS` standard errors of their difference.

    Args:
        joined: Joined logits and given labels.
        surest: What :func:`surest_images` found.
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
    """Returns how unsure it is that noise is symmetric if it seems so, from 0 to 1: more with fewer images a class.

    With fewer than :func:`shows_classes` asks for, mistakes between similar classes show no confusion, either.
    """
    images, classes = joined.logits.shape
    return min(1.0, SURE_OF_A_CLASS * classes / (SURE_SHARE * images))


def _doubt(joined: Joined, surest: Surest, rate: float) -> Tensor:
    """Returns how much the evidence doubts each image, (n,), the surest first, at the temperature of an even rate."""
    return _doubt_of_all(joined, rate)[surest.order]


def _doubt_of_all(joined: Joined, rate: float) -> Tensor:
    """Returns the same in the order of the images."""
    sharp = joined.sharpened(fitting_factor(*joined, noise_rate=rate))
    return 1 - torch.cat([probability.amax(dim=1) for probability, _ in sharp.chunks()])


def _beyond(share: float, doubt: float) -> float:
    """Returns the share that disagrees less what the evidence doubts itself."""
    return max(0.0, (share - doubt) / max(1 - doubt, EPSILON))


def _without_doubt(joined: Joined, surest: Surest) -> Interval:
    """Returns the share of wrong labels among the surest images: what disagrees less what the evidence doubts there.

    Weak evidence, and any with few images a class, errs on its surest images, too, and knows that at the temperature
    that fits the labels. Even noise lets that temperature be found, if its rate is known. The value takes the upper end
    for it, which credits the evidence with the most it may know; the lower end takes itself.
    """

    def wrong(share: float, images: int, rate: float) -> float:
        return _beyond(share, float(_doubt(joined, surest, rate)[:images].mean()))

    value, low, high = surest.shares
    value, low = wrong(value, surest.images, high), wrong(low, surest.images_of_ends, low)
    return Interval(value, min(low, value), high)


def shows_classes(images: int, classes: int) -> bool:
    """Returns whether there are enough images of each class, on average, to tell whether classes differ."""
    return SURE_SHARE * images >= SURE_OF_A_CLASS * classes


@torch.no_grad()
def classes_differ(joined: Joined) -> bool:
    """Returns whether some classes have many more wrong labels than others.

    They do where the surest images of each predicted class disagree more often than the surest of all, by more than
    chance and `FLOOR`, and more often than the evidence doubts them. Evidence that knows a class little is as unsure of
    its surest images as it errs on them, and right labels show no more than that. Wrong labels of a class strike what
    the evidence knows well as often as the rest, which no class probability follows that rises with how much an image
    looks like its class: at the temperature that fits the labels best it is too sure of them.

    Args:
        joined: Logits that were joined under even noise and have no biases, which would explain such labels; of as many
            images as :func:`shows_classes` asks for.
    """
    disagrees, order = _disagreeing(joined), _surest_first(joined, by_class=True)
    of_each, _, _ = _among_surest(disagrees[order])
    of_all, _, _ = _among_surest(disagrees[_surest_first(joined, by_class=False)])
    doubt = _doubt_of_all(joined, 0.0)
    return of_each.low > max(of_all.high + FLOOR, float(doubt[order[: _minimum_count(len(order))]].mean()))


def far_off(factor: float) -> bool:
    """Returns whether logits that would fit times this factor are of another scale."""
    return not 1 / FAR_OFF < factor < FAR_OFF


@torch.no_grad()
def reliability_rate(logits: Tensor, labels: Tensor, *, factor: float = 1.0) -> float:
    """Estimates the share of wrong labels from the reliability curve of a model that has not learned from them.

    Let h(p) be the share of pairs (image, class) of probability p in which the class is the given label. If the model
    is calibrated for the true classes, h(p) = p where all labels are right. Its height near 1 is r, the share of right
    labels there, and of the labels whose class has probability p a share of r p / h(p) is right. h is isotonic.

    Args:
        logits: (m, K).
        labels: Given labels, (m,).
        factor: At which the logits would fit the labels; they are taken times it where it is far off.

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
    """Returns the order of images, (n,), by how sure they are: among all, or by rank within the predicted class."""
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
    """Returns how many of the surest images disagree because of their labels, not of the evidence.

    Wrong labels strike the very surest nearly as often as the sure (`RISE` and `FLOOR`); evidence that knows little
    errs ever less often the surer it is. Where the surest third disagrees much less often, it is taken instead, and so
    on.

    Args:
        hits: How many of the first 1, 2, ... images disagree, (n,), the surest first.
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
    """Returns the share that disagrees among the surest images, of how many that is, and of how many its ends.

    Where the evidence is weak, the share rises from the very surest on: see :func:`_where_flat`. Else more of them tell
    it more precisely, until the evidence itself errs. So it is the share among as many as agree with every smaller
    part: it lies within one standard error of each of their shares (Lepski, 1991; Goldenshluger and Nemirovski, 1997).
    The ends are those of the fewest (Clopper and Pearson, 1934), which the evidence errs least on.

    Args:
        disagrees: Whether each image does, (n,), the surest first.
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
