"""Finds the images of a table: by paths in various spellings, by names in a folder of images, or in the table."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, listed, setting, shown
from labelsieve.data.boxes import Boxes
from labelsieve.data.sources.column_kinds import holds_images, holds_pixels, holds_text
from labelsieve.data.sources.columns import Table
from labelsieve.data.sources.file_kinds import SUFFIXES
from labelsieve.data.sources.in_memory import read_memory

if TYPE_CHECKING:
    from datasets import Dataset

# Maximum number of values, and of folders beside a table, that are tried to find its images.
_VALUES, _FOLDERS = 12, 200
# Number of table rows per batch of pixels.
_BATCH = 64


def image_paths(table: Table, notes: list[str]) -> list[str] | None:
    """Returns the paths of the images on the disk, or None if the image column contains images.

    If a path does not exist, surrounding blanks are stripped and backslashes are replaced. In the folder of images that
    the user named (`table.columns.folder`), names may lack their suffix.

    Raises:
        DataError: A name matches images in several folders.
    """
    column = str(table.columns.image)
    feature = table.rows.features[column]
    if not holds_text(feature) and (table.columns.folder is None or holds_images(feature)):
        return None
    values = table.rows.select_columns([column])[:][column]
    paths = ["" if value is None else str(value) for value in values]  # integers may also be names
    if table.columns.folder is None:
        return [_normalised_path(path, str(table.folder or ".")) for path in paths]
    return _named(paths, table.columns.folder, notes)


def absolute_paths(
    paths: Sequence[str], *, folder: Path | None, where: str, rows: Sequence[int] | None = None
) -> list[str]:
    """Returns absolute paths; relative ones are relative to `folder`.

    Args:
        paths: The paths.
        folder: The folder that must contain them; None: anywhere, relative to the current folder.
        where: Name of the table, for messages.
        rows: Their row numbers in the table, for messages; by default all rows.

    Raises:
        DataError: A path is empty, a web address, or outside of `folder`.
    """
    root = os.path.abspath(folder or ".")
    roots = (root, os.path.realpath(root))
    result = []
    for row, path in zip(range(len(paths)) if rows is None else rows, paths, strict=True):
        if not path.strip() or "://" in path or "\0" in path:
            raise DataError(
                f'expected the path of an image in row {row + 1} of {where}, found "{shown(path)}"; fix or remove it'
            )
        absolute = os.path.normpath(os.path.join(root, path))
        if folder is not None and not any(_lies_in(absolute, base) for base in roots):
            raise DataError(
                f'the path "{shown(path)}" in row {row + 1} of {where} leads out of the folder {root}; pass the folder '
                f"that holds all images with {setting('image_folder')}"
            )
        result.append(absolute)
    return result


def _lies_in(path: str, folder: str) -> bool:
    try:
        return os.path.normcase(os.path.commonpath((path, folder))) == os.path.normcase(folder)
    except ValueError:  # on another drive of Windows
        return False


def relative_path(path: str, folder: str) -> str:
    """Returns a path relative to a folder, or the absolute path if it is on another drive of Windows."""
    try:
        return Path(os.path.relpath(os.path.join(folder, path), folder)).as_posix()
    except ValueError:
        return Path(path).as_posix()


def folder_of(files: Sequence[Path]) -> Path:
    """Returns the folder that paths in a table are relative to: the common folder of its files."""
    folders = {Path(os.path.abspath(path)).parent for path in files}
    return folders.pop() if len(folders) == 1 else Path(os.path.commonpath(folders))


def _normalised_path(path: str, root: str) -> str:
    """Returns a path without surrounding blanks and with slashes, unless the file exists as written."""
    if path == path.strip() and "\\" not in path:
        return path
    if path.strip() and os.path.lexists(os.path.join(root, path)):
        return path
    return path.strip() if os.path.lexists(os.path.join(root, path.strip())) else path.strip().replace("\\", "/")


def _named(values: Sequence[str], folder: Path, notes: list[str]) -> list[str]:
    """Returns the paths of named images, relative to their folder."""
    root = str(folder)
    written = [_normalised_path(value, root) for value in values]
    lacking = {value for value in written if value and not os.path.isfile(os.path.join(root, value))}
    if not lacking:
        return written
    file_of = _Names(folder).find(lacking, notes)
    return [file_of.get(value, value) for value in written]


class _Names:
    """The images in a folder and its subfolders, by path without suffix, and by name with and without suffix."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_path: dict[str, list[str]] = defaultdict(list)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for current, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES and not name.startswith("."):
                    path = Path(current, name).relative_to(folder).as_posix()
                    self.by_path[path.removesuffix(suffix)].append(path)
                    self.by_name[stem].append(path)
                    self.by_name[name].append(path)

    def find(self, values: Iterable[str], notes: list[str]) -> dict[str, str]:
        """Returns the file of each value that has one.

        Among files that only differ in their suffix, the suffix that matches most values is preferred, then the
        first one in `SUFFIXES`.
        """
        several = {value: self._fitting(value) for value in sorted(values)}
        suffixes = Counter(self._suffix(path) for paths in several.values() for path in paths)
        file_of = {
            value: min(paths, key=lambda path: (-suffixes[self._suffix(path)], SUFFIXES.index(self._suffix(path))))
            for value, paths in several.items()
            if paths
        }
        if file_of:
            value, path = next(iter(file_of.items()))
            notes.append(f'images are found by their names in {self.folder}: "{shown(value)}" is {shown(path)}')
        if twice := [value for value, paths in several.items() if len(paths) > 1]:
            other_files = listed(each for each in several[twice[0]] if each != file_of[twice[0]])
            notes.append(
                f"{len(twice)} names fit several images, of which one is taken (first: {shown(file_of[twice[0]])}, not "
                f"{other_files})"
            )
        return file_of

    def _fitting(self, value: str) -> list[str]:
        # a name may be in any subfolder, a path must match exactly
        paths = self.by_path.get(value) or self.by_name.get(value, [])
        folders = sorted({os.path.dirname(path) for path in paths})
        if len(folders) > 1:
            raise DataError(
                f'the name "{shown(value)}" fits several images in {self.folder}: {shown(paths[0])}, '
                f"{shown(paths[-1])}; pass {setting('image_folder')} {self.folder / folders[0]} or another one of them"
            )
        return paths

    @staticmethod
    def _suffix(path: str) -> str:
        return os.path.splitext(path)[1].lower()


