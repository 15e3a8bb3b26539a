"""Output folders: only one process writes at a time, atomically, and files that labelsieve did not write are kept."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from labelsieve.core.errors import RunError, setting
from labelsieve.core.files import (
    expand_home,
    is_utf8,
    named,
    new_temporary,
    remove_leftovers,
    target_of,
    temporaries_of,
)
from labelsieve.core.locks import locked
from labelsieve.core.progress import is_main_process
from labelsieve.core.provenance import fingerprint

# Folders that this process has locked, as thread, device and inode.
_locked_folders: set[tuple[int, int, int]] = set()
# Files that file managers create in any folder; hidden files are ignored as well.
_JUNK = ("thumbs.db", "desktop.ini")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
# Each report contains the mark in its first bytes; see its template.
_REPORT_MARK, _HEAD_BYTES = b'<meta name="generator" content="labelsieve', 4096
# File systems allow 255 bytes for a name; the rest is reserved for counters and suffixes.
_MAX_BYTES = 180
# Suffix of the name of a run that repeats another run.
_AGAIN = re.compile(r"-again(-\d+)?$")


def make_folder(folder: Path) -> Path:
    """Creates a folder and its parents, unless it exists.

    Raises:
        RunError: The path is a file or not UTF-8, or the folder cannot be created or written to.
    """
    if not is_utf8(folder):
        raise RunError(f"expected {setting('out')} to be UTF-8, got {str(folder)!r}; choose another name")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        what = "a file" if os.path.isfile(folder) else "no folder"
        raise RunError(f"expected {setting('out')} to be a folder, {folder} is {what}; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"could not make the folder {folder}: {error.strerror}; choose a writable place") from error
    if not os.access(folder, os.W_OK):
        raise RunError(f"the folder {folder} may not be written to; choose a writable place")
    return folder


def check_free(out: Path, *, overwrite: bool) -> None:
    """Checks that writing to a path destroys nothing, before anything expensive starts.

    Raises:
        RunError: The path exists, even as a broken link, and `overwrite` is false.
    """
    if os.path.lexists(out) and not overwrite:
        raise RunError(f"{out} is there already; choose another name or pass {setting('overwrite')}")


def check_file(out: Path, *, overwrite: bool) -> None:
    """Checks that a file may be written to a path or the target of a link, before anything expensive starts.

    Raises:
        RunError: The path cannot be a file, or a file exists and `overwrite` is false.
    """
    if os.path.exists(target_of(out)):
        check_free(out, overwrite=overwrite)


def check_report(path: Path, *, overwrite: bool | None = None) -> None:
    """Checks that a report may be written to a path: the path is free, or holds an earlier report.

    Args:
        path: The file.
        overwrite: Whether any file may be replaced; None in the folder of a run, where only reports are replaced.

    Raises:
        RunError: Another file exists, which labelsieve did not write, or the path cannot be a file.
    """
    target = target_of(path)
    if overwrite or not os.path.exists(target) or not target.stat().st_size:
        return
    with target.open("rb") as file:
        if _REPORT_MARK not in file.read(_HEAD_BYTES):
            name = "folder" if overwrite is None else f"name or pass {setting('overwrite')}"
            raise RunError(f"{path} is no report of labelsieve, so it is not replaced; choose another {name}")


def check_outside(out: Path, source: Path | str) -> None:
    """Checks that an output is outside a folder of images, because a later scan would read it as another class.

    Raises:
        RunError: `source` is a folder that contains `out`.
    """
    folder = Path(os.path.realpath(expand_home(source)))
    if os.path.isdir(folder) and Path(os.path.realpath(out)).is_relative_to(folder):
        raise RunError(
            f"expected {setting('out')} outside of the source folder, got {out} in {source}; choose a folder beside it"
        )


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Creates a folder and locks it against other runs within a `with` statement.

    Without the lock, two runs could replace each other's files and resume from each other's checkpoints. The system
    releases the lock even if this process is killed. The main process of a run locks for all of its processes; nested
    blocks share one lock. If the block fails, a new folder that is still empty is removed.

    Raises:
        RunError: Another process has locked the folder, or it cannot be created.
    """
    new = not os.path.exists(folder)
    make_folder(folder)
    target = Path(os.path.realpath(folder))
    status = target.stat()
    key = (threading.get_ident(), status.st_dev, status.st_ino)
    if key in _locked_folders or not is_main_process():
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(target))
        except BlockingIOError:
            raise RunError(
                f"another process is writing to {folder}; wait for it, or choose another {setting('out')}"
            ) from None
        _locked_folders.add(key)
        try:
            yield
        except BaseException:
            if new:
                with suppress(OSError):
                    folder.rmdir()
            raise
        finally:
            _locked_folders.discard(key)


