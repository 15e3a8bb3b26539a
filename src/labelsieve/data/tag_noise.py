"""Tags that are left out and added on purpose, to measure a detector with."""

from __future__ import annotations

from dataclasses import replace

from labelsieve.data.noise import inject_tags
from labelsieve.data.tagged import TaggedImages


def with_tag_noise(images: TaggedImages, *, omit: float = 0.0, add: float = 0.0, seed: int = 0) -> TaggedImages:
    """Returns images with tags left out and added as given tags, and those of before as `truth`.

    See :func:`labelsieve.data.noise.inject_tags`.
    """
    noisy = inject_tags(images.tags, omit=omit, add=add, seed=seed)
    omitted, added = int((images.tags & ~noisy).sum()), int((noisy & ~images.tags).sum())
    note = f"of {int(images.tags.sum())} tags {omitted} left out and {added} added with seed {seed}"
    result = images.with_tags(noisy, truth=images.tags)
    return replace(result, notes=(*images.notes, note))
