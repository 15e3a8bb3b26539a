"""Class folders as tags: an image may be in several folders, as a link or as a copy."""

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


def merge_duplicate_files(
    images: Any,
    ids: Sequence[str],
    tags_of_files: NDArray[np.bool_],
    notes: list[str],
    *,
    table: Table,
    progress: Progress,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Merges the files of a folder that are one image: links to the same file, or copies with the same bytes.

    Args:
        images: N undecoded images, in the column `image`.
        ids: The N ids.
        tags_of_files: Shape (N, K): the class folder of each file.
        notes: Receives a note on images in several class folders.
        table: The folder, for messages.
        progress: Receives progress.

    Returns:
        The row of the first file of each of M images, (M,), and the classes of all its files, (M, K).

    Raises:
        DataError: No image is in two class folders.
    """
    first_rows, image_of = grouped(_file_of(path) for path in images.with_format("arrow")[:]["image"].to_pylist())
    unused_notes: list[str] = []  # missing files are noted later, for the merged images
    contents = hash_images(
        images.select(first_rows),
        [ids[row] for row in first_rows.tolist()],
        unused_notes,
        table=table,
        progress=progress,
    )
    unique, merged_image = grouped(contents.tolist())
    first_rows, image_of = first_rows[unique], merged_image[image_of]
    tags = union_of_rows(tags_of_files, image_of)
    several = int((tags.sum(axis=1) > 1).sum())
    if not several:
        raise DataError(f"no image of {table.where} lies in two class folders, so each has one label; {ONE_LABEL}")
    note = f"{several} of {len(first_rows)} images {'lies' if several == 1 else 'lie'} in several class folders"
    notes.append(f"{note}, as links or copies ({len(ids)} files in all)")
    return first_rows, tags


def grouped(keys: Iterable[Hashable]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the position of the first of each distinct key, and the group number of each key."""
    first: dict[Hashable, int] = {}
    positions: list[int] = []
    group = []
    for position, key in enumerate(keys):
        if key not in first:
            first[key] = len(positions)
            positions.append(position)
        group.append(first[key])
    return np.array(positions, dtype=np.int64), np.array(group, dtype=np.int64)


def union_of_rows(tags: NDArray[np.bool_], image_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns the tags of M images, (M, K), each the union of its rows.

    Args:
        tags: Shape (R, K), bool.
        image_of: Shape (R,): the image of each row, from 0 to M - 1.

    Example:
        >>> import numpy as np
        >>> union_of_rows(np.array([[True, False], [False, False], [False, True]]), np.array([0, 1, 0])).tolist()
        [[True, True], [False, False]]
    """
    result = np.zeros((int(image_of.max(initial=-1)) + 1, tags.shape[1]), dtype=bool)
    rows, classes = np.nonzero(tags)
    result[image_of[rows], classes] = True
    return result


def _file_of(image: dict[str, Any]) -> Hashable:
    """Returns a key that is equal for all links to a file; its path if there is no file."""
    try:
        status = os.stat(image["path"])
    except OSError:
        return str(image["path"])
    return (status.st_dev, status.st_ino) if status.st_ino else str(image["path"])
