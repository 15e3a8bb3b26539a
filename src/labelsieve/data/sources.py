"""Loading labelled images from wherever they lie."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, SettingsError, shown
from labelsieve.core.progress import Progress
from labelsieve.core.validation import Limit, Seed, check_value
from labelsieve.data.annotators import Annotations, indices_of, merged, vote, without_gaps
from labelsieve.data.box_formats.columns import boxes_of
from labelsieve.data.boxes import Boxes
from labelsieve.data.columns import Columns, Table, holds_pixels, kind_of, label_columns
from labelsieve.data.contents import hash_images
from labelsieve.data.folders import absolute_paths, relative_path
from labelsieve.data.image_paths import image_paths, with_whole_paths
from labelsieve.data.images import LabelledImages
from labelsieve.data.in_memory import read_memory
from labelsieve.data.labels import (
    LabelColumn,
    check_complete,
    class_name_notes,
    class_size_notes,
    read_labels,
    renamed,
    resolve_class_names,
    to_indices,
)
from labelsieve.data.published.base import named_source
from labelsieve.data.ranges import with_ranges
from labelsieve.data.readers import read_dataset, read_path
from labelsieve.data.shards import has_pattern

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 64


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

    None is decoded here but, where values are not 0 to 255, some, for the range that becomes black to white.

    Args:
        source: A folder of class folders; a CSV, Parquet, Arrow or Feather file with images or their paths, which are
            relative to its folder; a table in several files, by their folder or a pattern of their names; a folder
            written by `Dataset.save_to_disk`; `NAME:PATH`, a published data set in its official layout
            (docs/data-sets.md); boxes, each of which counts as an image: a COCO file, or a table with the columns `x`,
            `y`, `width` and `height` in pixels (docs/boxes.md); a Hub id `name/dataset`, or
            `name/dataset:configuration`; a `datasets.Dataset`; or images in memory: a uint8 array (N, H, W, 3) or
            (N, H, W), or a list of such arrays without N or of PIL images.
        labels: N names or integers, for images in memory or a `datasets.Dataset` without a label column.
        image_column: Column of the images or paths. Like `label_column` it is guessed where only one fits.
        image_folder: Folder of the images that a table names, with or without their suffix, in the place of paths
            relative to the table.
        label_column: Column of the given labels. Several are those of as many annotators, who need not label every
            image; the given label is then that of most of them (docs/annotators.md).
        truth_column: Column of the true labels, if they are known. Only metrics read them. A published data set that
            has such a column gives it unasked.
        class_names: K names in the order of the indices, or a file of them: one a line, or a JSON list. By default
            those of the source; else the different labels, sorted. Names count as equal whatever their case, and with
            `_` and `-` for spaces. As many names as there are class folders, or names of a `ClassLabel`, rename these
            in their order; those that stay have to stand at their place.
        split: Split of a published or Hub data set, a `DatasetDict`, a saved folder or a table in several files; by
            default the only one, else `train`.
        limit: Take a random subset of this many rows, in the order of the data; all classes stay.
        seed: Seed of that subset.
        noise: A file that `labelsieve noise` wrote for the same images: its wrong labels become the given ones, and
            the given ones the true ones. Other images are refused.
        box_margin: What a crop has around its box, as a share of the sides of the box; 0.1 if None.
        one_class: Whether one class will do, or a folder without class folders, as for `scan(against=...)`.
        progress: Where to show how far it is.

    Returns:
        The record. Its `notes` tell what was assumed and what is odd. Its `ids` are the column `id` if there is one,
        else the relative paths of files, else row numbers. Its `contents` are 8-byte BLAKE2b hashes: of the encoded
        image, the same in a file and in a table; of an id where the image is missing.

    Raises:
        DataError: The source, its columns, labels or class names cannot be used. One line that says what to do.
        SettingsError: `limit` or `seed` is out of its range.

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
    asked = replace(
        wish, image=image_column, truth=truth_column, folder=image_folder_of(image_folder), one_class=one_class
    )
    table = open_source(source, asked=asked, split=split, labels=labels)
    rows = subset(len(table.rows), limit, seed)
    images = _assemble(table, labels=labels, class_names=class_names, one_class=one_class, rows=rows, progress=progress)
    images = _with_margin(images, box_margin)
    if noise is not None:
        from labelsieve.data.noise_files import apply_noise

        images = apply_noise(images, noise)
    images = with_ranges(images)
    if not isinstance(source, str | Path):
        return images
    arguments = {
        "source": absolute_source(source),
        "image_column": image_column,
        "image_folder": None if asked.folder is None else str(asked.folder),
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
    origin = {name: value for name, value in arguments.items() if value is not None}
    return replace(images, origin=origin)


def absolute_source(source: str | Path) -> str:
    """Returns a source as it can be loaded again from elsewhere."""
    if (named := named_source(source)) is not None:
        return str(named)
    path = os.path.abspath(Path(source).expanduser())
    return path if os.path.exists(path) or has_pattern(str(source)) else str(source)  # a Hub id stays as it is


def image_folder_of(image_folder: str | Path | None) -> Path | None:
    """Returns the folder of images that the user named, absolute.

    Raises:
        DataError: It is no folder.
    """
    if image_folder is None:
        return None
    folder = Path(os.path.abspath(Path(image_folder).expanduser()))
    if not str(image_folder) or not folder.is_dir():
        state = "is no folder" if folder.exists() else "does not exist"
        raise DataError(
            f'expected --image-folder to be a folder of images, but "{image_folder}" {state}; check the path'
        )
    return folder


def open_source(source: Any, *, asked: Columns, split: str | None, labels: Any, what: str = "label") -> Table:
    """Reads the rows of a source, or takes images in memory.

    Args:
        source: See :func:`load_images`.
        asked: What the user asked for.
        split: The split.
        labels: What was passed beside the source, or None.
        what: What each image has, in the singular.

    Raises:
        DataError: It cannot be read, or what was passed beside it does not go with it.
    """
    if isinstance(source, str | Path):
        if labels is not None:
            raise DataError(f"{what}s go with images in memory only; name the column of a file with {what}_column")
        return read_path(str(source), asked=asked, split=split)
    if any(base.__module__.split(".")[0] == "datasets" for base in type(source).__mro__):
        if labels is not None and asked.label is not None:
            raise DataError(f"expected either {what}s or {what}_column, got both; leave one out")
        return read_dataset(source, asked=asked, split=split, label_needed=labels is None)
    if labels is None:
        found = type(source).__name__
        raise DataError(f"expected a path, a Hub id, a data set, or images with {what}s=, got {found} without {what}s")
    if any((asked.image, asked.label, asked.truth, asked.folder, split)):
        raise DataError(f"images in memory have no columns or splits; pass {what}s=, and the truth to with_{what}s()")
    return Table(rows=read_memory(source), columns=Columns(image="image"), where="the images in memory")


def check_limit(limit: int | None, seed: int) -> None:
    """Raises a `SettingsError` if the size of a subset or the seed to draw it from is out of its range."""
    check_value("seed", seed, Seed)
    check_value("limit", limit, Limit)


def subset(rows: int, limit: int | None, seed: int) -> NDArray[np.int64] | None:
    """Draws `limit` of some rows, in their order, or returns None if all are to be taken."""
    if limit is None or limit >= rows:
        return None
    check_value("seed", seed, Seed)
    return np.sort(np.random.default_rng(seed).choice(rows, size=limit, replace=False)).astype(np.int64)


def _assemble(
    table: Table,
    *,
    labels: Any,
    class_names: Sequence[str] | str | Path | None,
    one_class: bool,
    rows: NDArray[np.int64] | None,
    progress: Progress | None,
) -> LabelledImages:
    """Turns the rows of a source into the record; all labels are checked before `rows` are chosen."""
    if not len(table.rows):
        raise DataError(f"expected images in {table.where}, found no rows; check the source")
    notes = list(table.notes)
    paths = image_paths(table, notes)
    boxes = table.boxes or boxes_of(table, paths)
    ids = read_ids(table, paths if boxes is None else None, notes)
    read = read_given(table, ids, labels=labels, class_names=class_names, one_class=one_class)
    names, indices, truth, note, several = read
    notes.append(note)
    images = undecoded_images(table, paths, boxes)
    if rows is not None:
        notes.append(f"a random subset of {len(rows)} of {len(ids)} images")
        images, ids, indices = images.select(rows), [ids[row] for row in rows], indices[rows]
        truth = None if truth is None else truth[rows]
        several = several and several.take(rows)
        boxes = boxes and boxes.take(rows)
    notes += [*class_name_notes(names), *class_size_notes(indices, names)]
    contents = hash_images(images, ids, notes, table=table, boxes=boxes, progress=progress or Progress())
    return LabelledImages(
        dataset=images,
        ids=tuple(ids),
        labels=indices,
        class_names=names,
        contents=contents,
        truth=truth,
        annotations=several,
        boxes=boxes,
        notes=tuple(notes),
    )


def _with_margin(images: LabelledImages, margin: float | None) -> LabelledImages:
    if margin is None:
        return images
    if images.boxes is None:
        raise SettingsError("--box-margin goes with boxes only, and here each row is an image; leave it out")
    return replace(images, boxes=images.boxes.with_margin(margin))


class Given(NamedTuple):
    """Class names, given labels (N,), true labels (N,) or None, where the class names came from, all annotators'."""

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    truth: NDArray[np.int64] | None
    note: str
    annotations: Annotations | None


