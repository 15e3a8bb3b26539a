"""Helpers of the readers of published data sets: they find files, read lists and create rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, first_line, listed, shown
from labelsieve.data.labels import check_class_names, normalise
from labelsieve.data.sources.file_kinds import is_image, listing
from labelsieve.data.sources.in_memory import read_memory

if TYPE_CHECKING:
    from datasets import Dataset

AGAIN = "get it again from the page of the data set"


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """One column of labels.

    Attributes:
        values: Shape (N,), values 0 to K-1.
        names: The K class names.
    """

    values: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedSplit:
    """One split of a published data set.

    Attributes:
        folder: The folder that contains the paths.
        images: N paths relative to `folder`, or an array of shape (N, H, W, 3), uint8.
        labels: The columns of labels by name.
        given: The default column of the given labels.
        truths: The columns of true labels; the column with the same classes as the given labels is used.
        numbers: Further columns, of N integers each.
        notes: Notes for the user.
    """

    folder: Path
    images: Sequence[str] | NDArray[np.uint8]
    labels: Mapping[str, Labels]
    given: str = "label"
    truths: tuple[str, ...] = ()
    numbers: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def truth_of(self, given: str) -> str | None:
        """Returns the column of the true labels that go with a column of given ones, or None."""
        if given in self.truths or given not in self.labels:
            return None
        names = self.labels[given].names
        return next((truth for truth in self.truths if self.labels[truth].names == names), None)


def to_rows(contents: PublishedSplit, *, where: str) -> Dataset:
    """Creates rows with the column `image` and the columns of labels."""
    import pyarrow as pa
    from datasets import ClassLabel, Dataset, Features, Image, Value

    in_memory = isinstance(contents.images, np.ndarray)
    images = read_memory(contents.images).data.column("image") if in_memory else pa.array(contents.images, pa.string())
    features = {"image": Image(decode=False) if in_memory else Value("string")}
    columns = {"image": images}
    for name, labels in contents.labels.items():
        check_class_names(labels.names, where=where)
        features[name], columns[name] = ClassLabel(names=list(labels.names)), pa.array(labels.values)
    for name, numbers in contents.numbers.items():
        features[name], columns[name] = Value("int64"), pa.array(numbers)
    return Dataset(pa.table(columns, schema=Features(features).arrow_schema))


def home_of(path: Path, *, title: str, files: Sequence[str], inside: Sequence[str] = ()) -> Path:
    """Returns the folder of a data set: `path` itself, or a folder in it.

    Args:
        path: The path passed by the user.
        title: Name of the data set, for messages.
        files: Required files and folders; a folder ends with `/`.
        inside: Folders in `path` that may contain them instead.

    Raises:
        DataError: Some of `files` are missing; the message lists the expected and the existing ones.
    """
    folders = [path, *(folder for name in inside if (folder := path / name).is_dir())]
    missing = {folder: [name for name in files if not _is_there(folder, name)] for folder in folders}
    best = min(folders, key=lambda folder: len(missing[folder]))
    if not missing[best]:
        return best
    raise DataError(
        f"expected {title} in {best} with {listed(files)}; missing: {listed(missing[best])}; "
        f"found: {_content(best)}; check the path, or unpack what the page of the data set offers"
    )


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() if name.endswith("/") else (folder / name).is_file()


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(folder))
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    return listed(names) or "nothing"


def lines_of(path: Path) -> list[str]:
    """Reads the lines of a text file without blank lines; Windows line ends are supported."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}; {AGAIN}") from None
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def pairs(path: Path, *, last: bool = False) -> list[tuple[str, str]]:
    """Reads two values per line, separated by white space.

    Args:
        path: The text file.
        last: Whether to split at the last white space instead of the first, because the first value may contain some.

    Raises:
        DataError: A line has only one value.
    """
    result = []
    for line in lines_of(path):
        parts = line.rsplit(None, 1) if last else line.split(None, 1)
        if len(parts) != 2:
            raise DataError(f'expected two values a line in {path}, found "{shown(line)}"; {AGAIN}')
        result.append((parts[0], parts[1]))
    return result


