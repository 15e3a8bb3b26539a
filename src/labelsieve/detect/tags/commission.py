"""What the surest pairs say of the rate of wrong tags, whatever the form of the fitted curve.

A fit takes what its evidence does not see for noise. But where the evidence is surest that a class is absent, no more
tags can be wrong than are given there (the anchor points of Patrini et al., CVPR 2017). Of missing tags the other end
says less: the fit ranks classes first there that lack few by chance.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The smallest part at the end has this many tags at the frequency of its classes; each part is twice the one before, up
# to this share of all tags.
MIN_TAGS, LARGEST_PART = 60, 0.5


@torch.no_grad()
def allowed(tagged: Tensor, tags: Tensor, *, frequency: Tensor, added: Tensor) -> float:
    """Returns by what to multiply the rates of wrong tags, between 0 and 1.

    That is the share at the end and two standard errors, of the part that allows least, over what the rates say of it.

    Args:
        tagged: How likely each pair is tagged by the evidence, (n, K).
        tags: Whether it is, (n, K), bool.
        frequency: Share of the images that have each tag, (K,).
        added: Share of the images without the class that have its tag, (K,), as it was fitted.
    """
    surest = (tagged / frequency).flatten().argsort()
    column = surest % tags.shape[1]
    given, expected = tags.flatten()[surest].double().cumsum(0), added[column].double().cumsum(0)
    sizes = frequency[column].double().cumsum(0)  # as many tags as at the frequency of the classes
    factor, size = 1.0, float(MIN_TAGS)
    while size <= LARGEST_PART * float(sizes[-1]):
        at = int(torch.searchsorted(sizes, size).clamp(max=len(sizes) - 1))
        count = float(given[at])
        factor = min(factor, (count + 2 * max(count, 1.0) ** 0.5) / max(float(expected[at]), 1e-12))
        size *= 2
    return factor
