"""Test sets: images with correct labels, to evaluate models. They are never used for model selection."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, did_you_mean
from labelsieve.data.images import Images, LabelledImages
from labelsieve.data.labels import normalise
from labelsieve.data.tags.records import TaggedImages


def with_class_names(test: LabelledImages, class_names: tuple[str, ...]) -> LabelledImages:
    """Returns test images with labels as indices into other class names, matched by name.

    Raises:
        DataError: A class of the test set is not among the other class names.
    """
    table = _class_positions(test.class_names, class_names)
    return dataclasses.replace(test, labels=table[test.labels], class_names=class_names, truth=None)


def with_tag_names(test: TaggedImages, class_names: tuple[str, ...]) -> TaggedImages:
    """Returns test images with tags in the columns of other class names, matched by name; the other columns are empty.

    Raises:
        DataError: A class of the test set is not among the other class names.
    """
    tags = np.zeros((len(test), len(class_names)), dtype=bool)
    np.logical_or.at(tags.T, _class_positions(test.class_names, class_names), test.tags.T)
    return dataclasses.replace(test, tags=tags, class_names=class_names, truth=None)


def _class_positions(names: tuple[str, ...], class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """Returns the position of each name among class names.

    Raises:
        DataError: A name is not among them.
    """
    position_of = {normalise(name): index for index, name in enumerate(class_names)}
    unknown = [name for name in names if normalise(name) not in position_of]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DataError(
            f'the class "{unknown[0]}"{more} of the test set is none of the {len(class_names)} of the run, such as '
            f'"{class_names[0]}"{did_you_mean(unknown[0], class_names)}; rename it, or give the names in the order of '
            "their numbers with --test-class-names"
        )
    return np.array([position_of[normalise(name)] for name in names], dtype=np.int64)


def overlap_note(test: Images, trained_on: NDArray[np.uint64]) -> tuple[str, ...]:
    """Returns a warning if test images are also training images, byte for byte.

    Args:
        test: The test images.
        trained_on: `contents` of the training images, (n,).
    """
    count = int(np.isin(test.contents, trained_on).sum())
    if not count:
        return ()
    return (f"{count:,} of {len(test):,} test images are among the training images: accuracy on the test set flatters",)
