"""YOLO: a `data.yaml` of class names and splits, and a text file with one line per box beside each image.

It is the format of Ultralytics (docs.ultralytics.com/datasets/detect, format of detections): a line has the number of
the class, then the centre, width and height of the box as shares of the image. Polygons, as for segmentation, are read
as their bounding boxes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from labelsieve.core.errors import DataError, setting, shown
from labelsieve.core.quantities import counted
from labelsieve.data.box_formats.rows import NO_BOX, BoxRows
from labelsieve.data.box_formats.yolo_config import YoloConfig, images_in, labels_of
from labelsieve.data.boxes import BoxFiles
from labelsieve.data.sources.columns import Columns, Table
from labelsieve.data.sources.edits import Splice, TextEdits, Written, spliced, with_same_end
from labelsieve.data.sources.file_kinds import read_whole
from labelsieve.data.sources.splits import choose_split

# Number of values per line: a box, a box with confidence, four corners.
_BOX, _SCORED, _CORNERS = 5, 6, 9
_NUMBER = re.compile(r"\S+")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")


def read_yolo(path: Path, *, requested: Columns, split: str | None) -> Table:
    """Reads the boxes of one split.

    Args:
        path: The YAML file.
        requested: Must be empty, because the format has no columns and no folder of images.
        split: `train`, `val` or `test`; by default the only one, else `train`.

    Raises:
        DataError: The file or one of the labels is invalid, or the data set is for another task.
    """
    _refuse_columns(requested)
    config = YoloConfig.read(path)
    chosen, notes = choose_split(config.splits, split, where=str(path))
    files, without_image = _files(config, chosen)
    lacking = [image for image, file in files.items() if not os.path.isfile(file)]
    if len(lacking) == len(files):
        raise DataError(
            f"expected a file of labels such as {next(iter(files.values()))} for the images in {chosen} of {path}, "
            "found none; put the labels there"
        )
    if lacking:
        notes = (*notes, f"{counted(len(lacking), 'image has', 'images have')} no file of labels (first: {lacking[0]})")
    if without_image:
        message = counted(len(without_image), "file of labels has", "files of labels have")
        notes = (*notes, f"{message} no image (first: {without_image[0]})")
    return _read_boxes(config, files, notes)


def label_files(path: Path, *, split: str | None) -> list[Path]:
    """Returns the existing label files of one split of a readable data set."""
    config = YoloConfig.read(path)
    files, _ = _files(config, choose_split(config.splits, split, where=str(path))[0])
    return [Path(file) for file in files.values() if os.path.isfile(file)]


def caches_of(files: Sequence[Path]) -> list[Path]:
    """Returns the existing caches that Ultralytics made of label files."""
    folders = sorted({path.parent for path in files})
    return [cache for folder in folders if (cache := folder.with_suffix(".cache")).is_file()]


def _read_boxes(config: YoloConfig, files: Mapping[str, str], notes: tuple[str, ...]) -> Table:
    folder, boxes = _folder_of([*files], config.folder), BoxRows()
    names = {image: Path(os.path.relpath(image, folder)).as_posix() for image in files}
    labelled = {image: Path(file) for image, file in files.items() if os.path.isfile(file)}
    ends, widths = [0], set[int]()
    for image, file in labelled.items():
        widths |= _add_boxes(boxes, names[image], file, config.names)
        ends.append(len(boxes))
    if widths == {_CORNERS}:
        raise DataError(
            f"expected boxes in {config.path}, found four corners in all labels (boxes that are turned, OBB), which "
            "are not read; write upright boxes"
        )
    return boxes.to_table(
        where=f"the data set {config.path}",
        images={name: name for name in names.values()},
        classes=config.names,
        folder=folder,
        is_relative=True,
        files=BoxFiles(
            files=tuple(labelled.values()),
            counts=tuple(end - start for start, end in pairwise(ends)),
            codes=tuple(map(str, config.names)),
            column="class",
        ),
        notes=(*notes, *config.notes),
    )


def _refuse_columns(requested: Columns) -> None:
    for option, value in (
        ("label_column", requested.label),
        ("truth_column", requested.truth),
        ("image_folder", requested.folder),
    ):
        if value is not None:
            raise DataError(f"a YOLO data set has no {setting(option)}; leave it out")


def _files(config: YoloConfig, split: str) -> tuple[dict[str, str], list[str]]:
    """Returns the label files of a split by their images, and those whose image is missing.

    Label files, and images named in a list, need not exist. A label file without an image belongs to a missing image if
    it is in the label folder of a folder of images.

    Raises:
        DataError: There are no images.
    """
    locations = config.locations(split)
    label_file_of = {image: labels_of(image) for location in locations for image in images_in(location)}
    if not label_file_of:
        raise DataError(f"expected images in {split} of {config.path}, found none; check what stands there")
    stems = {os.path.splitext(image)[0] for image in label_file_of}
    walked = tuple(f"{location}{os.sep}" for location in locations if location.is_dir())
    folders = sorted({os.path.dirname(image) for image in label_file_of if image.startswith(walked)})
    without_image = {image: file for folder in folders for image, file in _without_image(folder, stems)}
    return {**label_file_of, **without_image}, [*without_image.values()]


def _without_image(folder: str, stems: set[str]) -> Iterator[tuple[str, str]]:
    """Yields the missing images of a folder, and their label files.

    Args:
        folder: A folder of images.
        stems: The existing images, without their suffixes.
    """
    label_folder = os.path.dirname(labels_of(os.path.join(folder, "_")))
    for name in sorted(os.listdir(label_folder)) if os.path.isdir(label_folder) else ():
        stem, suffix = os.path.splitext(os.path.join(folder, name))
        if suffix == ".txt" and stem not in stems and _holds_boxes(os.path.join(label_folder, name)):
            yield f"{stem}.jpg", os.path.join(label_folder, name)


def _holds_boxes(file: str) -> bool:
    """Returns whether the first line of a file has the number of a class and a box or polygon."""
    text = read_whole(Path(file)).decode("latin-1")
    first = next(_lines(text), None)
    try:
        words = [text[start:end] for start, end in first.spans] if first else [""]
        return _integer(words[0]) >= 0 and len(_sides([*map(float, words[1:])])) == len(NO_BOX)
    except ValueError:
        return False


def _folder_of(images: list[str], root: Path) -> Path:
    """Returns the common folder of all images: the root of the data set if it contains them."""
    common = Path(os.path.commonpath([os.path.dirname(image) for image in images]))
    return root if common.is_relative_to(root) else common


class _Line(NamedTuple):
    """The position of a line with a box: its start, the start and end of each number, and its end."""

    start: int
    spans: list[tuple[int, int]]
    end: int


def _lines(text: str) -> Iterator[_Line]:
    """Yields the lines that are not blank."""
    at = 3 if text.startswith("\xef\xbb\xbf") else 0
    while at < len(text):
        line = _LINE.match(text, at)
        end = line.end() if line else len(text)
        if spans := [word.span() for word in _NUMBER.finditer(text, at, end)]:
            yield _Line(at, spans, end)
        at = end


def _add_boxes(boxes: BoxRows, name: str, file: Path, classes: Mapping[int, str]) -> set[int]:
    """Adds the labels of one image, and returns the distinct numbers of values per line.

    Args:
        boxes: Receives the boxes.
        name: The image.
        file: Its file of labels.
        classes: The class names by their numbers.

    Raises:
        DataError: A line is not a box, or its class has no name.
    """
    text, widths = read_whole(file).decode("latin-1"), set()  # one character per byte: all values are ASCII
    for count, line in enumerate(_lines(text)):
        words = [text[start:end] for start, end in line.spans]
        try:
            label, sides = _integer(words[0]), _sides([float(word) for word in words[1:]])
        except ValueError:
            raise DataError(
                f"expected the number of a class, then x, y, width and height, in line {_line_number(text, line)} "
                f"of {file}, found {shown(' '.join(words))}; correct or remove it"
            ) from None
        if label not in classes:
            raise DataError(
                f"expected one of {len(classes)} classes in line {_line_number(text, line)} of {file}, found class "
                f"{label}; add its name to the YAML file, or correct the line"
            )
        boxes.add(name, label, name=f"{os.path.splitext(name)[0]}#{count}", sides=sides)
        widths.add(len(words))
    return widths


def _line_number(text: str, line: _Line) -> int:
    return len(text[: line.start].splitlines()) + 1


def _integer(word: str) -> int:
    """Parses the number of a class, which some tools write as 3.0."""
    value = float(word)
    if not value.is_integer():
        raise ValueError
    return int(value)


def _sides(values: list[float]) -> tuple[float, ...]:
    """Returns left, top, width and height of a box, or of a box around a polygon; ignores a confidence at the end."""
    count = len(values) + 1
    if count < _BOX:
        raise ValueError
    if count in (_BOX, _SCORED):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, width, height
    across, down = values[: (count - 1) // 2 * 2 : 2], values[1::2]
    if not all(map(math.isfinite, (*across, *down))):
        return NO_BOX
    return min(across), min(down), max(across) - min(across), max(down) - min(down)


def edit_yolo(data: bytes, edits: TextEdits) -> bytes:
    r"""Returns a label file with new classes, without removed lines, and with the label quality as a sixth number.

    Raises:
        DataError: A line has a sixth number already.

    Example:
        >>> edit_yolo(b"0 .5 .5 .1 .1\n1 .2 .2 .1 .1", TextEdits(column="class", labels={0: None, 1: "7"}))
        b'7 .2 .2 .1 .1'
    """
    text = data.decode("latin-1")
    return with_same_end(spliced(text, _splices(text, edits)), text).encode("latin-1")


def _splices(text: str, edits: TextEdits) -> Iterator[Splice]:
    for row, line in enumerate(_lines(text)):
        new, (start, end) = edits.labels.get(row, ""), line.spans[0]
        if new is None:
            yield Splice(line.start, line.end, "")
            continue
        if new:
            yield Splice(start, end, new + "".join(text[start:end].partition(".")[1:]))
        if verdict := edits.verdict(row):
            count = len(line.spans)
            if count != _BOX and count % 2 == 0:
                raise DataError(
                    "expected labels without a confidence, to which the label quality is added, found a line of "
                    f"{count} numbers ({shown(text[line.start : line.end].strip())}); remove the confidence"
                )
            last = line.spans[-1][1]
            yield Splice(last, last, f" {verdict.quality}")


def written_yolo(path: Path, *, column: str) -> Iterator[Written]:
    """Yields the lines of a label file, without a confidence or label quality after the coordinates."""
    del column
    for line in path.read_bytes().decode("latin-1").removeprefix("\xef\xbb\xbf").splitlines():
        words = line.split()
        if words:
            yield Written(words[0].partition(".")[0], words[1 : (len(words) - 1) // 2 * 2 + 1])
