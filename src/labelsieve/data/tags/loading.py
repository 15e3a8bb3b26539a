"""Loads images with any number of labels each, called tags here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, SettingsError, listed, setting, shown
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted
from labelsieve.data.class_notes import class_name_notes
from labelsieve.data.input.ranges import with_ranges
from labelsieve.data.labels import given_names, read_labels, renamed, resolve_class_names, to_indices
from labelsieve.data.loading import image_folder_of, open_source
from labelsieve.data.origin import absolute_source, check_limit, subset, with_origin
from labelsieve.data.sources.columns import Table, label_columns
from labelsieve.data.sources.contents import hash_images
from labelsieve.data.sources.image_paths import image_paths, undecoded_images
from labelsieve.data.sources.table_labels import read_ids
from labelsieve.data.tags.boxes import tags_of_boxes
from labelsieve.data.tags.columns import (
    ONE_LABEL,
    TagLists,
    guess_tag_columns,
    read_class_columns,
    read_tag_column,
    tag_lists,
)
from labelsieve.data.tags.folders import grouped, merge_duplicate_files, union_of_rows
from labelsieve.data.tags.records import TaggedImages, checked_tags


def load_tags(
    source: Any,
    *,
    tags: Any = None,
    tag_column: str | Sequence[str] | None = None,
    separator: str | None = None,
    image_column: str | None = None,
    image_folder: str | Path | None = None,
    truth_column: str | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    noise: str | Path | None = None,
    progress: Progress | None = None,
) -> TaggedImages:
    """Loads images with any number of labels each. Images stay encoded on disk.

    Args:
        source: A CSV, Parquet, Arrow or Feather file with images or their paths, with one row per image or one row per
            tag, or a table in several files; a folder written by `Dataset.save_to_disk`; a Hub id; a
            `datasets.Dataset`; a COCO file, whose tags are the categories of each image, with or without boxes; other
            annotations of boxes; a folder of class folders, where an image may be in several as a link or a copy; or
            images in memory, see :func:`labelsieve.load_images`.
        tags: For images in memory, or a `datasets.Dataset` without tags: an array (N, K) of bool with `class_names`, or
            N lists of names or integers, or of one value of 0 or 1 for each of the `class_names`.
        tag_column: Column of lists of names or integers, or of texts such as `cat;dog`; or several columns of 0 and 1,
            one per class, named after it. Guessed if only one matches; columns of 0 and 1 only if there is no other.
        separator: The separator of two tags in a text. By default `|`, `;` or `,`, if the texts contain only one of
            them; texts may also be lists as JSON or Python writes them.
        image_column: Column of the images or paths. Guessed if only one matches.
        image_folder: Folder of the images that a table names.
        truth_column: Column of the true tags, if they are known: lists or texts. Used for metrics only.
        class_names: K names in the order of the indices, or a file of them, see :func:`labelsieve.load_images`. By
            default those of the source, else the distinct tags, sorted.
        split: Split of a Hub data set, a `DatasetDict`, a saved folder or a table in several files.
        limit: Size of a random subset of the images; all classes are kept.
        seed: Seed of that subset.
        noise: A file that `labelsieve noise --kind tags` wrote for the same images: its noisy tags become the given
            tags, and the given tags become the truth.
        progress: Receives progress.

    Returns:
        The images. Their `notes` list assumptions and irregularities.

    Raises:
        DataError: The source, its columns, tags or class names cannot be used, or it has one label per image. The
            message is one line with advice.
        SettingsError: `limit` or `seed` is out of range, or arguments exclude each other.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> pixels = np.zeros((3, 32, 32, 3), dtype=np.uint8)
        >>> images = ls.load_tags(pixels, tags=[["cat", "dog"], ["dog"], []])
        >>> [images.names_of(row) for row in range(3)]
        [('cat', 'dog'), ('dog',), ()]
        >>> images = ls.load_tags("photos.csv", tag_column="tags", separator=";")  # doctest: +SKIP
    """
    check_limit(limit, seed)
    if noise is not None and truth_column is not None:
        raise SettingsError(
            "a file of noise brings the true tags, which are the given ones; leave out the truth column"
        )
    if separator == "":
        raise SettingsError('expected a mark such as ";" for separator, got an empty text; leave it out to guess it')
    requested = replace(
        label_columns(tag_column or None, what="tag", of="class"),
        image=image_column,
        truth=truth_column,
        folder=image_folder_of(image_folder),
        guess=guess_tag_columns,
        option="tag_column",
    )
    columns = requested.annotators or ((requested.label,) if requested.label is not None else ())
    table = open_source(source, requested=requested, split=split, labels=tags, what="tag")
    if table.boxes is not None:
        table = tags_of_boxes(table)
    passed = _Passed(tags, guessed=not columns, separator=separator, class_names=class_names)
    images = _assemble(table, passed, limit=limit, seed=seed, progress=progress or Progress())
    if noise is not None:
        from labelsieve.data.noise_files import apply_noise

        images = apply_noise(images, noise)
    arguments = {
        "tag_column": list(columns) or None,
        "separator": separator,
        "image_column": image_column,
        "image_folder": None if requested.folder is None else str(requested.folder),
        "truth_column": truth_column,
        "class_names": None if class_names is None else list(images.class_names),
        "split": split,
        "limit": limit,
        "seed": None if limit is None else seed,
        "noise": None if noise is None else absolute_source(noise),
    }
    return with_origin(with_ranges(images), source, arguments)


class _Passed(NamedTuple):
    """Arguments of :func:`load_tags` that describe the tags, and whether the columns of tags were guessed."""

    tags: Any
    guessed: bool
    separator: str | None
    class_names: Sequence[str] | str | Path | None

    @property
    def classes(self) -> int | None:
        """The number of class names that were passed, or None."""
        return None if self.class_names is None else len(given_names(self.class_names)[0])


class _TableTags(NamedTuple):
    """Class names, given and true tags of R rows, (R, K), and whether the source has a value of 0 or 1 per class."""

    class_names: tuple[str, ...]
    given: NDArray[np.bool_]
    truth: NDArray[np.bool_] | None
    is_table: bool


def _assemble(table: Table, passed: _Passed, *, limit: int | None, seed: int, progress: Progress) -> TaggedImages:
    """Creates the images from the rows of a source; checks all tags before it takes a subset."""
    notes = list(table.notes)
    paths = image_paths(table, notes)
    table_tags = _read(table, paths, passed, notes)
    if table.class_names is None and paths is not None:
        table, paths, table_tags = _one_row_per_image(table, paths, table_tags, notes)
    names, ids = table_tags.class_names, read_ids(table, paths, notes)
    images = TaggedImages(
        dataset=undecoded_images(table, paths),
        ids=tuple(ids),
        contents=np.zeros(len(ids), dtype=np.uint64),  # hashed below, only for the subset
        tags=table_tags.given,
        truth=table_tags.truth,
        class_names=names,
    )
    to_hash = True
    if table.class_names is not None:
        images, to_hash = merge_duplicate_files(images, notes, table=table, progress=progress)
    elif not table_tags.is_table and all(
        (bits.sum(axis=1) == 1).all() for bits in (images.tags, images.truth) if bits is not None
    ):
        raise DataError(
            f"each of the {len(images)} images has one label in {table.where}; {ONE_LABEL}, or say with "
            f"{setting('separator')} what stands between several"
        )
    _check_tags(images.tags, names, table.where)
    rows = subset(len(images), limit, seed)
    if rows is not None:
        notes.append(f"a random subset of {len(rows)} of {len(images)} images")
        images = images.take(rows)
    notes += [*class_name_notes(names), *_tag_notes(images.tags)]
    if to_hash:
        contents = hash_images(images.dataset, images.ids, notes, table=table, progress=progress)
        images = replace(images, contents=contents)
    return replace(images, notes=tuple(notes))


def _read(table: Table, paths: Sequence[str] | None, passed: _Passed, notes: list[str]) -> _TableTags:
    """Reads the tags of each row, and the true ones if there is a column of them."""
    ids = [f"row {row + 1}" for row in range(len(table.rows))] if paths is None else paths  # for messages
    is_array = hasattr(passed.tags, "__array__") and np.ndim(passed.tags) == 2
    if is_array and passed.class_names is None:
        raise DataError(
            f"expected {setting('class_names')} with an array of tags, the names of its columns, got none; pass them"
        )
    given = tag_lists([], where="tags") if is_array else _given_tags(table, passed)
    truth = table.columns.truth and read_tag_column(
        table, table.columns.truth, separator=passed.separator, classes=passed.classes
    )
    notes += [*given.notes, *(truth.notes if truth else ())]
    if not is_array and not len(given.rows):
        raise DataError(f"expected images with tags in {given.labels.where}, found none at all; name another column")
    values = dict.fromkeys((*given.labels.values, *(truth.labels.values if truth else ())))
    all_labels = replace(given.labels, values=tuple(values))  # includes classes that only true tags have
    names, note = resolve_class_names(all_labels, passed.class_names)
    notes.append(note)
    by_number = passed.class_names is not None or given.labels.class_names is not None

    def matrix(tags: TagLists) -> NDArray[np.bool_]:
        of_rows, former = [ids[row] for row in tags.rows.tolist()], renamed(tags.labels, names)
        codes = to_indices(tags.labels, class_names=names, ids=of_rows, by_number=by_number, former=former)
        bits = np.zeros((len(ids), len(names)), dtype=bool)
        bits[tags.rows, codes] = True
        if more := len(codes) - int(bits.sum()):
            twice = counted(more, "tag is", "tags are")
            notes.append(
                f"{twice} given more than once to the same image and {'counts' if more == 1 else 'count'} once"
            )
        return bits

    tags = checked_tags(passed.tags, shape=(len(ids), len(names))) if is_array else matrix(given)
    return _TableTags(names, tags, matrix(truth) if truth else None, is_array or given.is_table)


def _one_row_per_image(
    table: Table, paths: list[str], table_tags: _TableTags, notes: list[str]
) -> tuple[Table, list[str], _TableTags]:
    """Merges the rows of each image if a table has one row per tag: no row has two tags, and paths repeat."""
    first_rows, image_of = grouped(paths)
    if len(first_rows) == len(paths) or (table_tags.given.sum(axis=1) > 1).any():
        return table, paths, table_tags
    notes.append(f"the tags of an image are those of its rows: {len(first_rows)} images in {len(paths)} rows")
    truth = None if table_tags.truth is None else union_of_rows(table_tags.truth, image_of)
    return (
        replace(table, rows=table.rows.select(first_rows), columns=replace(table.columns, id=None)),
        [paths[row] for row in first_rows.tolist()],
        table_tags._replace(given=union_of_rows(table_tags.given, image_of), truth=truth),
    )


def _given_tags(table: Table, passed: _Passed) -> TagLists:
    """Reads the given tags from the argument or the columns of the table."""
    if passed.tags is not None:
        return tag_lists(_as_lists(passed.tags, len(table.rows)), where="tags", classes=passed.classes)
    if table.columns.annotators:
        return read_class_columns(table, table.columns.annotators, guessed=passed.guessed)
    name = str(table.columns.label)
    if table.class_names is None:
        return read_tag_column(table, name, separator=passed.separator, classes=passed.classes)
    # a folder of class folders: one tag per file
    labels = read_labels(
        table.rows[name], where=table.where, names_of_integers=table.class_names, names_from="the class folders"
    )
    return TagLists(rows=np.arange(len(table.rows)), labels=labels)


def _as_lists(tags: Any, count: int) -> list[list[Any]]:
    rows = list(tags) if np.iterable(tags) else [tags]
    odd = [row for row in rows if isinstance(row, str | bytes) or not np.iterable(row)]
    if odd or len(rows) != count:
        actual = shown(repr(odd[0])) if odd else f"{len(rows)} lists"
        raise DataError(
            f"expected {count} lists of tags, one for each image, got {actual}; an image without tags has an empty list"
        )
    return [[tag.item() if isinstance(tag, np.integer) else tag for tag in row] for row in rows]


def _check_tags(tags: NDArray[np.bool_], names: Sequence[str], where: str) -> None:
    if not tags.any():
        raise DataError(f"expected images with tags in {where}, found none at all; check the source")
    if tags.all():
        raise DataError(
            f"each of the {len(tags)} images has all of the tags {listed(names)} in {where}; expected some to be absent"
        )


def _tag_notes(tags: NDArray[np.bool_]) -> list[str]:
    """Returns a note on the number of tags, and of images without tags."""
    counts = tags.sum(axis=1)
    note = f"{int(counts.sum())} tags of {len(tags)} images, {counts.mean():.1f} an image"
    none = int((counts == 0).sum())
    return [note + (f"; {counted(none, 'image has', 'images have')} no tag" if none else "")]