def check_no_mount(out: Path) -> None:
    """Checks that a folder can be replaced, before anything expensive starts.

    Raises:
        RunError: The folder is a mount point, such as a volume of a container.
    """
    if os.path.ismount(out):
        raise RunError(f"{out} cannot be replaced, for a disk is mounted there; choose a folder in it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder next to `out`, which replaces `out` when the block succeeds.

    If `out` is a link, its target is replaced. The old folder is deleted with all its files, so check them before.
    Temporary folders of killed processes are removed.

    Raises:
        RunError: The disk is full or read-only, `out` is not a folder, or another process writes it; `out` is then
            unchanged.
    """
    out = Path(os.path.realpath(out))
    if os.path.lexists(out) and not os.path.isdir(out):
        raise RunError(f"expected a folder to replace, {out} is none; choose another name")
    old = out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(out)
        with new_temporary(out, folder=True) as part:
            yield part
            old = part.with_suffix(".old")
            if out.exists():
                out.replace(old)
            part.replace(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"could not write {out}: {reason}; free some space or choose a writable folder") from error
    finally:
        if os.path.exists(old) and not os.path.exists(out):
            old.replace(out)
        elif old != out:
            shutil.rmtree(old, ignore_errors=True)


def _remove_old(out: Path) -> None:
    """Removes temporary folders of killed processes, and restores the folder that they were replacing.

    Raises:
        RunError: Another process is writing the folder.
    """
    if remove_leftovers(out):
        raise RunError(f"another process is writing {out}; wait for it, or choose another {setting('out')}")
    for old in temporaries_of(out, "old"):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(out)


def unknown_files(folder: Path, known: Iterable[str]) -> list[str]:
    """Returns the sorted names of files in a folder that are not known; hidden files are ignored."""
    return sorted(set(_names(os.listdir(folder))) - set(known))


def paths_fingerprint(folder: Path) -> str:
    """Returns a fingerprint of the relative paths of all files in a folder; hidden files are ignored."""
    files = (
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in _names(names)
    )
    return fingerprint(sorted(files))


def _names(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and name.lower() not in _JUNK]


class UniqueNames:
    """Makes names unique within a folder, also for file systems that ignore case or Unicode normalisation."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str]] = set()
        self._next: dict[tuple[str, str], int] = {}

    def take(self, folder: str, name: str) -> str:
        """Returns `name`, with a number added if it is taken in `folder`."""
        key, candidate = (folder, _folded(name)), name
        stem, suffix = os.path.splitext(name)
        while (folder, _folded(candidate)) in self._taken:
            number = self._next.get(key, 2)
            self._next[key] = number + 1  # start the next search here instead of at 2
            candidate = f"{stem}-{number}{suffix}"
        self._taken.add((folder, _folded(candidate)))
        return candidate


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def safe_name(name: str) -> str:
    """Returns `name` as one part of a path on any file system: no separator, not `..`, hidden, reserved or too long."""
    cleaned = _UNSAFE.sub("_", name).strip(" .")
    cleaned = cleaned.encode("utf-8", "replace")[:_MAX_BYTES].decode("utf-8", "ignore").rstrip(" .")
    return f"_{cleaned}" if not cleaned or _RESERVED.match(cleaned) else cleaned


def next_runs(run: Path) -> Iterator[Path]:
    """Yields paths next to a run for new scans of its data: `photos-again`, `photos-again-2` and so on."""
    run = named(run)
    first = run.with_name(f"{_AGAIN.sub('', run.name)}-again")
    yield first
    for number in itertools.count(2):
        yield first.with_name(f"{first.name}-{number}")
