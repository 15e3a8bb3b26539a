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
from labelsieve.data.labels import read_labels, renamed, resolve_class_names, to_indices
from labelsieve.data.loading import (
    absolute_source,
    check_limit,
    image_folder_of,
    open_source,
    subset,
    with_origin,
)
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.contents import hash_images
from labelsieve.data.sources.image_paths import image_paths
from labelsieve.data.sources.table_labels import read_ids
from labelsieve.data.sources.undecoded import undecoded_images
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
        source: A CSV, Parquet, Arrow or Feather file with images or their paths, one row an image or one row a tag, or
            a table in several files; a folder written by `Dataset.save_to_disk`; a Hub id; a `datasets.Dataset`; a COCO
            file, of which the categories of each image count and no boxes are needed; other annotations of boxes; a
            folder of class folders in which an image lies in several, as a link or a copy; or images in memory, see
            :func:`labelsieve.load_images`.
        tags: For images in memory, or a `datasets.Dataset` without tags: an array (N, K) of bool with `class_names`,
            or N lists of names or integers, or of one value of 0 or 1 for each of the `class_names`.
        tag_column: Column of lists of names or integers, or of texts such as `cat;dog`; or several columns of 0 and 1,
            one a class, named by it. Guessed where only one fits; columns of 0 and 1 where there is no other.
        separator: The separator of two tags in a text. By default `|`, `;` or `,`, if the texts have only one of them;
            texts may also be lists as JSON or Python writes them.
        image_column: Column of the images or paths. Guessed if only one matches.
        image_folder: Folder of the images that a table names.
        truth_column: Column of the true tags, if they are known: lists or texts. Used for metrics only.
        class_names: K names in the order of the indices, or a file of them, see :func:`labelsieve.load_images`. By
            default those of the source; else the different tags, sorted.
        split: Split of a Hub data set, a `DatasetDict`, a saved folder or a table in several files.
        limit: Take a random subset of this many images; all classes stay.
        seed: Seed of that subset.
        noise: A file that `labelsieve noise --kind tags` wrote for the same images: its tags become the given ones, and
            the given ones the true ones.
        progress: Receives progress.

    Returns:
        The images. Their `notes` state assumptions and oddities.

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
    columns = _columns(tag_column)
    requested = Columns(
        image=image_column,
        label=columns[0] if columns else None,
        annotators=columns if len(columns) > 1 else (),
        truth=truth_column,
        folder=image_folder_of(image_folder),
        guess=guess_tag_columns,
        option="tag_column",
    )
    table = open_source(source, requested=requested, split=split, labels=tags, what="tag")
    if table.boxes is not None:
        table = tags_of_boxes(table)
    images = _assemble(
        table, tags, columns, separator=separator, class_names=class_names, limit=limit, seed=seed, progress=progress
    )
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


def _columns(names_of_columns: str | Sequence[str] | None) -> tuple[str, ...]:
    names = (names_of_columns,) if isinstance(names_of_columns, str) else tuple(names_of_columns or ())
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f'the tag column "{shown(twice[0])}" is named twice; name each class once')
    return names


def _assemble(
    table: Table,
    tags: Any,
    columns: Sequence[str],
    *,
    separator: str | None,
    class_names: Sequence[str] | str | Path | None,
    limit: int | None,
    seed: int,
    progress: Progress | None,
) -> TaggedImages:
    """Turns the rows of a source into the record; all tags are checked before a subset is chosen."""
    if not len(table.rows):
        raise DataError(f"expected images in {table.where}, found no rows; check the source")
    notes, progress = list(table.notes), progress or Progress()
    paths = image_paths(table, notes)
    table_tags = _read(table, paths, tags, columns, notes, separator=separator, class_names=class_names)
    if table.class_names is None and paths is not None:
        table, paths, table_tags = _one_row_per_image(table, paths, table_tags, notes)
    names, tag_matrix, truth = table_tags.class_names, table_tags.given, table_tags.truth
    ids, images = read_ids(table, paths, notes), undecoded_images(table, paths)
    if table.class_names is not None:
        first_rows, tag_matrix = merge_duplicate_files(images, ids, tag_matrix, notes, table=table, progress=progress)
        images, ids = images.select(first_rows), [ids[row] for row in first_rows.tolist()]
    elif not table_tags.is_table and all(
        (bits.sum(axis=1) == 1).all() for bits in (tag_matrix, truth) if bits is not None
    ):
        raise DataError(
            f"each of the {len(tag_matrix)} images has one label in {table.where}; {ONE_LABEL}, or say with "
            f"{setting('separator')} what stands between several"
        )
    _check_tags(tag_matrix, names, table.where)
    rows = subset(len(ids), limit, seed)
    if rows is not None:
        notes.append(f"a random subset of {len(rows)} of {len(ids)} images")
        images, ids, tag_matrix = images.select(rows), [ids[row] for row in rows], tag_matrix[rows]
        truth = None if truth is None else truth[rows]
    notes += [*class_name_notes(names), *_tag_notes(tag_matrix)]
    return TaggedImages(
        dataset=images,
        ids=tuple(ids),
        contents=hash_images(images, ids, notes, table=table, progress=progress),
        tags=tag_matrix,
        truth=truth,
        class_names=names,
        notes=tuple(notes),
    )