def advice_on_folder(values: Iterable[str], *, table_folder: Path) -> str:
    """Returns the option that finds the images, if a folder beside a table contains images named by its values.

    Args:
        values: Values of the image column, or of a column of ids.
        table_folder: The folder of the table.

    Returns:
        The option, such as ``--image-folder train_images``, or an empty string.
    """
    names = [value.strip().replace("\\", "/") for value in values if value.strip() and not os.path.isabs(value)]
    names = [name for name in names if "\0" not in name and len(name) < 200][:_VALUES]
    names_in = {folder: held(folder, names) for folder in islice(_folders(table_folder), _FOLDERS)}
    everything = set().union(*names_in.values())
    if not everything:
        return ""
    # if images are in several folders, such as part_1 and part_2, their common folder is used
    complete = next((folder for folder, found_names in names_in.items() if found_names == everything), None)
    folder = complete or Path(os.path.commonpath([folder for folder, found_names in names_in.items() if found_names]))
    return f"{setting('image_folder')} {_near(folder)}"


def held(folder: Path, names: Iterable[str]) -> set[str]:
    """Returns the names that exist in a folder, as they are or with an image suffix."""
    suffixes = ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    return {name for name in names if any(os.path.isfile(os.path.join(folder, name + each)) for each in suffixes)}


def _near(folder: Path) -> str:
    """Returns a path relative to the current folder if it is in it, else unchanged."""
    current = os.getcwd()
    return os.path.relpath(folder, current) if folder.is_relative_to(current) else str(folder)


def _folders(root: Path) -> Iterable[Path]:
    """Yields the subfolders of a folder, then their subfolders."""
    level = [root]
    for _ in range(2):
        level = [inner for folder in level for inner in _inner(folder)]
        yield from level