def indices(values: Any, *, names: Sequence[Any], where: object, first: int = 0) -> NDArray[np.int64]:
    """Reads labels as indices into names.

    Args:
        values: N integers, or texts of integers.
        names: The names of the K classes; only their number matters.
        where: Name of the labels, for messages.
        first: The number of the first class in the file.

    Raises:
        DataError: A label is not an integer, or has no name.
    """
    try:
        array = np.asarray(values).reshape(-1)
        if array.size and array.dtype.kind not in "iuU":
            raise ValueError(f"they are {array.dtype}")
        result = array.astype(np.int64) - first
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"expected labels as integers in {where}: {first_line(error)}; {AGAIN}") from None
    wrong = np.flatnonzero((result < 0) | (result >= len(names)))
    if len(wrong):
        last, odd = len(names) - 1 + first, result[wrong[0]] + first
        raise DataError(f"expected labels from {first} to {last} in {where}, found {odd}; {AGAIN}")
    return result


def looked_up(keys: Sequence[str], table: Mapping[str, Any], *, where: object, of: object) -> list[Any]:
    """Returns the value of each key in a table.

    Args:
        keys: The keys, which may repeat.
        table: Key to value.
        where: Name of the table, for messages.
        of: Name of the source of the keys, for messages.

    Raises:
        DataError: Some keys are missing. The message has their number and the first one.
    """
    missing = [key for key in keys if key not in table]
    if missing:
        raise DataError(
            f"expected a line in {where} for each of the {len(keys):,} entries of {of}, {len(missing):,} have none "
            f'(first: "{shown(missing[0])}"); {AGAIN}'
        )
    return [table[key] for key in keys]


def positions(keys: Sequence[str], names: Iterable[str], *, where: object, of: object) -> NDArray[np.int64]:
    """Returns the label of each key: its position among the class names.

    Args:
        keys: N names.
        names: The K unique names.
        where: Source of the class names, for messages.
        of: Source of the keys, for messages.

    Raises:
        DataError: Some keys are not among the names.
    """
    numbers = {name: number for number, name in enumerate(names)}
    return np.array(looked_up(keys, numbers, where=where, of=of), dtype=np.int64)


def images_in(folder: Path, *, home: Path) -> list[str]:
    """Lists the images in a folder, sorted, as paths relative to `home`; hidden files are left out."""
    with listing(folder):
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        below = folder.relative_to(home).as_posix()
        paths = [f"{below}/{name}" for name in names if not name.startswith(".") and is_image(name)]
        return [path.encode().decode() for path in paths]  # a name that is not UTF-8 fails here


def readable(name: str) -> str:
    """Returns a class name as in a caption: `apple_pie` is "apple pie"."""
    return " ".join(name.replace("_", " ").lower().split())


def distinct_names(synonyms: Sequence[str], *, codes: Sequence[str]) -> tuple[str, ...]:
    """Names each class by its first synonym, or by as many synonyms as distinguish it from the other classes.

    Args:
        synonyms: The synonyms of each of the K classes, separated by commas.
        codes: K codes, appended to names that are not distinct even with all synonyms.
    """
    words = [[word.strip() for word in line.split(",")] for line in synonyms]
    used = [1] * len(words)
    while True:
        names = [", ".join(some[:count]) for some, count in zip(words, used, strict=True)]
        shared = {name for name, count in Counter(map(normalise, names)).items() if count > 1}
        twice = [row for row, name in enumerate(names) if normalise(name) in shared]
        longer = [row for row in twice if used[row] < len(words[row])]
        if not longer:
            return tuple(f"{name} ({codes[row]})" if row in twice else name for row, name in enumerate(names))
        for row in longer:
            used[row] += 1
