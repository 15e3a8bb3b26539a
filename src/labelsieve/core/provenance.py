"""Where a result came from, and how it reaches the disk whole or not at all.

Fingerprints of data and settings, versions of what was used, and atomic writing. Nothing here pickles.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.core.errors import RunError, first_line
from labelsieve.core.locks import locked

_PACKAGES = ("labelsieve", "torch", "torchvision", "transformers", "datasets", "accelerate", "scikit-learn", "numpy")
# What a temporary file holds before anything is written to it.
_NOTHING = b"labelsieve: not written yet"
_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a symbolic link that leads in a circle"),
)


def fingerprint(*parts: Any) -> str:
    """Hashes arrays, bytes, strings and JSON-like values into 16 hexadecimal digits.

    Equal parts give equal fingerprints on every machine; the order of dictionary keys does not matter. Each part enters
    BLAKE2b as a line with its kind and its length in bytes, then its content.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray):
            head, body = f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            head, body = "bytes", part
        else:
            head, body = "json", to_json(part).encode()
        digest.update(f"{head} {len(body)}\n".encode())
        digest.update(body)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a result depends on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def to_json(value: Any) -> str:
    """Serialises dataclasses, paths and numpy scalars too; the same value always gives the same text."""
    return json.dumps(value, default=_plain, sort_keys=True, indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=to_json)  # the text orders mixed types too, and does not depend on the hash seed
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def is_utf8(path: str | Path) -> bool:
    """Returns whether a path is a text, which Arrow and the records of runs need; on Linux it may be any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def target_of(path: Path) -> Path:
    """Returns the file that writing to `path` creates or replaces: `path` itself, or what a symbolic link leads to.

    Raises:
        RunError: Something else than a regular file is there, such as a device or a folder, which is never replaced;
            or the path is not UTF-8.
    """
    if not is_utf8(path):
        raise RunError(f"could not write {str(path)!r}: the path is not UTF-8; choose another name")
    target = Path(os.path.realpath(path))
    kind = _kind(target)
    if kind not in (None, "a regular file"):
        led = f"{path} leads to {kind}" if target != Path(os.path.abspath(path)) else f"it is {kind}"
        raise RunError(f"could not write {path}: {led}, and only a regular file is ever replaced; choose another name")
    return target


def _kind(path: Path) -> str | None:
    """Returns what a path is, without following it; None where there is nothing."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # nothing there, or in no folder; writing will tell
        return None
    return next((kind for test, kind in _KINDS if test(mode)), "something else")


def remove(path: Path) -> None:
    """Removes a file that is to be replaced, if it is there: what :func:`target_of` a path is.

    Raises:
        RunError: It is no regular file, or cannot be removed.
    """
    try:
        target_of(path).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"could not replace {path}: {error.strerror}; choose a writable folder") from error


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` when the block ends well, removes it otherwise.

    Where `path` is a symbolic link, the link stays and what it leads to is replaced. Temporary files of processes that
    were killed while they wrote the same file are removed.

    Raises:
        RunError: The disk is full or read-only, the path is not UTF-8, or something else than a regular file is there;
            whatever stood there before stays as it was.
    """
    target = target_of(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(target)
        with new_part(target) as part:
            yield part
            with part.open("rb+") as handle:
                if handle.read(len(_NOTHING) + 1) == _NOTHING:
                    raise OSError("nothing was written")
                os.fsync(handle.fileno())
            part.replace(target)
    except OSError as error:
        # the number's own text: some libraries tell of the temporary file instead
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"could not write {path}: {reason}; free some space or choose a writable folder") from error


@contextmanager
def new_part(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Makes a temporary file or folder beside `target` that is locked as long as it is written.

    After the block it is gone, unless it was renamed; what a killed process left, :func:`remove_parts` removes.
    """
    with ExitStack() as stack:
        while True:
            part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
            stack.callback(_discard, part)
            if folder:
                part.mkdir()
            else:
                part.write_bytes(_NOTHING)
            with suppress(BlockingIOError):  # taken for a leftover in the moment before this
                stack.enter_context(locked(part))
                if part.exists():
                    break
        yield part


def remove_parts(target: Path) -> bool:
    """Removes what processes left beside `target` that were killed while they wrote it.

    Where there are no locks, nothing tells what is left over from what is being written, and it stays.

    Returns:
        Whether another process is writing `target` just now.
    """
    busy = False
    for part in parts_of(target):
        try:
            with locked(part) as dead:
                if dead:
                    _discard(part)
        except BlockingIOError:
            busy = True
    return busy


def parts_of(target: Path, suffix: str = "part") -> list[Path]:
    """Returns the temporary files and folders beside `target`, those that are being written and those left over."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.{suffix}")
    try:
        names = [entry.name for entry in os.scandir(target.parent) if name.fullmatch(entry.name)]
    except OSError:
        return []
    return [target.with_name(each) for each in names]


def _discard(part: Path) -> None:
    with suppress(OSError):  # a read-only disk: there is nothing to remove
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    write_text(path, to_json(value) + "\n")


def read_json(path: Path) -> Mapping[str, Any]:
    """Reads a JSON object.

    Raises:
        RunError: The file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"expected a file {path}, found none; was the run finished?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read as JSON ({first_line(error)}); the run has to be made again") from error
    if not isinstance(value, dict):
        raise RunError(f"expected a JSON object in {path}, found {type(value).__name__}; the run has to be made again")
    return value
