"""Tags that are left out and added on purpose, to measure a detector with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.core.validation import Rate, Seed, check_value
from labelsieve.data.tagged import TaggedImages


def inject_tags(tags: NDArray[np.bool_], *, omit: float = 0.0, add: float = 0.0, seed: int = 0) -> NDArray[np.bool_]:
    """Leaves tags out and adds others. The same arguments always give the same tags.

    Args:
        tags: Shape (N, K), bool, T of them given.
        omit: Share of the given ones to leave out, all equally likely: `round(omit * T)`.
        add: How many to add, as a share of T: `round(add * T)` absent pairs, of each class as often as it is given.
        seed: Seed of all draws.

    Returns:
        Shape (N, K), bool.

    Raises:
        SettingsError: A share is out of its range.
        DataError: There are not so many absent pairs.

    Example:
        >>> import numpy as np
        >>> tags = np.array([[True, False], [True, True], [False, True]])
        >>> int((inject_tags(tags, omit=0.5) != tags).sum())
        2
    """
    for name, value in (("omit", omit), ("add", add)):
        check_value(name, value, Rate)
    check_value("seed", seed, Seed)
    generator = np.random.default_rng(seed)
    result = tags.copy()
    rows, classes = np.nonzero(tags)
    left_out = generator.choice(len(rows), size=round(omit * len(rows)), replace=False)
    result[rows[left_out], classes[left_out]] = False
    count = round(add * len(rows))
    absent_rows, absent_classes = np.nonzero(~tags)
    # of each class as many as it is given, drawn from all images that lack it
    weight = (tags.sum(axis=0) / np.maximum((~tags).sum(axis=0), 1))[absent_classes]
    if count > int((weight > 0).sum()):
        raise DataError(f"expected {count} absent tags to add, found {int((weight > 0).sum())}; lower add")
    if count:
        added = generator.choice(len(weight), size=count, replace=False, p=weight / weight.sum())
        result[absent_rows[added], absent_classes[added]] = True
    return result


def with_tag_noise(images: TaggedImages, *, omit: float = 0.0, add: float = 0.0, seed: int = 0) -> TaggedImages:
    """Returns images with tags left out and added as given tags, and those of before as `truth`.

    See :func:`inject_tags`.
    """
    noisy = inject_tags(images.tags, omit=omit, add=add, seed=seed)
    omitted, added = int((images.tags & ~noisy).sum()), int((noisy & ~images.tags).sum())
    note = f"of {int(images.tags.sum())} tags {omitted} left out and {added} added with seed {seed}"
    result = images.with_tags(noisy, truth=images.tags)
    return replace(result, notes=(*images.notes, note))