def read_given(
    table: Table,
    ids: Sequence[str],
    *,
    labels: Any,
    class_names: Sequence[str] | str | Path | None,
    one_class: bool = False,
) -> Given:
    """Reads the labels of a table, and the true ones if it has a column of them, as indices into class names."""
    several = [without_gaps(_label_column(table, each, labels=None)) for each in table.columns.annotators]
    given = merged(several, ids) if several else _label_column(table, table.columns.label, labels=labels)
    if not several:
        check_complete(given, ids)  # first of all: without these labels the class names would be read wrongly
    names, note = resolve_class_names(given, class_names, one_class=one_class)
    stated = class_names is not None or given.class_names is not None
    former = renamed(given, names)
    found: Annotations | None = None
    if several:
        labels_of_all = indices_of(several, class_names=names, ids=ids, by_number=stated, former=former)
        indices = vote(labels_of_all, classes=len(names))
        found = Annotations(names=table.columns.annotators, labels=labels_of_all)
        note += f"; the given label of each image is the vote of {len(several)} annotators"
    else:
        indices = to_indices(given, class_names=names, ids=ids, by_number=stated, former=former)
    if table.columns.truth is None:
        return Given(names, indices, None, note, found)
    true = _label_column(table, table.columns.truth, labels=None)
    truth = to_indices(true, class_names=names, ids=ids, by_number=stated, former=former)
    return Given(names, indices, truth, note, found)


