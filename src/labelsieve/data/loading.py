"""Loads labelled images from folders, files, the Hub or memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, SettingsError, setting
from labelsieve.core.files import check_reachable, expand_home
from labelsieve.core.progress import Progress
from labelsieve.data.box_formats.rows import box_notes, boxes_of
from labelsieve.data.boxes import Boxes
from labelsieve.data.class_notes import class_name_notes, class_size_notes
from labelsieve.data.images import LabelledImages
from labelsieve.data.input.ranges import with_ranges
from labelsieve.data.origin import absolute_source, check_limit, subset, with_origin
from labelsieve.data.sources.columns import Columns, Table, label_columns
from labelsieve.data.sources.contents import hash_images
from labelsieve.data.sources.image_paths import image_paths, undecoded_images
from labelsieve.data.sources.in_memory import read_memory
from labelsieve.data.sources.readers import read_dataset, read_path
from labelsieve.data.sources.table_labels import read_ids, read_table_labels


def load_images(
    source: Any,
    *,
    labels: Any = None,
    image_column: str | None = None,
    image_folder: str | Path | None = None,
    label_column: str | Sequence[str] | None = None,
    truth_column: str | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    noise: str | Path | None = None,
    box_margin: float | None = None,
    one_class: bool = False,
    progress: Progress | None = None,
) -> LabelledImages:
    """Loads images with a given label each. Images stay encoded on disk.

    Only a sample of the images whose values may not be 0 to 255 is decoded, to determine their range.

    Args:
        source: A folder of class folders; a CSV, Parquet, Arrow or Feather file with images, or with paths relative to
            its folder; a table in several files, by their folder or a pattern of their names; a folder written by
            `Dataset.save_to_disk`; `NAME:PATH`, a published data set in its official layout (docs/data-sets.md); boxes,
            each of which counts as an image: a COCO file, or a table with the columns `x`, `y`, `width` and `height` in
            pixels (docs/boxes.md); a Hub id `name/dataset`, or `name/dataset:configuration`; a `datasets.Dataset`; or
            images in memory: a uint8 array (N, H, W, 3) or (N, H, W), or a list of arrays (H, W, 3) or (H, W), or of
            PIL images.
        labels: N names or integers, for images in memory or a `datasets.Dataset` without a label column.
        image_column: Column of the images or paths. Like `label_column`, it is guessed if only one matches.
        image_folder: Folder of the images that a table names, with or without their suffix. By default, paths are
            relative to the folder of the table.
        label_column: Column of the given labels. Several columns are those of several annotators, who need not label
            every image; the given label is then their majority vote (docs/annotators.md).
        truth_column: Column of the true labels, if they are known. Used for metrics only. By default that of a
            published data set, if it has one.
        class_names: K names in the order of the indices, or a file with them: one per line, or a JSON list. By default
            those of the source, else the distinct labels, sorted. Names are compared case-insensitively, with `_` and
            `-` as spaces. If there are as many names as class folders, or as names of a `ClassLabel`, they rename these
            in their order; unchanged names must keep their position.
        split: Split of a published or Hub data set, a `DatasetDict`, a saved folder or a table in several files; by
            default the only one, else `train`.
        limit: Size of a random subset of the rows, which keep their order; all classes are kept.
        seed: Seed of that subset.
        noise: A file that `labelsieve noise` wrote for the same images: its wrong labels become the given labels, and
            the given labels become the truth. Other images are rejected.
        box_margin: Margin of a crop around its box, as a share of the sides of the box; None: 0.1.
        one_class: Whether a single class, or a folder without class folders, is allowed, as for `scan(against=...)`.
        progress: Receives progress.

    Returns:
        The images. Their `notes` list assumptions and irregularities. Their `ids` are the column `id` if there is one,
        else the relative paths of files, else row numbers. Their `contents` are 8-byte BLAKE2b hashes of the encoded
        images, the same in files and in tables; a missing image has the hash of its id.

    Raises:
        DataError: The source, its columns, labels or class names cannot be used. The message is one line with advice.
        SettingsError: `limit` or `seed` is out of range.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> pixels = np.zeros((4, 32, 32, 3), dtype=np.uint8)
        >>> images = ls.load_images(pixels, labels=["cat", "dog", "cat", "dog"])
        >>> images.labels.tolist()
        [0, 1, 0, 1]
        >>> images = ls.load_images("photos/")  # doctest: +SKIP
    """
    check_limit(limit, seed)
    if noise is not None and truth_column is not None:
        raise SettingsError(
            "a file of noise brings the true labels, which are the given ones; leave out the truth column"
        )
    wish = label_columns(label_column)
    if noise is not None and wish.annotators:
        raise SettingsError("a file of noise goes with one label column, not with several; leave it out")
    requested = replace(
        wish, image=image_column, truth=truth_column, folder=image_folder_of(image_folder), one_class=one_class
    )
    table = open_source(source, requested=requested, split=split, labels=labels)
    rows = subset(len(table.rows), limit, seed)
    images = _assemble(
        table,
        labels=labels,
        class_names=class_names,
        one_class=one_class,
        rows=rows,
        box_margin=box_margin,
        progress=progress or Progress(),
    )
    if noise is not None:
        from labelsieve.data.noise_files import apply_noise

        images = apply_noise(images, noise)
    arguments = {
        "image_column": image_column,
        "image_folder": None if requested.folder is None else str(requested.folder),
        "label_column": list(wish.annotators) or wish.label,
        "truth_column": truth_column,
        "class_names": None if class_names is None else list(images.class_names),
        "split": split,
        "limit": limit,
        "seed": None if limit is None else seed,
        "noise": None if noise is None else absolute_source(noise),
        "box_margin": box_margin,
        "one_class": one_class or None,
    }
    return with_origin(with_ranges(images), source, arguments)


def without_subset(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of :func:`load_images` that load all images of a source.

    Args:
        origin: The `origin` of images, which may be a subset (`limit`).
    """
    return {name: value for name, value in origin.items() if name not in ("limit", "seed")}