def _inner(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return []


def about_names(values: Callable[[str], list[str]], *, table_folder: Path) -> Callable[[str], str]:
    """Returns a function from a column to a hint on the options to read the images that it names.

    Args:
        values: Function that returns the first values of a column.
        table_folder: The folder of the table.
    """

    def about(name: str) -> str:
        options = advice_on_folder(values(name), table_folder=table_folder)
        return f'; add {options}, which holds the images that "{shown(name)}" names' if options else ""

    return about


def undecoded_images(table: Table, paths: list[str] | None, boxes: Boxes | None = None) -> Dataset:
    """Returns the rows with a single column `image` of undecoded images.

    Args:
        table: A table of N rows.
        paths: The N paths of the images; None if the table contains the images.
        boxes: The N boxes, if rows are boxes; boxes of unknown images, whose number is -1, get null.
    """
    from datasets import Dataset, Features, Image

    column = str(table.columns.image)
    if paths is not None and boxes is not None:
        return _images_of_boxes(table, paths, boxes)
    if paths is not None:
        absolute = absolute_paths(paths, folder=table.folder, where=table.where)
        return Dataset.from_dict({"image": absolute}, features=Features({"image": Image(decode=False)}))
    if holds_pixels(table.rows.features[column]):
        return read_memory(_pixels(table, column))
    return _with_absolute_paths(table)


def _images_of_boxes(table: Table, paths: Sequence[str], boxes: Boxes) -> Dataset:
    """Returns the image of each box; null if it is unknown. Resolves paths once per image, not per box."""
    import pyarrow as pa
    from datasets import Dataset, Features, Image

    listed = np.flatnonzero(boxes.image_of >= 0)
    _, first, inverse = np.unique(boxes.image_of[listed], return_index=True, return_inverse=True)
    rows = listed[first]
    absolute = absolute_paths([paths[row] for row in rows], folder=table.folder, where=table.where, rows=rows.tolist())
    positions = np.full(len(paths), -1)
    positions[listed] = inverse
    values = pa.array(absolute, pa.string()).take(pa.array(positions, mask=positions < 0))
    schema = Features({"image": Image(decode=False)}).arrow_schema
    encoded = pa.nulls(len(paths), schema.field("image").type.field("bytes").type)
    images = pa.StructArray.from_arrays([encoded, values], ["bytes", "path"], mask=pa.array(positions < 0))
    return Dataset(pa.table([images.cast(schema.field("image").type)], schema=schema))


def _with_absolute_paths(table: Table) -> Dataset:
    """Returns the rows with one column `image`, in which paths without bytes are absolute.

    As in a column of texts, paths are relative to the folder of the table, and must be inside of it.

    Raises:
        DataError: A path is outside of the folder.
    """
    import pyarrow as pa
    from datasets import Dataset, Features, Image

    image_column = str(table.columns.image)
    rows = table.rows.select_columns([image_column])
    if image_column != "image":
        rows = rows.rename_column(image_column, "image")
    if table.folder is None:
        return rows
    schema = Features({"image": Image(decode=False)}).arrow_schema
    values = rows.with_format("arrow")[:].column("image")
    starts = accumulate(map(len, values.chunks), initial=0)
    chunks = [_absolute(chunk, start, table) for chunk, start in zip(values.chunks, starts, strict=False)]
    if all(new is old for new, old in zip(chunks, values.chunks, strict=True)):
        return rows
    return Dataset(pa.Table.from_arrays([pa.chunked_array(chunks, schema.field("image").type)], schema=schema))


def _absolute(chunk: Any, start: int, table: Table) -> Any:
    """Returns images with absolute paths, or the same array if there is no path without bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded, paths = chunk.field("bytes"), chunk.field("path")
    named = pc.and_(pc.and_(chunk.is_valid(), encoded.is_null()), paths.is_valid())
    rows = pc.indices_nonzero(named).to_pylist()
    if not rows:
        return chunk
    written = [_normalised_path(path, str(table.folder)) for path in paths.filter(named).to_pylist()]
    absolute = absolute_paths(written, folder=table.folder, where=table.where, rows=[start + row for row in rows])
    texts = pc.replace_with_mask(paths, named, pa.array(absolute, paths.type))
    return pa.StructArray.from_arrays([encoded, texts], ["bytes", "path"], mask=chunk.is_null())


def _pixels(table: Table, column: str) -> list[NDArray[Any]]:
    """Returns images stored in a table as nested lists of numbers."""
    images: list[NDArray[Any]] = []
    for batch in table.rows.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH):
        for value in batch.column(0).to_pylist():
            try:
                pixels = np.asarray(value)
            except ValueError:  # rows of different lengths
                pixels = np.empty(0)
            if pixels.ndim < 2 or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
                raise DataError(
                    f'expected pixels from 0 to 255 of shape (H, W) or (H, W, 3) in the column "{shown(column)}" of '
                    f"{table.where}, found something else in row {len(images) + 1}; fix or remove the row"
                )
            images.append(pixels.astype(np.uint8))
    return images