def read_ids(table: Table, paths: list[str] | None, notes: list[str]) -> list[str]:
    """Returns the ids: the column `id`, else the relative paths, else row numbers, whichever is unique."""
    named = table.columns.id
    if named is not None:
        feature, where = table.rows.features[named], f'the column "{named}" of {table.where}'
        values = _plain_values(arrow_column(table.rows, named), feature, where).to_pylist()
        ids = ["" if value is None else str(value) for value in values]
        remark = _repeats(ids, "values")
        if not remark:
            return ids
        instead = "row numbers" if paths is None else "paths"
        notes.append(f'the column "{shown(named)}" gives no ids: {remark}; ids are {instead}')
    if paths is not None:
        root = str(table.folder or ".")
        ids = [relative_path(path, root) for path in paths]
        remark = _repeats(ids, "images")
        if not remark:
            return ids
        notes.append(f"{remark}, so ids are row numbers")
    return [f"{row:07d}" for row in range(len(table.rows))]


def _repeats(ids: Sequence[str], what: str) -> str:
    """Says which of some ids are empty or there more than once; an empty text if none is."""
    if "" in ids:
        return f"it is empty in {ids.count('')} rows (first: row {ids.index('') + 1})"
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if not twice:
        return ""
    rows = [row + 1 for row, name in enumerate(ids) if name == twice[0]]
    return f'{len(twice)} {what} are listed more than once (first: "{shown(twice[0])}" in rows {rows[0]} and {rows[1]})'


def arrow_column(rows: Dataset, name: str) -> Any:
    """Returns one column as an Arrow array, with the rows of a selection applied."""
    return rows.select_columns([name]).with_format("arrow")[:].column(0)


