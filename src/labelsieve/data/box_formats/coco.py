"""COCO: one JSON file of images, categories and annotations with a box each (cocodataset.org, format of detections)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.core.files import is_utf8
from labelsieve.core.quantities import counted
from labelsieve.data.box_formats.json_parts import Part, json_parts, members, read_json_text
from labelsieve.data.box_formats.rows import NO_BOX, BoxRows, folder_with
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.edits import ISSUE, QUALITY, Splice, TextEdits, Written, spliced
from labelsieve.data.sources.file_kinds import conversion
from labelsieve.data.sources.splits import refuse_split

CATEGORY = "category_id"
# Number of first characters of a list that are searched for the fields of model results.
_HEAD = 4096
# Fields that only annotations of other tasks have.
_OTHER_TASKS = {"captions": "caption", "panoptic segmentation": "segments_info"}


def read_coco(path: Path, *, requested: Columns, split: str | None) -> Table:
    """Reads the boxes of a COCO file, including crowds; an annotation with only a mask gets its bounding box.

    Args:
        path: The file.
        requested: The folder of the images, and the fields of an annotation with the label and the true label, which
            have the id or the name of a category; by default `category_id`.
        split: Must be None, because each split is a file of its own.

    Raises:
        DataError: It is not such a file, or refers to categories that it does not list.
    """
    refuse_split(split, path)
    coco = _read_file(path, label=requested.label or CATEGORY, truth=requested.truth)
    folder = folder_with(
        list(coco.paths.values()), _image_folders(path), requested=requested.folder, where=f"the file {path}"
    )
    return coco.to_table(folder)


@dataclass(kw_only=True)
class Coco:
    """The contents of a COCO file.

    Attributes:
        path: The file.
        label: The field of the given label.
        truth: The field of the true label, or None.
        paths: Paths of images by their ids.
        categories: Names of categories by their ids.
        boxes: The annotations, with the ids of their images and categories.
    """

    path: Path
    label: str
    truth: str | None
    paths: dict[Any, str] = field(default_factory=dict)
    categories: dict[Any, str] = field(default_factory=dict)
    boxes: BoxRows = field(default_factory=BoxRows)

    def add(self, key: str, value: Mapping[str, Any]) -> None:
        """Adds one element of a list of the file."""
        if key == "images":
            self._enter(self.paths, value, "file_name", key)
        elif key == "categories":
            self._enter(self.categories, value, "name", key)
        elif key == "annotations":
            self._add_annotation(value)

    def _enter(self, entries: dict[Any, str], value: Mapping[str, Any], name: str, key: str) -> None:
        """Adds the value of an id; values of duplicate ids must be equal."""
        number, entry = _named(value, "id", key, self.path), str(_named(value, name, key, self.path))
        if entries.setdefault(number, entry) != entry:
            raise DataError(
                f'expected one {name} for each id in the {key} of {self.path}, found "{shown(entries[number])}" and '
                f'"{shown(entry)}" with the id {shown(str(number))}; give one of them another id'
            )

    def _add_annotation(self, value: Mapping[str, Any]) -> None:
        if self.label not in value:
            self._refuse_other_tasks(value)
        image = value.get("image_id")
        self.boxes.add(
            str(image) if isinstance(image, list | dict) else image,
            _named(value, self.label, "annotations", self.path),
            name=str(_in_utf8(value.get("id", ""), "id", "annotations", self.path)),
            sides=box_of(value) or NO_BOX,
            truth=None if self.truth is None else _named(value, self.truth, "annotations", self.path),
        )

    def _refuse_other_tasks(self, value: Mapping[str, Any]) -> None:
        for task, name in _OTHER_TASKS.items():
            if name in value:
                raise DataError(
                    f"expected annotations with a {shown(self.label)} in {self.path}, found those of {task}; take the "
                    "file of instances (boxes) of these images"
                )

    def check(self) -> None:
        """Raises a `DataError` if the file has no images, annotations or categories."""
        if not (self.boxes or self.paths):
            raise _no_coco(self.path)
        if not self.boxes or not self.paths:
            missing = "annotations" if self.paths else "images"
            raise DataError(f"expected a COCO file with {missing} in {self.path}, found none; check the file")
        if not self.categories:
            raise DataError(f"expected categories with id and name in {self.path}, found none; add them")

    def to_table(self, folder: Path) -> Table:
        """Returns the boxes; their classes are in the order of category ids."""
        classes = {key: self.categories[key] for key in sorted(self.categories, key=_by_number)}
        by_name = any(value not in classes for value in {*self.boxes.labels})
        codes = tuple(json.dumps(name if by_name else key) for key, name in classes.items())
        self.boxes.labels = self._ids_of(self.boxes.labels, classes, self.label)
        self.boxes.truths = self._ids_of(self.boxes.truths, classes, str(self.truth))
        unlisted = [key for key in self.boxes.images if key not in self.paths]
        notes: tuple[str, ...] = ()
        if unlisted:
            several = counted(len(unlisted), "annotation names an image", "annotations name images")
            notes = (f"{several} without an entry in images (first: {shown(str(unlisted[0]))})",)
        return self.boxes.to_table(
            where=f"the file {self.path}",
            images=self.paths,
            classes=classes,
            folder=folder,
            files=BoxFiles(files=(self.path,), counts=(len(self.boxes),), codes=codes, column=self.label),
            notes=notes,
        )

    def _ids_of(self, values: list[Any], classes: Mapping[Any, str], field_name: str) -> list[Any]:
        """Returns the ids of categories, given by ids or names."""
        id_of: dict[Any, Any] = {name: key for key, name in classes.items()}
        id_of |= {key: key for key in classes}
        unknown = next((value for value in values if value not in id_of), None)
        if unknown is not None:
            raise DataError(
                f'expected ids of categories in "{shown(field_name)}" of {self.path}, found {shown(repr(unknown))}, '
                f"which is none of {listed([str(each) for each in classes])}; add it to the categories"
            )
        return [id_of[value] for value in values]


def _read_file(path: Path, *, label: str, truth: str | None) -> Coco:
    """Reads a COCO file.

    Args:
        path: The file.
        label: The field of the category in an annotation.
        truth: The field of the true category, or None.

    Raises:
        DataError: It cannot be read, or is not such a file.
    """
    coco = Coco(path=path, label=label, truth=truth)
    text = read_json_text(path)
    if text.lstrip("\ufeff \t\r\n").startswith("["):
        if '"score"' in text[:_HEAD] and '"image_id"' in text[:_HEAD]:
            raise DataError(
                f"expected a COCO file with images and annotations in {path}, found a list of results of a model; take "
                "the file of annotations"
            )
        raise _no_coco(path)
    for part in json_parts(text, where=path):
        if part.in_list and part.key in ("images", "categories", "annotations"):
            if not isinstance(part.value, dict):
                raise DataError(f'expected objects in "{part.key}" of {path}, found others; check the file')
            coco.add(part.key, part.value)
    coco.check()
    return coco


def _no_coco(path: Path) -> DataError:
    return DataError(
        f"expected a COCO file with images and annotations in {path}, found neither; a table of images is not read "
        f"from JSON: {conversion(path)}"
    )


def _named(value: Mapping[str, Any], name: str, what: str, path: Path) -> Any:
    if name not in value:
        fields = listed([str(each) for each in value], quoted=True)
        raise DataError(f'expected "{shown(name)}" in each of the {what} of {path}, found one with {fields}; add it')
    field_value = value[name]
    if field_value is None or isinstance(field_value, list | dict):
        kind = "null" if field_value is None else "a list" if isinstance(field_value, list) else "an object"
        raise DataError(f'expected one value in "{shown(name)}" of the {what} of {path}, found {kind}; correct it')
    return _in_utf8(field_value, name, what, path)


def _in_utf8(value: Any, name: str, what: str, path: Path) -> Any:
    if isinstance(value, str) and not is_utf8(value):  # an escape of JSON may be half of a surrogate pair
        actual = shown(repr(value))
        raise DataError(f'expected UTF-8 in "{shown(name)}" of the {what} of {path}, found {actual}; correct it')
    return value


def _by_number(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _image_folders(path: Path) -> Iterator[Path]:
    """Yields the folders of the images of a COCO file in common layouts: beside it, or in a folder of its split."""
    parent, split = path.parent, path.stem.split("_")[-1]
    for folder in (parent, parent.parent):
        yield from (folder, folder / "images", folder / split, folder / "images" / split, folder / "data")


def box_of(annotation: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Returns left, top, width and height of an annotation, or of its mask if it has no box; None without both."""
    box = annotation.get("bbox")
    if box:
        return _numbers(box)
    mask = annotation.get("segmentation")
    if isinstance(mask, Mapping):
        return _around_runs(mask)
    if mask and isinstance(mask, list):
        return _around_points([value for part in mask for value in (part if isinstance(part, list) else [part])])
    return None


