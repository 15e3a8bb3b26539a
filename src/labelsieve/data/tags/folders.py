"""Class folders in which an image may lie in several: as a link to one file, or as a copy of it."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.core.progress import Progress
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.contents import hash_images
from labelsieve.data.tags.columns import ONE_LABEL


def one_of_each(
    images: Any, ids: Sequence[str], given: NDArray[np.bool_], notes: list[str], *, table: Table, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Finds the files of a folder that are one image: links to the same file, or copies with the same bytes.

    Returns:
        The row of the first file of each of M images, (M,), and the classes of all its files, (M, K).

    Raises:
        DataError: No image lies in two class folders.
    """
    kept, image_of = grouped(_file_of(path) for path in images.with_format("arrow")[:]["image"].to_pylist())
    quiet: list[str] = []  # what is missing is noted later, with the images that are kept
    contents = hash_images(
        images.select(kept), [ids[row] for row in kept.tolist()], quiet, table=table, progress=progress
    )
    again, image_again = grouped(contents.tolist())
    kept, image_of = kept[again], image_again[image_of]
    tags = united(given, image_of)
    several = int((tags.sum(axis=1) > 1).sum())
    if not several:
        raise DataError(f"no image of {table.where} lies in two class folders, so each has one label; {ONE_LABEL}")
    lie = f"{several} of {len(kept)} images {'lies' if several == 1 else 'lie'} in several class folders"
    notes.append(f"{lie}, as links or copies ({len(ids)} files in all)")
    return kept, tags


def grouped(keys: Iterable[Hashable]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the place of the first of each different key, and of each key the number of its group."""
    first: dict[Hashable, int] = {}
    places: list[int] = []
    group = []
    for place, key in enumerate(keys):
        if key not in first:
            first[key] = len(places)
            places.append(place)
        group.append(first[key])
    return np.array(places, dtype=np.int64), np.array(group, dtype=np.int64)


def united(tags: NDArray[np.bool_], image_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns the tags of M images, (M, K), each of which has those of its rows.

    Args:
        tags: Shape (R, K), bool.
        image_of: Shape (R,): the image of each row, from 0 to M - 1.

    Example:
        >>> import numpy as np
        >>> united(np.array([[True, False], [False, False], [False, True]]), np.array([0, 1, 0])).tolist()
        [[True, True], [False, False]]
    """
    result = np.zeros((int(image_of.max(initial=-1)) + 1, tags.shape[1]), dtype=bool)
    rows, classes = np.nonzero(tags)
    result[image_of[rows], classes] = True
    return result


def _file_of(image: dict[str, Any]) -> Hashable:
    """Returns what is the same of all links to a file; its path where there is no file."""
    try:
        found = os.stat(image["path"])
    except OSError:
        return str(image["path"])
    return (found.st_dev, found.st_ino) if found.st_ino else str(image["path"])
