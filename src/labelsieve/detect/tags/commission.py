"""An upper bound on the rates of wrong tags from the surest pairs, whatever the form of the fitted curve.

A fit treats as noise whatever its evidence does not explain. But among the pairs that are surest to lack the class, no
more tags can be wrong than are given (the anchor points of Patrini et al., CVPR 2017). The other end says less about
missing tags, because the fit ranks those classes first that lack few by chance.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Minimum size of a part of the surest pairs, in expected tags at the frequencies of their classes, and maximum size as
# a share of all tags; each part is twice as large as the one before.
MIN_TAGS, LARGEST_PART = 60, 0.5


@torch.no_grad()
def allowed(tagged: Tensor, tags: Tensor, *, frequency: Tensor, added: Tensor) -> float:
    """Returns a factor for the rates of wrong tags, between 0 and 1.

    It is the smallest ratio over the parts: given tags plus two standard errors over wrong tags by the fitted rates.

    Args:
        tagged: Probability that each pair is tagged, given the evidence, (n, K).
        tags: Given tags, (n, K), bool.
        frequency: Share of the images that have each tag, (K,).
        added: Fitted share of the images without the class that have its tag, (K,).
    """
    surest = (tagged / frequency).flatten().argsort()
    column = surest % tags.shape[1]
    given, expected = tags.flatten()[surest].double().cumsum(0), added[column].double().cumsum(0)
    sizes = frequency[column].double().cumsum(0)  # expected tags at the frequencies of the classes
    factor, size = 1.0, float(MIN_TAGS)
    while size <= LARGEST_PART * float(sizes[-1]):
        at = int(torch.searchsorted(sizes, size).clamp(max=len(sizes) - 1))
        count = float(given[at])
        factor = min(factor, (count + 2 * max(count, 1.0) ** 0.5) / max(float(expected[at]), 1e-12))
        size *= 2
    return factor
