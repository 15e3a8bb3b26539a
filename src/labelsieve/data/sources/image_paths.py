"""Which file a value of a table means: paths as people write them, and names in a folder of images."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.data.sources.columns import Table, holds_images
from labelsieve.data.sources.folders import SUFFIXES, absolute_paths, text_paths

if TYPE_CHECKING:
    from datasets import Dataset

# How many values, and how many folders beside a table, are tried to find the images of it.
_VALUES, _FOLDERS = 12, 200
_ROWS = 1024


def image_paths(table: Table, notes: list[str]) -> list[str] | None:
    """Returns the paths of the images as they lie on the disk, or None if the image column holds images.

    A path with blanks around it or with backslashes, for which there is no such file, is read without them. Below the
    folder of images that the user named (`table.columns.folder`) a file may be named without its suffix.

    Raises:
        DataError: A name fits images in several folders.
    """
    column, paths = str(table.columns.image), text_paths(table)
    if table.columns.folder is None:
        return None if paths is None else [_as_written(path, str(table.folder or ".")) for path in paths]
    if paths is None and holds_images(table.rows.features[column]):
        return None
    if paths is None:  # integers
        values = table.rows.select_columns([column])[:][column]
        paths = ["" if value is None else str(value) for value in values]
    return _named(paths, table.columns.folder, notes)


def folder_of(files: Sequence[Path]) -> Path:
    """Returns what paths in a table are relative to: the folder that holds all its files."""
    folders = {Path(os.path.abspath(path)).parent for path in files}
    return folders.pop() if len(folders) == 1 else Path(os.path.commonpath(folders))


def _as_written(path: str, root: str) -> str:
    """Returns a path without the blanks around it and with slashes, unless there is such a file as it stands."""
    if path == path.strip() and "\\" not in path:
        return path
    if path.strip() and os.path.lexists(os.path.join(root, path)):
        return path
    return path.strip() if os.path.lexists(os.path.join(root, path.strip())) else path.strip().replace("\\", "/")


def _named(values: Sequence[str], folder: Path, notes: list[str]) -> list[str]:
    """Returns the paths, relative to a folder, of the images that are named in it."""
    root = str(folder)
    written = [_as_written(value, root) for value in values]
    lacking = {value for value in written if value and not os.path.isfile(os.path.join(root, value))}
    if not lacking:
        return written
    found = _Names(folder).find(lacking, notes)
    return [found.get(value, value) for value in written]


class _Names:
    """The images below a folder, by their path without suffix, and by their name with and without it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for here, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES and not name.startswith("."):
                    path = Path(here, name).relative_to(folder).as_posix()
                    self.by_path[path.removesuffix(suffix)].append(path)
                    self.by_name[stem].append(path)
                    self.by_name[name].append(path)

    def find(self, values: Iterable[str], notes: list[str]) -> dict[str, str]:
        """Returns the file of each value that has one.

        Of files that differ in their suffix alone the one is taken whose suffix fits most values, then the one that
        comes first in `SUFFIXES`.
        """
        several = {value: self._fitting(value) for value in sorted(values)}
        suffixes = Counter(self._suffix(path) for paths in several.values() for path in paths)
        found = {
            value: min(paths, key=lambda path: (-suffixes[self._suffix(path)], SUFFIXES.index(self._suffix(path))))
            for value, paths in several.items()
            if paths
        }
        if found:
            value, path = next(iter(found.items()))
            notes.append(f'images are found by their names in {self.folder}: "{shown(value)}" is {shown(path)}')
        if twice := [value for value, paths in several.items() if len(paths) > 1]:
            others = listed(each for each in several[twice[0]] if each != found[twice[0]])
            notes.append(
                f"{len(twice)} names fit several images, of which one is taken (first: {shown(found[twice[0]])}, not "
                f"{others})"
            )
        return found

    def _fitting(self, value: str) -> list[str]:
        # a name alone may lie in any folder below, a path only where it says
        paths = self.by_path.get(value) or self.by_name.get(value, [])
        folders = sorted({os.path.dirname(path) for path in paths})
        if len(folders) > 1:
            raise DataError(
                f'the name "{shown(value)}" fits several images in {self.folder}: {shown(paths[0])}, '
                f"{shown(paths[-1])}; pass --image-folder {self.folder / folders[0]} or another one of them"
            )
        return paths

    @staticmethod
    def _suffix(path: str) -> str:
        return os.path.splitext(path)[1].lower()