class _TableTags(NamedTuple):
    """Class names, given and true tags of R rows, (R, K), and whether the source has one value for each class."""

    class_names: tuple[str, ...]
    given: NDArray[np.bool_]
    truth: NDArray[np.bool_] | None
    is_table: bool


def _read(
    table: Table,
    paths: Sequence[str] | None,
    tags: Any,
    columns: Sequence[str],
    notes: list[str],
    *,
    separator: str | None,
    class_names: Sequence[str] | str | Path | None,
) -> _TableTags:
    """Reads the tags of each row, and the true ones if there is a column of them."""
    ids = [f"row {row + 1}" for row in range(len(table.rows))] if paths is None else paths  # for messages
    if hasattr(tags, "__array__") and np.ndim(tags) == 2:
        return _of_array(tags, len(ids), notes, class_names)
    stated = len(class_names) if class_names is not None and not isinstance(class_names, str | Path) else None
    tag_lists_given = _given_tags(table, tags, columns, separator=separator, classes=stated, count=len(ids))
    true_tags = table.columns.truth and read_tag_column(table, table.columns.truth, separator=separator, classes=stated)
    notes += [*tag_lists_given.notes, *(true_tags.notes if true_tags else ())]
    if not len(tag_lists_given.rows):
        raise DataError(
            f"expected images with tags in {tag_lists_given.labels.where}, found none at all; name another column"
        )
    values = dict.fromkeys((*tag_lists_given.labels.values, *(true_tags.labels.values if true_tags else ())))
    all_labels = replace(tag_lists_given.labels, values=tuple(values))  # a class that only true tags have is one, too
    names, note = resolve_class_names(all_labels, class_names)
    notes.append(note)
    by_number = class_names is not None or tag_lists_given.labels.class_names is not None

    def matrix(tag_lists_of_rows: TagLists) -> NDArray[np.bool_]:
        of_rows = [ids[row] for row in tag_lists_of_rows.rows.tolist()]
        former = renamed(tag_lists_of_rows.labels, names)
        codes = to_indices(tag_lists_of_rows.labels, class_names=names, ids=of_rows, by_number=by_number, former=former)
        bits = np.zeros((len(ids), len(names)), dtype=bool)
        bits[tag_lists_of_rows.rows, codes] = True
        if more := len(codes) - int(bits.sum()):
            twice = counted(more, "tag is", "tags are")
            notes.append(
                f"{twice} given more than once to the same image and {'counts' if more == 1 else 'count'} once"
            )
        return bits

    return _TableTags(
        names, matrix(tag_lists_given), matrix(true_tags) if true_tags else None, tag_lists_given.is_table
    )


def _one_row_per_image(
    table: Table, paths: list[str], table_tags: _TableTags, notes: list[str]
) -> tuple[Table, list[str], _TableTags]:
    """Returns one row for each image where a table has one for each tag: no row has two tags, and paths repeat."""
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


def _of_array(tags: Any, count: int, notes: list[str], class_names: Sequence[str] | str | Path | None) -> _TableTags:
    """Takes tags that are an array of bool already."""
    if class_names is None:
        raise DataError(
            f"expected {setting('class_names')} with an array of tags, the names of its columns, got none; pass them"
        )
    labels = tag_lists([], where="tags").labels
    names, note = resolve_class_names(labels, class_names)
    notes.append(note)
    return _TableTags(names, checked_tags(tags, shape=(count, len(names))), None, True)


def _given_tags(
    table: Table, tags: Any, columns: Sequence[str], *, separator: str | None, classes: int | None, count: int
) -> TagLists:
    """Reads the given tags from the argument or the columns of the table."""
    if tags is not None:
        return tag_lists(_as_lists(tags, count), where="tags", classes=classes)
    if table.columns.annotators:
        return read_class_columns(table, table.columns.annotators, guessed=not columns)
    name = str(table.columns.label)
    if table.class_names is None:
        return read_tag_column(table, name, separator=separator, classes=classes)
    # a folder of class folders: one tag for each file
    labels = read_labels(
        table.rows[name], where=table.where, names_of_integers=table.class_names, names_from="the class folders"
    )
    return TagLists(rows=np.arange(count), labels=labels)


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
