"""The YAML file of a YOLO data set: names of classes, splits, and where images and their labels lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, first_line, listed, shown
from labelsieve.data.sources.file_kinds import read_whole
from labelsieve.data.sources.folders import SUFFIXES

_SPLITS = ("train", "val", "valid", "test", "minival")


@dataclass(frozen=True, kw_only=True)
class YoloConfig:
    """What the YAML file says.

    Attributes:
        path: The file.
        folder: What its paths are relative to.
        values: All of it, with values as texts.
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
            DataError: It is no such file, or of another task.
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
        """The splits that the file names.

        Raises:
            DataError: There is none.
        """
        found = [name for name in _SPLITS if self.values.get(name)]
        if not found:
            raise DataError(
                f"expected train, val or test in {self.path}, found the keys {listed(self.values)}; say there where "
                "the images lie"
            )
        return found

    def places(self, split: str) -> list[Path]:
        """Returns the folders and lists of the images of a split.

        Raises:
            DataError: There is no such folder or list.
        """
        value = self.values[split]
        return [self._place(each, split) for each in (value if isinstance(value, list) else [value])]

    def _place(self, value: Any, split: str) -> Path:
        if not isinstance(value, str):
            raise DataError(f'expected folders or lists of images in "{split}" of {self.path}, found {shown(value)}')
        tried = [self.folder / value, self.path.parent / value]
        if value.startswith("../"):  # some tools write them as seen from the folder of another program
            tried.append(self.path.parent / value.removeprefix("../"))
        place = next((each for each in tried if each.exists()), None)
        if place is None:
            raise DataError(f'"{split}" of {self.path} leads to {tried[0]}, which does not exist; correct it there')
        return Path(os.path.abspath(place))


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:  # values as they stand there: a class `no` is none that is false
        values = yaml.load(read_whole(path), Loader=yaml.BaseLoader)  # which makes texts only
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"expected YAML in {path}, which cannot be read ({first_line(error)}); correct it") from None
    if not isinstance(values, dict) or not ("names" in values or "nc" in values):
        keys = listed(values) if isinstance(values, dict) else "none"
        raise DataError(f"expected a YOLO data set with names of classes in {path}, found the keys {keys}")
    return values


def _names(values: Mapping[str, Any], path: Path) -> tuple[dict[int, str], tuple[str, ...]]:
    """Returns the names of classes by their numbers, and remarks."""
    count, names = values.get("nc"), values.get("names")
    try:
        if names is None:
            return {index: f"class_{index}" for index in range(int(str(count)))}, (f"{path} has no names of classes",)
        pairs = enumerate(names) if isinstance(names, list) else names.items()
        found = {int(index): str(name) for index, name in sorted(pairs, key=lambda pair: int(pair[0]))}
        number = len(found) if count is None else int(str(count))
    except (AttributeError, TypeError, ValueError):
        raise DataError(
            f'expected a list of classes, or a mapping from numbers, in "names" of {path}, found {shown(names)}'
        ) from None
    if number != len(found):
        raise DataError(f"expected {number} names of classes in {path}, as nc says, found {len(found)}; correct one")
    return found, ()


def _root(path: Path, values: Mapping[str, Any]) -> Path:
    """Returns what the paths are relative to: `path` of the file, or its folder where there is no such path any more.

    A relative one may be seen from the folder of the file, from the one above, or from where the program runs.
    """
    here, stated = Path(os.path.abspath(path)).parent, str(values.get("path") or ".")
    tried = (here / stated, here.parent / stated, Path.cwd() / stated)
    return next((Path(os.path.abspath(each)) for each in tried if each.is_dir()), here)


def images_in(place: Path) -> Iterator[str]:
    """Yields the images of a folder and those below, or those that a list names, whether they are there or not.

    Raises:
        DataError: The list cannot be read.
    """
    if place.is_dir():
        for here, folders, files in os.walk(place, followlinks=True):
            folders.sort()
            yield from (os.path.join(here, name) for name in sorted(files) if name.lower().endswith(SUFFIXES))
        return
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DataError(f"expected a list of images in {place}, which cannot be read; check the file") from None
    for line in filter(None, map(str.strip, lines)):
        yield os.path.normpath(place.parent / line)


def labels_of(image: str) -> str:
    """Returns the file of labels of an image: in `labels` in the place of the last `images` of its path."""
    above, mark, below = image.rpartition(f"{os.sep}images{os.sep}")
    whole = f"{above}{os.sep}labels{os.sep}{below}" if mark else image
    return os.path.splitext(whole)[0] + ".txt"
