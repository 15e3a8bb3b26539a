"""Content hashes of images, from their encoded bytes. Hashing also detects missing files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, setting, shown
from labelsieve.core.progress import Progress
from labelsieve.data.sources.column_kinds import kind_of
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.file_kinds import POINTER_SIZE, is_pointer
from labelsieve.data.sources.image_paths import advice_on_folder, relative_path

if TYPE_CHECKING:
    from datasets import Dataset

    from labelsieve.data.boxes import Boxes

_BATCH = 64
# Maximum length of a file name; a column in which all texts are longer has no paths.
_MAX_PATH_LENGTH = 255
# Number of bytes per read, and of threads, so that reading and hashing overlap.
_PART = 1024 * 1024
_THREADS = 4


def hash_images(
    images: Dataset,
    ids: Sequence[str],
    notes: list[str],
    *,
    table: Table,
    boxes: Boxes | None = None,
    progress: Progress,
) -> NDArray[np.uint64]:
    """Hashes each image, batch by batch; rejects a source without any image.

    For boxes, each image is read once, and its hash is combined with the box. If boxes of an image coincide, their
    hashes also contain a number, so that they do not count as copies, which share one label.

    Args:
        images: N undecoded images, in the column `image`.
        ids: The N ids, for notes, and for hashes of missing images.
        notes: Receives notes on missing images and on Git LFS pointers.
        table: The source, for messages.
        boxes: The N boxes, if rows are boxes.
        progress: Receives progress.
    """
    if boxes is not None:
        _, first, inverse = np.unique(boxes.image_of, return_index=True, return_inverse=True)
        names = [ids[row] for row in first]
        hashed = hash_images(images.select(first), names, notes, table=table, progress=progress)
        occurrences: Counter[tuple[int, bytes]] = Counter()
        joined = []
        for image, content, sides in zip(boxes.image_of.tolist(), hashed[inverse].tolist(), boxes.sides, strict=True):
            where = sides.tobytes()
            nth = occurrences[image, where]
            occurrences[image, where] += 1
            joined.append(digest_of(content.to_bytes(8, "little"), where, b"%d" % nth if nth else b""))
        return np.frombuffer(b"".join(joined), dtype="<u8").astype(np.uint64)
    hashes = np.empty(len(ids), dtype=np.uint64)
    missing: list[tuple[str, str]] = []
    pointers: list[str] = []
    row = 0
    with progress.task("looking for the images", total=len(ids), unit="images", brief=True) as advance:
        for digest, pointer, path in _hashes(images, advance):
            if digest is None:
                missing.append((ids[row], path))
                digest, pointer = digest_of(b"missing\0" + ids[row].encode()), False
            if pointer:
                pointers.append(ids[row])
            hashes[row] = int.from_bytes(digest, "little")
            row += 1
    _note_missing(missing, pointers, ids, notes, table=table)
    return hashes


def _hashes(images: Dataset, advance: Callable[[int], None]) -> Iterator[tuple[bytes | None, bool, str]]:
    """Yields, for each image, its hash (None if missing), whether it is a Git LFS pointer, and its path."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in images.with_format("arrow").iter(batch_size=_BATCH):
            # selected rows are separate chunks, which would otherwise be passed to the threads one by one
            yield from _hashes_of(batch.column("image").combine_chunks(), pool)
            advance(len(batch))


def _hashes_of(chunk: Any, pool: ThreadPoolExecutor) -> Iterator[tuple[bytes | None, bool, str]]:
    encoded = chunk.field("bytes")
    paths = [
        None if not image.is_valid or data.is_valid else path.as_py()
        for image, data, path in zip(chunk, encoded, chunk.field("path"), strict=True)
    ]
    files = _hash_files([path for path in paths if path is not None], pool)
    for image, data, path in zip(chunk, encoded, paths, strict=True):
        if path is not None:
            yield *next(files), path
        elif image.is_valid and data.is_valid:
            buffer = data.as_buffer()
            yield digest_of(buffer), is_pointer(buffer[:POINTER_SIZE].to_pybytes()), ""
        else:
            yield None, False, ""


def _hash_files(paths: Sequence[str], pool: ThreadPoolExecutor) -> Iterator[tuple[bytes | None, bool]]:
    """Yields the result of `_hash_file` per file, in order; the files are distributed evenly over the threads."""
    parts = [*pool.map(lambda first: [*map(_hash_file, paths[first::_THREADS])], range(_THREADS))]
    yield from (parts[index % _THREADS][index // _THREADS] for index in range(len(paths)))


def _note_missing(
    missing: Sequence[tuple[str, str]], pointers: Sequence[str], ids: Sequence[str], notes: list[str], *, table: Table
) -> None:
    if len(missing) == len(ids):
        first = relative_path(missing[0][1], str(table.folder or ".")) if missing[0][1] else missing[0][0]
        raise DataError(
            f'none of the {len(ids)} images of {table.where} was found (first: "{shown(first)}"); '
            f"{_where_to_look(table, first)}"
        )
    if len(pointers) == len(ids):
        raise DataError(
            f"the images of {table.where} are Git LFS pointers, not the files themselves; get them with: git lfs pull"
        )
    if missing:
        notes.append(f"{len(missing)} of {len(ids)} images are missing (first: {shown(missing[0][0])})")
    if pointers:
        notes.append(
            f"{len(pointers)} of {len(ids)} images are Git LFS pointers (first: {shown(pointers[0])}); get the files "
            "with: git lfs pull"
        )


def _where_to_look(table: Table, first: str) -> str:
    """Returns the advice if no image of a table was found."""
    if table.columns.folder is not None:
        name = table.columns.folder.name
        prefix_hint = f"; the paths begin with {shown(name)}/, so pass the folder that holds it"
        return f"check {setting('image_folder')}" + (prefix_hint if first.split("/")[0] == name else "")
    column = str(table.columns.image)
    kind = table.rows.features[column]
    if table.folder is None or kind_of(kind) != "texts":
        return "check the paths"
    values = [value or "" for value in table.rows.select(range(min(len(table.rows), _BATCH)))[column]]
    if all(len(value) > _MAX_PATH_LENGTH for value in values):
        return f'the column "{shown(column)}" holds no paths; write encoded images as bytes, in a Parquet file'
    options = advice_on_folder(values, table_folder=table.folder)
    return (
        f"add {options}" if options else f"check the paths, or say with {setting('image_folder')} where the images lie"
    )


def digest_of(*parts: Any) -> bytes:
    """Returns the 8-byte BLAKE2b hash of the concatenated parts."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _hash_file(path: str) -> tuple[bytes | None, bool]:
    """Hashes a file; the same image as bytes in a table has the same hash.

    Returns:
        The hash (None if the file cannot be read), and whether the file is a Git LFS pointer.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None, False
        with open(path, "rb", buffering=0) as handle:
            data = handle.read(_PART)
            digest, pointer = hashlib.blake2b(data, digest_size=8), is_pointer(data[:POINTER_SIZE])
            while data:
                data = handle.read(_PART)
                digest.update(data)
            return digest.digest(), pointer
    except OSError:
        return None, False