def image_folder_of(image_folder: str | Path | None) -> Path | None:
    """Returns the absolute path of the folder of images.

    Raises:
        DataError: It is not a folder.
    """
    if image_folder is None:
        return None
    folder = Path(os.path.abspath(expand_home(image_folder)))
    check_reachable(folder, DataError)
    if not str(image_folder) or not folder.is_dir():
        state = "is no folder" if folder.exists() else "does not exist"
        raise DataError(
            f'expected {setting("image_folder")} to be a folder of images, but "{image_folder}" {state}; check the path'
        )
    return folder


def open_source(source: Any, *, requested: Columns, split: str | None, labels: Any, what: str = "label") -> Table:
    """Reads the rows of a source on disk, on the Hub or in memory.

    Args:
        source: See :func:`load_images`.
        requested: The requested columns.
        split: The split.
        labels: The labels that were passed, or None.
        what: Name of a label in messages, in the singular.

    Raises:
        DataError: The source cannot be read, or the other arguments do not apply to it.
    """
    table = _opened(source, requested=requested, split=split, labels=labels, what=what)
    if not len(table.rows):
        raise DataError(f"expected images in {table.where}, found no rows; check the source")
    return table


def _opened(source: Any, *, requested: Columns, split: str | None, labels: Any, what: str) -> Table:
    if isinstance(source, str | Path):
        if labels is not None:
            raise DataError(f"{what}s go with images in memory only; name the column of a file with {what}_column")
        return read_path(str(source), requested=requested, split=split)
    if any(base.__module__.split(".")[0] == "datasets" for base in type(source).__mro__):
        if labels is not None and requested.label is not None:
            raise DataError(f"expected either {what}s or {what}_column, got both; leave one out")
        return read_dataset(source, requested=requested, split=split, label_needed=labels is None)
    if labels is None:
        kind = type(source).__name__
        raise DataError(f"expected a path, a Hub id, a data set, or images with {what}s=, got {kind} without {what}s")
    if any((requested.image, requested.label, requested.truth, requested.folder, split)):
        raise DataError(f"images in memory have no columns or splits; pass {what}s=, and the truth to with_{what}s()")
    return Table(rows=read_memory(source), columns=Columns(image="image"), where="the images in memory")


def _assemble(
    table: Table,
    *,
    labels: Any,
    class_names: Sequence[str] | str | Path | None,
    one_class: bool,
    rows: NDArray[np.int64] | None,
    box_margin: float | None,
    progress: Progress,
) -> LabelledImages:
    """Creates the images from the rows of a source; checks all labels before it takes the subset `rows`."""
    notes = list(table.notes)
    paths = image_paths(table, notes)
    boxes = _with_margin(table.boxes or boxes_of(table, paths), box_margin)
    if boxes is not None:
        if np.isnan(boxes.sides).any(axis=1).all():
            raise DataError(
                f"expected boxes in {table.where}, found none with numbers; for several labels per image without boxes "
                "use: labelsieve scan-tags"
            )
        notes += box_notes(boxes, table.image_files)
    ids = read_ids(table, paths if boxes is None else None, notes)
    table_labels = read_table_labels(table, ids, labels=labels, class_names=class_names, one_class=one_class)
    names, indices, truth, note, annotations = table_labels
    notes.append(note)
    images = LabelledImages(
        dataset=undecoded_images(table, paths, boxes),
        ids=tuple(ids),
        labels=indices,
        class_names=names,
        contents=np.zeros(len(ids), dtype=np.uint64),  # hashed below, for the subset only
        truth=truth,
        annotations=annotations,
        boxes=boxes,
    )
    if rows is not None:
        notes.append(f"a random subset of {len(rows)} of {len(ids)} images")
        images = images.take(rows)
    notes += [*class_name_notes(names), *class_size_notes(images.labels, names)]
    contents = hash_images(images.dataset, images.ids, notes, table=table, boxes=images.boxes, progress=progress)
    return replace(images, contents=contents, notes=tuple(notes))


def _with_margin(boxes: Boxes | None, margin: float | None) -> Boxes | None:
    if margin is None:
        return boxes
    if boxes is None:
        raise SettingsError(
            f"{setting('box_margin')} goes with boxes only, and here each row is an image; leave it out"
        )
    return boxes.with_margin(margin)