def _plain_values(values: Any, feature: Any, where: str) -> Any:
    """Returns labels or ids with bytes as texts, and lists of a single value as that value.

    Raises:
        DataError: They are lists of several values, or bytes that are no text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind = pa.types, values.type
    if types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        counts = np.asarray(pc.fill_null(pc.list_value_length(values), 1))
        if (counts != 1).any():
            row = int(np.flatnonzero(counts != 1)[0])
            raise DataError(
                f"expected one label a row in {where}, found {counts[row]} in row {row + 1}; a label is one class, so "
                "choose one, or name another column with --label-column; for several use: labelsieve scan-tags"
            )
        values = pc.list_element(values, 0)
    kind = values.type
    if types.is_decimal(kind):
        return values.cast(pa.float64())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        try:  # the encoding is checked by the cast
            return values.cast(pa.binary() if types.is_fixed_size_binary(kind) else kind).cast(pa.string())
        except pa.ArrowInvalid:
            raise DataError(f"expected texts in UTF-8 in {where}, found other bytes; write names as texts") from None
    if types.is_nested(kind) or types.is_temporal(kind):
        raise DataError(
            f"expected one name or integer a row in {where}, found {kind_of(feature)}; name another column with "
            "--label-column"
        )
    return values


def _label_column(table: Table, name: str | None, *, labels: Any) -> LabelColumn:
    if name is None:
        values = np.asarray(labels) if hasattr(labels, "__array__") else list(labels)
        if len(values) != len(table.rows):
            raise DataError(f"expected {len(table.rows)} labels, one for each image, got {len(values)}")
        return read_labels(values, where="labels")
    feature, where = table.rows.features[name], f'the column "{name}" of {table.where}'
    values = _plain_values(arrow_column(table.rows, name), feature, where)
    if table.class_names is not None:
        return read_labels(values, where=where, known=table.class_names, names_from="the class folders")
    if type(feature).__name__ == "ClassLabel" and feature.names:
        origin = f'the ClassLabel column "{name}"' if table.boxes is None else table.where
        return read_labels(values, where=where, known=feature.names, names_from=origin)
    return read_labels(values, where=where)


def undecoded_images(table: Table, paths: list[str] | None, boxes: Boxes | None = None) -> Dataset:
    """Returns the rows with the one column `image` of undecoded images."""
    from datasets import Dataset, Features, Image

    column = str(table.columns.image)
    if paths is not None and boxes is not None:
        return _images_of_boxes(table, paths, boxes)
    if paths is not None:
        whole = absolute_paths(paths, folder=table.folder, where=table.where)
        return Dataset.from_dict({"image": whole}, features=Features({"image": Image(decode=False)}))
    if holds_pixels(table.rows.features[column]):
        return read_memory(_pixels(table, column))
    return with_whole_paths(table)


def _images_of_boxes(table: Table, paths: Sequence[str], boxes: Boxes) -> Dataset:
    """Returns the image of each box, of which there are far fewer; none where the image is not listed."""
    import pyarrow as pa
    from datasets import Dataset, Features, Image

    listed = np.flatnonzero(boxes.image_of >= 0)
    _, first, place = np.unique(boxes.image_of[listed], return_index=True, return_inverse=True)
    rows = listed[first]
    whole = absolute_paths([paths[row] for row in rows], folder=table.folder, where=table.where, rows=rows.tolist())
    places = np.full(len(paths), -1)
    places[listed] = place
    values = pa.array(whole, pa.string()).take(pa.array(places, mask=places < 0))
    schema = Features({"image": Image(decode=False)}).arrow_schema
    missing = pa.array([None]).cast(schema.field("image").type.field("bytes").type)
    encoded = missing.take(pa.array(np.zeros(len(paths), dtype=np.int64)))
    images = pa.StructArray.from_arrays([encoded, values], ["bytes", "path"], mask=pa.array(places < 0))
    return Dataset(pa.table([images.cast(schema.field("image").type)], schema=schema))


def _pixels(table: Table, column: str) -> list[NDArray[Any]]:
    """Returns images that stand in a table as nested lists of numbers."""
    found: list[NDArray[Any]] = []
    for batch in table.rows.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH):
        for value in batch.column(0).to_pylist():
            try:
                pixels = np.asarray(value)
            except ValueError:  # rows of different lengths
                pixels = np.empty(0)
            if pixels.ndim < 2 or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
                raise DataError(
                    f'expected pixels from 0 to 255 of shape (H, W) or (H, W, 3) in the column "{shown(column)}" of '
                    f"{table.where}, found something else in row {len(found) + 1}; fix or remove the row"
                )
            found.append(pixels.astype(np.uint8))
    return found
