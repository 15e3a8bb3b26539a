"""What a file really is, whatever its name says: pointers of Git LFS, empty, cut off or converted files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from labelsieve.core.errors import DataError
from labelsieve.data.sources.table_formats import TABLE_FORMATS

_POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_SIZE = 1024
# How files begin that are often saved under another suffix.
_BEGINNINGS = (
    (b"PK\x03\x04", "a zip file, as Excel writes it"),
    (b"\x1f\x8b", "packed by gzip"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
)
_FROM_PANDAS = "write it as Parquet: pandas.read_json(FILE{}).to_parquet(NEW)"
_FROM_TORCH = 'convert it where you trust it: numpy.savez("features.npz", features=..., labels=...)'
_UNPACK = "unpack it and pass the folder or table inside"
# What to do with files of other kinds that people have.
_CONVERSIONS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV (UTF-8)"),
    ".json": _FROM_PANDAS.format(""),
    **dict.fromkeys((".jsonl", ".ndjson"), _FROM_PANDAS.format(", lines=True")),
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle", ".joblib", ".h5", ".hdf5", ".mat", ".safetensors"), _FROM_TORCH),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"), _UNPACK),
    **dict.fromkeys((".txt", ".dat", ".lst"), "a table needs a header, such as path,label, and the suffix .csv"),
}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib")


def is_pointer(data: bytes) -> bool:
    """Returns whether the content of a file is a pointer of Git LFS in the place of the file itself."""
    return data.startswith(_POINTER) and len(data) < POINTER_SIZE


def refuse_pointer(path: Path) -> None:
    """Raises a `DataError` if a file is a pointer of Git LFS; whatever else is wrong with it is not looked at."""
    try:
        with path.open("rb") as handle:
            found = is_pointer(handle.read(POINTER_SIZE))
    except OSError:
        return  # whoever reads it next says why it cannot be read
    if found:
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


def conversion(path: Path) -> str:
    """Returns what to do with a file of a kind that is not read, or an empty string."""
    advice = _CONVERSIONS.get(path.suffix.lower(), "")
    return f"nothing is unpickled; {advice}" if path.suffix.lower() in _PICKLES else advice


def other_kind(path: Path) -> str | None:
    """Returns what a file is by how it begins, in words: "a web page"; None where nothing is known of that."""
    with path.open("rb") as handle:
        head = handle.read(16)
    return next((words for beginning, words in (*_BEGINNINGS, *_tables()) if head.startswith(beginning)), None)


def _tables() -> Iterator[tuple[bytes, str]]:
    """Yields how tables begin, and what they are in words: "an Arrow file"."""
    for name, format in TABLE_FORMATS.entries.items():
        if format.magic:
            yield format.magic, f"{'an' if name[0] in 'aeiou' else 'a'} {name.capitalize()} file"


def damage(path: Path, *, kind: str) -> str:
    """Returns what is wrong with a file that cannot be read as a table, in plain words.

    Args:
        path: The file.
        kind: What it should be: a key of `TABLE_FORMATS`.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(8)
            handle.seek(-min(8, path.stat().st_size), os.SEEK_END)
            tail = handle.read()
        found = other_kind(path)
    except OSError as error:
        return f"cannot be read ({error.strerror}); check its permissions"
    if not head:
        return "cannot be read: it is empty; write it again"
    magic = TABLE_FORMATS.entries[kind].magic
    if magic and head.startswith(magic):
        state = "damaged" if tail.endswith(magic) else "cut off"
        return f"cannot be read: it is {state}; copy or download it again"
    return f"cannot be read: it is {found or f'no {kind.capitalize()} file, or damaged'}; check the file"
