"""The YAML file of a YOLO data set: class names, splits, and locations of images and labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, first_line, listed, shown
from labelsieve.data.sources.file_kinds import is_image, read_whole

_SPLITS = ("train", "val", "valid", "test", "minival")


@dataclass(frozen=True, kw_only=True)
class YoloConfig:
    """The contents of the YAML file.

    Attributes:
        path: The file.
        folder: The folder that its paths are relative to.
        values: All values, as texts.
        names: Names of classes by their numbers.
        notes: Remarks for the user.
    """

    path: Path
    folder: Path
    values: Mapping[str, Any]
    names: dict[int, str]
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> YoloConfig:
        """Reads the file.

        Raises:
            DataError: It is not such a file, or is for another task.
        """
        values = _read_yaml(path)
        task = "key points" if values.get("kpt_shape") else str(values.get("task") or "detect")
        if task not in ("detect", "segment"):
            raise DataError(
                f'expected boxes in {path}, found a data set for the task "{shown(task)}", which is not read; take '
                "one for detect or segment"
            )
        names, notes = _names(values, path)
        return cls(path=path, folder=_root(path, values), values=values, names=names, notes=notes)

    @property
    def splits(self) -> list[str]:
        """Returns the splits in the file.

        Raises:
            DataError: There is none.
        """
        names = [name for name in _SPLITS if self.values.get(name)]
        if not names:
            raise DataError(
                f"expected train, val or test in {self.path}, found the keys {listed(self.values)}; say there where "
                "the images lie"
            )
        return names

    def locations(self, split: str) -> list[Path]:
        """Returns the folders and lists of the images of a split.

        Raises:
            DataError: There is no such folder or list.
        """
        value = self.values[split]
        return [self._location(each, split) for each in (value if isinstance(value, list) else [value])]

    def _location(self, value: Any, split: str) -> Path:
        if not isinstance(value, str):
            raise DataError(f'expected folders or lists of images in "{split}" of {self.path}, found {shown(value)}')
        candidates = [self.folder / value, self.path.parent / value]
        if value.startswith("../"):  # some tools write them relative to another folder
            candidates.append(self.path.parent / value.removeprefix("../"))
        location = next((each for each in candidates if each.exists()), None)
        if location is None:
            raise DataError(
                f'"{split}" of {self.path} leads to {candidates[0]}, which does not exist; correct it there'
            )
        return Path(os.path.abspath(location))


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:  # values must stay texts: a class `no` would become false
        values = yaml.load(read_whole(path), Loader=yaml.BaseLoader)  # only creates texts
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"expected YAML in {path}, which cannot be read ({first_line(error)}); correct it") from None
    if not isinstance(values, dict) or not ("names" in values or "nc" in values):
        keys = listed(values) if isinstance(values, dict) else "none"
        raise DataError(f"expected a YOLO data set with names of classes in {path}, found the keys {keys}")
    return values


def _names(values: Mapping[str, Any], path: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    """Returns the names of classes by their numbers, and notes."""
    count, names = values.get("nc"), values.get("names")
    try:
        if names is None:
            return {index: f"class_{index}" for index in range(int(str(count)))}, (f"{path} has no names of classes",)
        pairs = enumerate(names) if isinstance(names, list) else names.items()
        names_of_numbers = {int(index): str(name) for index, name in sorted(pairs, key=lambda pair: int(pair[0]))}
        number = len(names_of_numbers) if count is None else int(str(count))
    except (AttributeError, TypeError, ValueError):
        raise DataError(
            f'expected a list of classes, or a mapping from numbers, in "names" of {path}, found {shown(names)}'
        ) from None
    if number != len(names_of_numbers):
        raise DataError(
            f"expected {number} names of classes in {path}, as nc says, found {len(names_of_numbers)}; correct one"
        )
    return names_of_numbers, ()


def _root(path: Path, values: Mapping[str, Any]) -> Path:
    """Returns the folder that paths are relative to: `path` in the file, or its folder if that does not exist.

    A relative `path` is resolved from the folder of the file, its parent, or the current folder.
    """
    folder, stated = Path(os.path.abspath(path)).parent, str(values.get("path") or ".")
    candidates = (folder / stated, folder.parent / stated, Path.cwd() / stated)
    return next((Path(os.path.abspath(each)) for each in candidates if each.is_dir()), folder)


def images_in(location: Path) -> Iterator[str]:
    """Yields the images of a folder and its subfolders, or those named in a list, which may be missing.

    Raises:
        DataError: The list cannot be read.
    """
    if location.is_dir():
        for folder, folders, files in os.walk(location, followlinks=True):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(files) if is_image(name))
        return
    try:
        lines = location.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"expected a list of images in {location}, which cannot be read; check the file") from None
    for line in filter(None, map(str.strip, lines)):
        yield os.path.normpath(location.parent / line)


def labels_of(image: str) -> str:
    """Returns the label file of an image: the last `images` of its path is replaced by `labels`."""
    above, mark, below = image.rpartition(f"{os.sep}images{os.sep}")
    path = f"{above}{os.sep}labels{os.sep}{below}" if mark else image
    return os.path.splitext(path)[0] + ".txt"
