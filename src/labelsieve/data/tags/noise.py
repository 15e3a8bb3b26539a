"""Noise for several labels per image: correct tags are removed, and wrong ones are added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.validation import Rate, Seed, check_value
from labelsieve.data.noise_kinds import NOISE
from labelsieve.data.tags.records import TaggedImages, checked_tags


def inject_tags(tags: NDArray[np.bool_], *, omit: float = 0.2, add: float = 0.1, seed: int = 0) -> NDArray[np.bool_]:
    """Removes correct tags and adds wrong ones, for several labels per image.

    First, exactly `round(omit * T)` of the T tags are removed, all equally likely. Then each class gets wrong tags on
    random images that do not show it, until they are a share `add` of its tags, rounded: "10 % wrong and 20 % missing"
    is `add=0.1, omit=0.2`. Removed tags are not added again, and no class gets more wrong tags than there are images
    without it. In the result, some images may have no tags.

    Args:
        tags: Shape (N, K), bool: the correct tags.
        omit: Share of the correct tags that are removed, from 0 to below 1.
        add: Share of wrong tags in the result, from 0 to below 1.
        seed: Random seed.

    Returns:
        Shape (N, K), bool.

    Raises:
        SettingsError: A share is out of range.
        DataError: The tags are not an array (N, K) of bool.

    Example:
        >>> right = np.zeros((1000, 2), dtype=bool)
        >>> right[:450, 0] = True
        >>> tags = inject_tags(right, omit=0.2, add=0.1)
        >>> int((right & ~tags).sum()), int((tags & ~right).sum()), int(tags.sum())
        (90, 40, 400)
    """
    check_value("omit", omit, Rate)
    check_value("add", add, Rate)
    check_value("seed", seed, Seed)
    tags = checked_tags(tags)
    rng, noisy = np.random.default_rng(seed), tags.copy()
    rows, columns = tags.nonzero()
    omitted = rng.choice(len(rows), size=round(omit * len(rows)), replace=False)
    noisy[rows[omitted], columns[omitted]] = False
    for column in range(tags.shape[1]):
        free = np.flatnonzero(~tags[:, column])
        count = round(int(noisy[:, column].sum()) * add / (1 - add))
        noisy[rng.choice(free, size=min(count, len(free)), replace=False), column] = True
    return noisy


def tag_noise(images: TaggedImages, *, seed: int, omit: float, add: float) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Returns the noisy tags of :func:`inject_tags`, (N, K), and notes for the user.

    Args:
        images: N images.
        seed: Random seed.
        omit: Share of the correct tags that are removed.
        add: Share of wrong tags in the result.
    """
    return inject_tags(images.tags, omit=omit, add=add, seed=seed), ()


def with_tag_noise(images: TaggedImages, *, kind: str, seed: int = 0, **shares: float) -> TaggedImages:
    """Returns images with noisy tags as given tags, the previous tags as `truth`, and a note.

    Args:
        images: N images; their tags count as correct.
        kind: A kind of `NOISE` for tags.
        seed: Random seed.
        **shares: Parameters of the kind; 0 by default.
    """
    noisy, notes = NOISE[kind](images, seed=seed, **dict.fromkeys(NOISE.entries[kind].takes, 0.0) | shares)
    omitted, added = int((images.tags & ~noisy).sum()), int((noisy & ~images.tags).sum())
    note = f"of {int(images.tags.sum())} tags {omitted} left out and {added} added with seed {seed}"
    return replace(images.with_tags(noisy, truth=images.tags), notes=(*images.notes, *notes, note))
