"""Files on disk: a folder of class folders, and the rules for paths in a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from labelsieve.data.columns import Columns, Table, holds_text, refuse_split
from labelsieve.errors import DataError, shown

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico"),
)
TABLES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})


def read_folder(folder: Path, *, asked: Columns, split: str | None) -> Table:
    """Reads a folder of class folders: `photos/cat/1.jpg`, nested deeper or not; hidden files are left out."""
    from datasets import Dataset, Features, Value

    refuse_split(split, folder)
    if wish := asked.image or asked.label or asked.truth:
        raise DataError(f'{folder} is a folder of class folders, which has no columns, but "{wish}" was asked for')
    folder = Path(os.path.abspath(folder))
    try:
        entries = sorted((entry for entry in os.scandir(folder) if _visible(entry.name)), key=lambda entry: entry.name)
        classes = [entry.name for entry in entries if entry.is_dir()]
        loose = [entry.name for entry in entries if entry.is_file() and _is_picture(entry.name)]
        paths, other, closed = _walk(folder, classes)
        # a name that is not UTF-8 fails here
        ids, classes = ([name.encode().decode() for name in names] for names in (paths, classes))
    except UnicodeEncodeError as error:
        raise DataError(f"the file name {error.object!r} in {folder} is not UTF-8; rename the file") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}; check its permissions") from None
    listed = ", ".join(f"{count} {_in_utf8(suffix) or 'without suffix'}" for suffix, count in other.most_common(5))
    files = [entry.name for entry in entries]
    _check_folder(folder, classes=classes, paths=paths, loose=loose, files=files, other=listed)
    notes = []
    if loose:
        notes.append(
            f"{len(loose)} of the images lie in no class folder and were left out (first: {_in_utf8(loose[0])})"
        )
    if closed:
        notes.append(f"{len(closed)} folders cannot be read and were left out (first: {_in_utf8(closed[0])})")
    if other:
        notes.append(f"{other.total()} files that are no images by their suffix were left out ({listed})")
    columns = {"image": ids, "label": [path.split("/", 1)[0] for path in ids]}
    rows = Dataset.from_dict(columns, features=Features({"image": Value("string"), "label": Value("string")}))
    where = f"the folder {folder}"
    chosen = Columns(image="image", label="label")
    return Table(rows=rows, columns=chosen, where=where, folder=folder, class_names=tuple(classes), notes=tuple(notes))


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _in_utf8(name: str) -> str:
    """Makes a name that may be in another encoding fit to be written; of files that are left out, none is refused."""
    return name.encode("utf-8", "backslashreplace").decode()


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _walk(folder: Path, classes: Sequence[str]) -> tuple[list[str], Counter[str], list[str]]:
    """Looks into the class folders.

    Returns:
        The sorted relative paths of the pictures, the suffixes of all other files, and folders that cannot be read.
    """
    root = Path(os.path.realpath(folder))
    above = {str(root), *map(str, root.parents)}
    paths: list[str] = []
    closed: list[str] = []
    other: Counter[str] = Counter()
    for name in classes:
        found: list[str] = []
        seen = set(above)
        for here, folders, files in os.walk(
            folder / name,
            followlinks=True,
            onerror=lambda error: closed.append(os.path.relpath(error.filename, folder)),
        ):
            real = os.path.realpath(here)
            # a link back up would go round for ever, and one above the class would bring in the others
            folders[:] = [] if real in seen else [inner for inner in folders if _visible(inner)]
            if real in seen:
                continue
            seen.add(real)
            for file in filter(_visible, files):
                if _is_picture(file):
                    found.append(Path(here, file).relative_to(folder).as_posix())
                else:
                    other[os.path.splitext(file)[1].lower()] += 1
        paths += sorted(found)
    return paths, other, closed


def _check_folder(
    folder: Path, *, classes: list[str], paths: list[str], loose: list[str], files: list[str], other: str
) -> None:
    layout = "expected a folder of class folders such as photos/cat/1.jpg"
    if not files:
        raise DataError(f"{layout}, but {folder} is empty; check the path")
    if not classes:
        tables = [name for name in files if Path(name).suffix.lower() in TABLES]
        hint = "put the images of each class into a folder of its own"
        hint = f"pass the file itself, {folder / tables[0]}" if tables else hint
        raise DataError(f"{layout}, but {folder} has no folders, only {len(files)} files ({len(loose)} images); {hint}")
    if not paths:
        only, hint = (f", only other files ({other})", ", or convert these") if other else ("", "")
        raise DataError(
            f"{layout}, but no folder in {folder} holds an image (.jpg, .png, ...){only}; check the path{hint}"
        )
    if {name.lower() for name in classes} <= _SPLITS and all(path.count("/") > 1 for path in paths):
        raise DataError(f"{layout}, but {folder} holds splits: {', '.join(classes)}; pass {folder / classes[0]}")
    if len(classes) == 1:
        raise DataError(f'{layout}, two classes at least, but {folder} has only "{classes[0]}"; add the other classes')


def text_paths(table: Table) -> list[str] | None:
    """Returns the paths as they stand in the image column, or None if it holds pictures."""
    column = str(table.columns.image)
    if not holds_text(table.rows.features[column]):
        return None
    return [path or "" for path in table.rows.select_columns([column])[:][column]]


def absolute_paths(
    paths: Sequence[str], *, folder: Path | None, where: str, rows: Sequence[int] | None = None
) -> list[str]:
    """Returns absolute paths; relative ones are read from `folder`.

    Args:
        paths: The paths.
        folder: Where they have to lie; None: anywhere, and relative ones in the current folder.
        where: What to call the table in a message.
        rows: Their row numbers in the table, for messages; by default they are those of all rows.

    Raises:
        DataError: A path is empty, a web address, or leads out of `folder`.
    """
    root = os.path.abspath(folder or ".")
    roots = (root, os.path.realpath(root))
    found = []
    for row, path in zip(range(len(paths)) if rows is None else rows, paths, strict=True):
        if not path.strip() or "://" in path or "\0" in path:
            raise DataError(
                f'expected the path of an image in row {row + 1} of {where}, found "{shown(path)}"; fix or remove it'
            )
        whole = os.path.normpath(os.path.join(root, path))
        if folder is not None and not any(_lies_in(whole, base) for base in roots):
            raise DataError(
                f'the path "{shown(path)}" in row {row + 1} of {where} leads out of the folder {root}; pass the folder '
                "that holds all images with --image-folder"
            )
        found.append(whole)
    return found


def _lies_in(path: str, folder: str) -> bool:
    try:
        return os.path.normcase(os.path.commonpath((path, folder))) == os.path.normcase(folder)
    except ValueError:  # of another drive of Windows
        return False


def relative_path(path: str, folder: str) -> str:
    """Returns a path as it is seen from a folder, or the whole path if that is on another drive of Windows."""
    try:
        return Path(os.path.relpath(os.path.join(folder, path), folder)).as_posix()
    except ValueError:
        return Path(path).as_posix()
