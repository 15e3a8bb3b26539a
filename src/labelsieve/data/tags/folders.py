"""Class folders as tags: an image may be in several folders, as a link or as a copy."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError
from labelsieve.core.progress import Progress
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.contents import hash_images
from labelsieve.data.tags.columns import ONE_LABEL
from labelsieve.data.tags.records import TaggedImages


def merge_duplicate_files(
    images: TaggedImages, notes: list[str], *, table: Table, progress: Progress
) -> tuple[TaggedImages, bool]:
    """Merges the files of a folder that are the same image: links to one file, or copies with the same bytes.

    Args:
        images: N files, each with the tag of its class folder, not hashed yet.
        notes: Receives a note on images in several class folders.
        table: The folder, for messages.
        progress: Receives progress.

    Returns:
        The first file of each image, with its hash and the classes of all its files; and whether the caller still has
        to note missing files, because only the caller knows which images are used.

    Raises:
        DataError: No image is in two class folders.
    """
    files = [_file_of(image["path"]) for image in images.dataset.with_format("arrow")[:]["image"].to_pylist()]
    first_rows, file_of = grouped(files)
    merged = images.take(first_rows)
    notes_on_files: list[str] = []
    contents = hash_images(merged.dataset, merged.ids, notes_on_files, table=table, progress=progress)
    first_files, image_of = grouped(contents)
    tags = union_of_rows(images.tags, image_of[file_of])
    several = int((tags.sum(axis=1) > 1).sum())
    if not several:
        raise DataError(f"no image of {table.where} lies in two class folders, so each has one label; {ONE_LABEL}")
    note = f"{several} of {len(tags)} images {'lies' if several == 1 else 'lie'} in several class folders"
    notes.append(f"{note}, as links or copies ({len(images)} files in all)")
    return replace(merged, contents=contents).take(first_files).with_tags(tags), bool(notes_on_files)


def grouped(keys: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the position of the first of each distinct key, and the group number of each key."""
    import pyarrow as pa

    group = pa.chunked_array([pa.array(keys)]).dictionary_encode().combine_chunks().indices.to_numpy()
    return np.unique(group, return_index=True)[1], group.astype(np.int64)


def union_of_rows(tags: NDArray[np.bool_], image_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns the tags of M images, (M, K): for each image, the union of its rows.

    Args:
        tags: Shape (R, K), bool.
        image_of: Shape (R,): the image of each row, from 0 to M - 1.

    Example:
        >>> union_of_rows(np.array([[True, False], [False, False], [False, True]]), np.array([0, 1, 0])).tolist()
        [[True, True], [False, False]]
    """
    result = np.zeros((int(image_of.max(initial=-1)) + 1, tags.shape[1]), dtype=bool)
    rows, classes = np.nonzero(tags)
    result[image_of[rows], classes] = True
    return result


def _file_of(path: str) -> str:
    """Returns a key that is equal for all links to a file; its path if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return path
    return f"{status.st_dev}:{status.st_ino}" if status.st_ino else path