def advice_on_folder(values: Iterable[str], *, beside: Path) -> str:
    """Returns which option finds the images if a folder beside a table holds some that are named by its values.

    Args:
        values: Values of the image column, or of a column of ids.
        beside: The folder of the table.

    Returns:
        Such as ``--image-folder train_images``, or an empty string.
    """
    names = [value.strip().replace("\\", "/") for value in values if value.strip() and not os.path.isabs(value)]
    names = [name for name in names if "\0" not in name and len(name) < 200][:_VALUES]
    holding = {folder: held(folder, names) for folder in islice(_folders(beside), _FOLDERS)}
    everything = set().union(*holding.values())
    if not everything:
        return ""
    # of images in several folders, such as part_1 and part_2, the folder that holds these is searched
    whole = next((folder for folder, held in holding.items() if held == everything), None)
    folder = whole or Path(os.path.commonpath([folder for folder, held in holding.items() if held]))
    return f"--image-folder {_near(folder)}"


def held(folder: Path, names: Iterable[str]) -> set[str]:
    """Returns which names there are in a folder, with or without a suffix of an image."""
    suffixes = ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    return {name for name in names if any(os.path.isfile(os.path.join(folder, name + each)) for each in suffixes)}


def _near(folder: Path) -> str:
    """Returns a path as it is written from the current folder, if it lies below."""
    here = os.getcwd()
    return os.path.relpath(folder, here) if folder.is_relative_to(here) else str(folder)


def _folders(root: Path) -> Iterable[Path]:
    """Yields the folders in a folder, then those in them."""
    level = [root]
    for _ in range(2):
        level = [inner for folder in level for inner in _inner(folder)]
        yield from level


def _inner(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []


def about_names(values: Callable[[str], list[str]], *, beside: Path) -> Callable[[str], str]:
    """Returns a function that says of a column of names which options read the images they mean, if there are some.

    Args:
        values: Returns the first values of a column.
        beside: The folder of the table.
    """

    def about(name: str) -> str:
        options = advice_on_folder(values(name), beside=beside)
        return f'; add {options}, which holds the images that "{shown(name)}" names' if options else ""

    return about


def with_whole_paths(table: Table) -> Dataset:
    """Returns the rows with one column `image`, in which paths without bytes are absolute.

    Like paths in a column of texts they are relative to the folder of the table, and lie in it.

    Raises:
        DataError: A path leads out of the folder.
    """
    import pyarrow as pa
    from datasets import Dataset, Features, Image

    column = str(table.columns.image)
    rows = table.rows.select_columns([column])
    if column != "image":
        rows = rows.rename_column(column, "image")
    if table.folder is None:
        return rows
    schema = Features({"image": Image(decode=False)}).arrow_schema
    values = rows.with_format("arrow")[:].column("image")
    chunks = [_whole(chunk, start, table) for chunk, start in _with_starts(values)]
    if all(new is old for new, old in zip(chunks, values.chunks, strict=True)):
        return rows
    return Dataset(pa.Table.from_arrays([pa.chunked_array(chunks, schema.field("image").type)], schema=schema))


def _with_starts(values: Any) -> Iterable[tuple[Any, int]]:
    start = 0
    for chunk in values.chunks:
        yield chunk, start
        start += len(chunk)


def _whole(chunk: Any, start: int, table: Table) -> Any:
    """Returns images with absolute paths, or the same array if it has no paths without bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded, paths = chunk.field("bytes"), chunk.field("path")
    named = pc.and_(pc.and_(chunk.is_valid(), encoded.is_null()), paths.is_valid())
    rows = [row for row, is_named in enumerate(named.to_pylist()) if is_named]
    if not rows:
        return chunk
    root, values = str(table.folder), paths.to_pylist()
    written = [_as_written(values[row], root) for row in rows]
    whole = absolute_paths(written, folder=table.folder, where=table.where, rows=[start + row for row in rows])
    for row, path in zip(rows, whole, strict=True):
        values[row] = path
    texts = pa.array(values, paths.type)
    return pa.StructArray.from_arrays([encoded, texts], ["bytes", "path"], mask=chunk.is_null())
