"""Folders that results are written to: one process at a time, whole or not at all, and nothing foreign is removed."""

from __future__ import annotations

import os
import re
import shutil
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from labelsieve.core.errors import RunError
from labelsieve.core.locks import locked
from labelsieve.core.progress import is_main_process
from labelsieve.core.provenance import fingerprint, is_utf8, new_part, parts_of, remove_parts

# Folders that a block of this process has for itself: thread, device, inode.
_ours: set[tuple[int, int, int]] = set()
# What file managers leave in any folder they show; hidden files count as such, too.
_JUNK = ("thumbs.db", "desktop.ini")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
# File systems allow 255 bytes a name; the rest is for counters and suffixes.
_MOST_BYTES = 180


def make_folder(folder: Path) -> Path:
    """Makes a folder, with those above it, unless it is there.

    Raises:
        RunError: Something else is there, the path is not UTF-8, or it cannot be made.
    """
    if not is_utf8(folder):
        raise RunError(f"expected --out to be UTF-8, got {str(folder)!r}; choose another name")
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a file" if folder.is_file() else "no folder"
        raise RunError(f"expected --out to be a folder, {folder} is {what}; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"could not make the folder {folder}: {error.strerror}; choose a writable place") from error
    return folder


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Makes a folder and keeps other processes from writing results into it for the time of a block.

    They would replace each other's files and go on from each other's checkpoints. However this process ends, the system
    takes the lock back. Of several processes of one run the first locks for all; a block within a block needs no second
    lock. A folder that the block made and left empty is removed if it fails.

    Raises:
        RunError: Another process has the folder, or it cannot be made.
    """
    new = not folder.exists()
    make_folder(folder)
    place = Path(os.path.realpath(folder))
    found = place.stat()
    key = (threading.get_ident(), found.st_dev, found.st_ino)
    if key in _ours or not is_main_process():
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place))
        except BlockingIOError:
            raise RunError(
                f"another process writes into {folder} just now; wait for it, or choose another --out"
            ) from None
        _ours.add(key)
        try:
            yield
        except BaseException:
            if new:
                with suppress(OSError):
                    folder.rmdir()
            raise
        finally:
            _ours.discard(key)


def check_no_mount(out: Path) -> None:
    """Checks that another folder can take the place of one, before anything expensive starts.

    Raises:
        RunError: A disk is mounted there, as a volume of a container.
    """
    if os.path.ismount(out):
        raise RunError(f"{out} cannot be replaced, for a disk is mounted there; choose a folder in it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `out`; it takes the place of `out` when the block ends well.

    Where `out` is a link, it takes the place of what that leads to. What stands there is removed as a whole, so check
    before that all of it is ours. Temporary folders of processes that were killed meanwhile are removed.

    Raises:
        RunError: The disk is full or read-only, something else than a folder is there, or another process writes it;
            whatever stood at `out` before stays as it was.
    """
    out = Path(os.path.realpath(out))
    if os.path.lexists(out) and not out.is_dir():
        raise RunError(f"expected a folder to replace, {out} is none; choose another name")
    old = out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(out)
        with new_part(out, folder=True) as part:
            yield part
            old = part.with_suffix(".old")
            if out.exists():
                out.replace(old)
            part.replace(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"could not write {out}: {reason}; free some space or choose a writable folder") from error
    finally:
        if old.exists() and not out.exists():
            old.replace(out)
        elif old != out:
            shutil.rmtree(old, ignore_errors=True)


def _clear_up(out: Path) -> None:
    """Removes what processes left that were killed while they wrote a folder; what stood there before is put back.

    Raises:
        RunError: Another process writes it just now.
    """
    if remove_parts(out):
        raise RunError(f"another process writes {out} just now; wait for it, or choose another --out")
    for old in parts_of(out, "old"):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(out)


def foreign(folder: Path, own: Iterable[str]) -> list[str]:
    """Returns the sorted names of what lies in a folder and is not among our own; hidden files are not looked at."""
    return sorted(set(_names(os.listdir(folder))) - set(own))


def listing(folder: Path) -> str:
    """Returns a fingerprint of the relative paths of all files in a folder; hidden files are not looked at."""
    files = (
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in _names(names)
    )
    return fingerprint(sorted(files))


def _names(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and name.lower() not in _JUNK]


class UniqueNames:
    """Hands out names that differ within a folder, also on file systems that ignore case or the form of accents."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()
        self._next: dict[tuple[str, str], int] = {}

    def take(self, folder: str, name: str) -> str:
        """Returns `name`, with a number added if it is taken in `folder`."""
        key, candidate = (folder, _folded(name)), name
        stem, suffix = os.path.splitext(name)
        while (folder, _folded(candidate)) in self._taken:
            number = self._next.get(key, 2)
            self._next[key] = number + 1  # remembered, so that many equal names do not each count from 2
            candidate = f"{stem}-{number}{suffix}"
        self._taken.add((folder, _folded(candidate)))
        return candidate


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def safe_name(name: str) -> str:
    """Returns `name` as one part of a path on any file system: no separator or `..`, not hidden, reserved or long."""
    cleaned = _UNSAFE.sub("_", name).strip(" .")
    cleaned = cleaned.encode("utf-8", "replace")[:_MOST_BYTES].decode("utf-8", "ignore").rstrip(" .")
    return f"_{cleaned}" if not cleaned or _RESERVED.match(cleaned) else cleaned
