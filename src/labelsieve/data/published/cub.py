"""CUB-200-2011: birds."""

from __future__ import annotations

import re
from pathlib import Path

from labelsieve.data.published.layout import Labels, PublishedSplit, home_of, looked_up, pairs, positions, readable

_TEXTS = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")
_NUMBER = re.compile(r"^\d+\.")


def read_cub(path: Path, split: str) -> PublishedSplit:
    """Reads CUB-200-2011. The lines of its text files are `NUMBER VALUE`; numbers identify images or classes."""
    home = home_of(path, title="CUB-200-2011", files=[*_TEXTS, "images/"], inside=["CUB_200_2011"])
    images, labels, classes, parts = (home / name for name in _TEXTS)
    names = dict(pairs(classes))
    part_of, label_of, flag_of_split = dict(pairs(parts)), dict(pairs(labels)), "1" if split == "train" else "0"
    listed_images = pairs(images)
    # otherwise, a truncated list would pass as a smaller data set
    looked_up(list(label_of), dict(listed_images), where=images, of=labels)
    flags = looked_up([number for number, _ in listed_images], part_of, where=parts, of=images)
    listed_images = [image for image, flag in zip(listed_images, flags, strict=True) if flag == flag_of_split]
    codes = looked_up([number for number, _ in listed_images], label_of, where=labels, of=images)
    return PublishedSplit(
        folder=home,
        images=[f"images/{file}" for _, file in listed_images],
        labels={
            "label": Labels(
                values=positions(codes, names, where=classes, of=labels),
                names=tuple(readable(_NUMBER.sub("", name)) for name in names.values()),
            )
        },
    )