def _numbers(box: Any) -> tuple[float, ...]:
    """Returns the four numbers of a box, NaN if they are invalid."""
    if not isinstance(box, list) or len(box) != 4:
        return NO_BOX
    try:
        return tuple(float(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        return NO_BOX


def _around_points(values: list[Any]) -> tuple[float, ...]:
    """Returns the box around a polygon, given as x, y, x, y ..."""
    try:
        points = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return NO_BOX
    if points.size < 4 or points.size % 2:
        return NO_BOX
    left, top = points[::2].min(), points[1::2].min()
    return float(left), float(top), float(points[::2].max() - left), float(points[1::2].max() - top)


def _around_runs(mask: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the bounding box of a mask of run lengths, column by column, starting with background."""
    try:
        height, width = (int(value) for value in mask["size"])
        runs = mask["counts"]
        counts = np.array(_decoded(runs) if isinstance(runs, str) else runs, dtype=np.int64)
        if height <= 0 or width <= 0 or counts.sum() != height * width or (counts < 0).any():
            return NO_BOX
    except (KeyError, IndexError, OverflowError, TypeError, ValueError):
        return NO_BOX
    ends = counts.cumsum()[1::2]
    starts = ends - counts[1::2]
    starts, last = starts[ends > starts], ends[ends > starts] - 1  # pixels, counted down the columns
    if not len(starts):
        return NO_BOX
    start_column, end_column = starts[0] // height, last[-1] // height
    # a run that continues in the next column reaches the lowest and the highest row
    wraps = (starts // height != last // height).any()
    top, bottom = (0, height - 1) if wraps else ((starts % height).min(), (last % height).max())
    return float(start_column), float(top), float(end_column - start_column + 1), float(bottom - top + 1)


def _decoded(text: str) -> list[int]:
    """Returns the run lengths of a compressed mask, as `rleFrString` of pycocotools does.

    Numbers are stored in groups of five bits; from the fourth on, as differences from the number two places before.
    """
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(text[at]) - 48
            value |= (bits & 0x1F) << shift
            more, at, shift = bool(bits & 0x20), at + 1, shift + 5
            if not more and bits & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def edit_coco(data: bytes, edits: TextEdits) -> bytes:
    """Returns a COCO file with new labels, without removed annotations, and with the verdicts in the others.

    Example:
        >>> edit_coco(b'{"annotations": [{"category_id":1}]}', TextEdits(column="category_id", labels={0: "2"}))
        b'{"annotations": [{"category_id":2}]}'
    """
    text = data.decode("latin-1")  # one character per byte, so that positions are those of bytes, with little memory
    return spliced(text, _splices(text, edits)).encode("latin-1")


def _annotations(text: str) -> Iterator[Part]:
    return (part for part in json_parts(text, where="the file") if part.in_list and part.key == "annotations")


def _splices(text: str, edits: TextEdits) -> Iterator[Splice]:
    """Yields replacements; an annotation is removed with the comma before it or, if it is the first, after it."""
    last_kept_end = removed_from = None
    last: Part | None = None
    for row, part in enumerate(_annotations(text)):
        is_removed = row in edits.labels and edits.labels[row] is None
        if is_removed and last_kept_end is None:
            removed_from = part.start if removed_from is None else removed_from
        elif is_removed:
            yield Splice(last_kept_end or 0, part.end, "")
        elif removed_from is not None:
            yield Splice(removed_from, part.start, "")
            removed_from = None
        if not is_removed and edits.touches(row):
            yield from _within(text, part.start, edits, row)
        last_kept_end, last = part.end if not is_removed or last_kept_end is not None else None, part
    if removed_from is not None and last is not None:
        yield Splice(removed_from, last.end, "")


def _within(text: str, start: int, edits: TextEdits, row: int) -> Iterator[Splice]:
    """Yields the replacements in an annotation: its label, and the verdict at its end."""
    pairs = members(text, start)
    new_values, names = {}, {each.key: each for each in pairs}  # the last of duplicate keys counts
    if label := edits.labels.get(row):
        new_values[_as_bytes(edits.column, names)] = label
    if verdict := edits.verdict(row):
        new_values |= {
            QUALITY: verdict.quality,
            f"predicted_{edits.column}": verdict.predicted,
            ISSUE: verdict.is_issue,
        }
    for each in pairs:
        if each is names[each.key] and each.key in new_values:
            yield Splice(each.value, each.end, new_values.pop(each.key))
    between = text[pairs[-2].end : pairs[-1].start] if len(pairs) > 1 else ", "
    colon = ": " if text[pairs[-1].value - 1].isspace() else ":"
    added = "".join(f"{between}{json.dumps(name)}{colon}{value}" for name, value in new_values.items())
    yield Splice(pairs[-1].end, pairs[-1].end, added)


def _as_bytes(name: str, names: Mapping[str, Any]) -> str:
    """Returns a key as it is written in a text with one character per byte, with or without escapes."""
    return name if name in names else name.encode().decode("latin-1")


def written_coco(path: Path, *, column: str) -> Iterator[Written]:
    """Yields the parts of a COCO file, without the verdict fields of annotations."""
    added = {column, QUALITY, ISSUE, f"predicted_{column}"}
    for part in json_parts(read_json_text(path), where=path):
        if part.in_list and part.key == "annotations":
            label = json.dumps(part.value[column])
            yield Written(label, {key: value for key, value in part.value.items() if key not in added})
        else:
            yield Written(None, (part.key, part.value))
