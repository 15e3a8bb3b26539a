"""What the surest pairs say of the rates of wrong and missing tags, whatever the form of the fitted curve.

A fit takes what its evidence does not see for noise. But where the evidence is surest that a class is absent, no more
tags can be wrong than are given there, and where it is surest that one is present, no more can be missing than are
absent there (the anchor points of Patrini et al., CVPR 2017).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from labelsieve.detect.pairs.noise import TagNoise

# The smallest part at either end has so many tags, as many as at the frequency of its classes; each part is twice the
# one before, up to this share of all tags.
FEWEST_TAGS, LARGEST_PART = 60, 0.5


@torch.no_grad()
def capped(noise: TagNoise, tagged: Tensor, tags: Tensor) -> TagNoise:
    """Lowers rates to what the surest pairs allow: the share there and two standard errors, of what allows least.

    Args:
        noise: What was fitted.
        tagged: How likely each pair is tagged by the evidence, (n, K).
        tags: Whether it is, (n, K), bool.
    """
    frequency = noise.frequency
    lowest = (tagged / frequency).flatten().argsort()
    column = lowest % tags.shape[1]
    added = _factor(tags.flatten()[lowest], noise.added[column], expected=frequency[column])
    highest = tagged.flatten().argsort(descending=True)
    column = highest % tags.shape[1]
    highest, column = highest[: int(tags.sum())], column[: int(tags.sum())]
    omitted = _factor(~tags.flatten()[highest], noise.omission[column], expected=torch.ones(len(highest)))
    return dataclasses.replace(noise, commission=noise.commission * added, omission=noise.omission * omitted)


def _factor(hits: Tensor, rates: Tensor, *, expected: Tensor) -> float:
    """Returns by what to multiply rates, at most 1, so that no part at the end has fewer hits than they say.

    Args:
        hits: Whether each pair is against what the evidence says, (m,), the surest first.
        rates: How likely that is by the noise alone, (m,).
        expected: What sizes of parts are measured in, (m,).
    """
    sizes, found, said = expected.double().cumsum(0), hits.double().cumsum(0), rates.double().cumsum(0)
    factor, size = 1.0, float(FEWEST_TAGS)
    while size <= LARGEST_PART * float(sizes[-1]):
        at = int(torch.searchsorted(sizes, size).clamp(max=len(sizes) - 1))
        count = float(found[at])
        factor = min(factor, (count + 2 * max(count, 1.0) ** 0.5) / max(float(said[at]), 1e-12))
        size *= 2
    return factor
