"""How many labels are wrong: what the surest images show, and the reliability curve of the zero-shot model.

Given labels alone cannot tell it: their likelihood takes a confused annotator for a blurred model.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from labelsieve.detect.evidence.noise_model import Joined, Mistakes
from labelsieve.detect.scores import GUESSING
from labelsieve.metrics import Interval

# The surest images are so large a share of all, and at least so many; more of them are tried in steps of a quarter.
SUREST, FEWEST_SURE, MORE = 0.15, 150, 1.25
# Mistakes are more frequent on the other images, by a factor (another where they follow looks) and a few in a hundred.
RISE, ALIKE_RISE, FLOOR = 1.5, 2.0, 0.03
# A logit scale is far off from this factor on.
FAR_OFF = 3.0


@torch.no_grad()
def noise_rate(joined: Joined, mistakes: Mistakes, *, reliable: float | None = None) -> Interval | None:
    """Estimates the share of wrong labels, without which the sharpness of the evidence is not known.

    The surest images show it: what disagrees there is wrong (the anchor points of Patrini et al., CVPR 2017). Noise
    that is even over the classes, and an exchange of classes, strike all images alike. Other mistakes are more often
    made on the other images. How much more tells the reliability curve of the zero-shot model where it knows the names;
    else `RISE` and `FLOOR` are assumed, which are the most in any case. What looks alike the curve takes for doubt of
    its own, so there `ALIKE_RISE` is assumed. No more labels are taken for wrong than disagree with the evidence.

    Args:
        joined: Joined logits and given labels.
        mistakes: What the wrong labels are.
        reliable: What :func:`reliability_rate` found, if the zero-shot model knows the names.

    Returns:
        Between 0 and 1, the ends by the number of the surest images; None where the evidence knows no more of the
        labels than chance.
    """
    sure = [probability.max(dim=1) for probability, _ in joined.chunks()]
    confidence, predicted = (torch.cat(both) for both in zip(*sure, strict=True))
    disagrees = predicted != joined.labels
    shares = _among_surest(disagrees[confidence.argsort(descending=True)])
    chance = 1 / joined.logits.shape[1]
    if 1 - shares.high - chance < GUESSING * (1 - chance):
        return None
    if mistakes in (Mistakes.EVEN, Mistakes.EXCHANGED):
        return shares
    rise, most = RISE if mistakes is Mistakes.BY_CLASS else ALIKE_RISE, float(disagrees.float().mean())
    value, _, high = (max(share, min(rise * share + FLOOR, most)) for share in shares)
    if mistakes is Mistakes.BY_CLASS and reliable is not None:
        value = min(max(reliable, shares.value), value)
    return Interval(value, shares.low, high)


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
    every smaller part: it lies within one standard error of each of their shares (Lepski, 1991; Goldenshluger and
    Nemirovski, 1997). The ends are those of the fewest (Clopper and Pearson, 1934), which the evidence errs least on.
    """
    from scipy.stats import binomtest

    total, hits = len(disagrees), disagrees.cumsum(0)
    count = max(int(SUREST * total), min(FEWEST_SURE, -(-total // 2)))
    ends = binomtest(int(hits[count - 1]), count).proportion_ci(0.95, method="exact")
    low, high, found = 0.0, 1.0, 0.0
    while count <= total:
        share = float(hits[count - 1]) / count
        if not low <= share <= high:
            break
        error = math.sqrt(max(share * (1 - share), 1 / count) / count)
        low, high = max(low, share - error), min(high, share + error)
        found, count = share, int(MORE * count) + 1
    return Interval(found, min(found, float(ends.low)), max(found, float(ends.high)))
