"""Open Images: CSV files with one box per row, in shares of the image (storage.googleapis.com/openimages)."""

from __future__ import annotations

import csv
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, did_you_mean, listed, setting, shown
from labelsieve.data.box_formats.rows import BoxRows, folder_with, numbers
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.csv_edits import edited
from labelsieve.data.sources.csv_files import OPEN_IMAGES, are_open_images, find_header, read_texts
from labelsieve.data.sources.edits import VERDICT_COLUMNS, TextEdits, Written
from labelsieve.data.sources.splits import refuse_split

LABEL = "LabelName"
_IMAGE, *_SIDES = OPEN_IMAGES
_DESCRIPTIONS = "*class-descriptions*.csv"
_SPLITS = ("train", "validation", "test")


def is_open_images(path: Path) -> bool:
    """Returns whether a CSV file has the columns of Open Images."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            first, _, separator = find_header([handle.readline(4096)])
    except (OSError, UnicodeDecodeError):
        return False
    return are_open_images(name.strip().strip('"') for name in first.strip().split(separator))


def read_open_images(path: Path, *, requested: Columns, split: str | None) -> Table:
    """Reads the boxes of a file; other columns, such as Confidence and IsGroupOf, are ignored.

    Args:
        path: The file.
        requested: The folder of the images, and the columns of the label and the true label; by default `LabelName`.
        split: Must be None, because each split is a file of its own.

    Raises:
        DataError: It is not such a file, or its images are not found.
    """
    refuse_split(split, path)
    where = f"the file {path}"
    csv_table = read_texts(path)
    label, columns = requested.label or LABEL, csv_table.table.column_names
    for name, option in ((label, "label"), (requested.truth or label, "truth")):
        if name not in columns:
            raise DataError(
                f'expected a column "{shown(name)}" in {where}, found {listed(columns, quoted=True)}'
                f"{did_you_mean(name, columns)}; name another with {setting(f'{option}_column')}"
            )
    names = csv_table.table[_IMAGE].to_pylist()
    if not names:
        raise DataError(f"expected boxes in {where}, found no rows; check the file")
    images = {name: name if os.path.splitext(name)[1] else f"{name}.jpg" for name in names}
    labels = _labels(csv_table.table, label, where)
    truths = [] if requested.truth is None else _labels(csv_table.table, requested.truth, where)
    codes = sorted({*labels, *truths})
    class_names, note = _class_names(codes, path)
    classes = dict(sorted(zip(codes, class_names, strict=True), key=itemgetter(1)))
    sides = array("d", _sides(csv_table.table, where).tobytes())
    return BoxRows(images=names, labels=labels, truths=truths, ids=[*_ids(names)], sides=sides).to_table(
        where=where,
        images=images,
        classes=classes,
        folder=folder_with([*images.values()], _folders(path), requested=requested.folder, where=where),
        is_relative=True,
        files=BoxFiles(files=(path,), counts=(len(names),), codes=tuple(classes), column=label),
        notes=(*csv_table.notes, note),
    )


def _labels(table: Any, column: str, where: str) -> list[str]:
    values: list[str] = table[column].to_pylist()
    if "" in values:
        raise DataError(
            f'expected a label in each row of the column "{shown(column)}" of {where}, found none in row '
            f"{values.index('') + 1}; add it, or remove the row"
        )
    return values


def _sides(table: Any, where: str) -> NDArray[np.float64]:
    """Returns left, top, width and height as shares, NaN if missing."""
    x_min, x_max, y_min, y_max = (numbers(table[name], name, where=where) for name in _SIDES)
    return np.stack([x_min, y_min, x_max - x_min, y_max - y_min], axis=1)


def _ids(names: list[str]) -> Iterator[str]:
    """Yields ids: the name of the image and the number of the box in it."""
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        yield f"{name}#{counts[name]}"
        counts[name] += 1


def _class_names(codes: list[str], path: Path) -> tuple[list[str], str]:
    """Returns the name of each class from a file of descriptions beside the boxes, and a note on their source."""
    files = sorted(path.parent.glob(_DESCRIPTIONS))
    for file in files:
        try:
            with file.open(encoding="utf-8-sig", newline="") as handle:
                descriptions = {row[0].strip(): row[1].strip() for row in csv.reader(handle) if len(row) > 1}
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
        if not any(code in descriptions for code in codes):
            continue
        names = [descriptions.get(code) or code for code in codes]
        counts = Counter(names)
        names = [f"{name} ({code})" if counts[name] > 1 else name for name, code in zip(names, codes, strict=True)]
        lacking = [code for code in codes if not descriptions.get(code)]
        missing_text = f", which has none of {listed(lacking)}" if lacking else ""
        return names, f"names of classes are those of {file.name}{missing_text}"
    return codes, f"classes are named by their codes; put {_DESCRIPTIONS.replace('*', '')} beside the file for names"


def _folders(path: Path) -> Iterator[Path]:
    """Yields possible folders of the images: beside the file, or in a folder of its split."""
    parent = path.parent
    splits = sorted(_SPLITS, key=lambda name: name not in path.stem)
    for folder in (parent, parent.parent):
        for split in splits:
            yield from (folder / split, folder / "images" / split, folder / split / "images", folder / split / "data")
        yield from (folder / "images", folder / "data", folder)


def edit_open_images(data: bytes, edits: TextEdits) -> bytes:
    r"""Returns a CSV file with new labels, without removed rows, and with three columns for the verdicts, if any.

    Raises:
        DataError: One of these columns exists already.

    Example:
        >>> edit_open_images(b"ImageID,LabelName\n1,/m/1\n", TextEdits(column="LabelName", labels={0: "/m/2"}))
        b'ImageID,LabelName\n1,/m/2\n'
    """
    return edited(data, edits)


def written_open_images(path: Path, *, column: str) -> Iterator[Written]:
    """Yields the rows of a file, without the columns of verdicts."""
    table = read_texts(path).table
    dropped = {column, *VERDICT_COLUMNS}
    other_columns = [table[name].to_pylist() for name in table.column_names if name not in dropped]
    for label, *other_values in zip(table[column].to_pylist(), *other_columns, strict=True):
        yield Written(label, other_values)
