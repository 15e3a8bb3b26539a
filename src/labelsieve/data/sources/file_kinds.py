"""Types of files by name and by content: a file may be a Git LFS pointer, empty, truncated, or of another type."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labelsieve.core.errors import DataError, shown
from labelsieve.data.sources.table_formats import TABLE_FORMATS, TABLES, format_of

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".avif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico"),
)
# Suffix of the lists of changes that `labelsieve apply` writes beside a data set.
CHANGES = ".changes.csv"
_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_SIZE = 1024
# First bytes of files that often have a wrong suffix.
_BEGINNINGS = (
    (b"PK\x03\x04", "a zip file, as Excel writes it"),
    (b"\x1f\x8b", "packed by gzip"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    *(
        (format.magic, f"{'an' if name[0] in 'aeiou' else 'a'} {name.capitalize()} file")
        for name, format in TABLE_FORMATS.entries.items()
        if format.magic
    ),
)
_FROM_PANDAS = "write it as Parquet: pandas.read_json(FILE{}).to_parquet(NEW)"
_FROM_TORCH = 'convert it where you trust it: numpy.savez("features.npz", features=..., labels=...)'
_UNPACK = "unpack it and pass the folder or table inside"
# Advice for other types of files.
_CONVERSIONS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV (UTF-8)"),
    ".json": _FROM_PANDAS.format(""),
    **dict.fromkeys((".jsonl", ".ndjson"), _FROM_PANDAS.format(", lines=True")),
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle", ".joblib", ".h5", ".hdf5", ".mat", ".safetensors"), _FROM_TORCH),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"), _UNPACK),
    **dict.fromkeys((".txt", ".dat", ".lst"), "a table needs a header, such as path,label, and the suffix .csv"),
}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib")


def is_image(name: str) -> bool:
    """Returns whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def is_table(name: str) -> bool:
    """Returns whether a file is a table by its name, but not a list of changes."""
    return os.path.splitext(name)[1].lower() in TABLES and not name.lower().endswith(CHANGES)


def is_pointer(data: bytes) -> bool:
    """Returns whether the content of a file is a Git LFS pointer instead of the file itself."""
    return data.startswith(_POINTER) and len(data) < POINTER_SIZE


def refuse_pointer(path: Path) -> None:
    """Raises a `DataError` if a file is a Git LFS pointer; ignores other problems."""
    try:
        with path.open("rb") as handle:
            is_lfs_pointer = is_pointer(handle.read(POINTER_SIZE))
    except OSError:
        return  # the next reader reports why it cannot be read
    if is_lfs_pointer:
        raise DataError(f"{path} is a Git LFS pointer, not the file itself; get it with: git lfs pull")


def read_whole(path: Path) -> bytes:
    """Returns the bytes of a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from None


@contextmanager
def listing(folder: Path) -> Iterator[None]:
    """Raises a `DataError` if a folder cannot be read, or a name in it is not UTF-8."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise DataError(
            f"the file name {shown(repr(error.object))} in {folder} is not UTF-8; rename the file"
        ) from None
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; check its permissions") from None


def conversion(path: Path) -> str:
    """Returns the advice for a file of an unsupported type, or an empty string."""
    advice = _CONVERSIONS.get(path.suffix.lower(), "")
    return f"nothing is unpickled; {advice}" if path.suffix.lower() in _PICKLES else advice


def other_kind(path: Path) -> str | None:
    """Returns the type of a file by its first bytes, in words: "a web page"; None if it is unknown."""
    with path.open("rb") as handle:
        head = handle.read(16)
    return next((words for beginning, words in _BEGINNINGS if head.startswith(beginning)), None)


def damage(path: Path) -> str:
    """Describes why a file cannot be read as a table of the type of its suffix."""
    try:
        with path.open("rb") as handle:
            head = handle.read(8)
            handle.seek(-min(8, path.stat().st_size), os.SEEK_END)
            tail = handle.read()
        kind_found = other_kind(path)
    except OSError as error:
        return f"cannot be read ({error.strerror}); check its permissions"
    if not head:
        return "cannot be read: it is empty; write it again"
    format = format_of(path)
    magic = format.magic
    if magic and head.startswith(magic):
        state = "damaged" if tail.endswith(magic) else "cut off"
        return f"cannot be read: it is {state}; copy or download it again"
    return f"cannot be read: it is {kind_found or f'no {format.name.capitalize()} file, or damaged'}; check the file"
