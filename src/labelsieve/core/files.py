"""Atomic writing of files, and reading and writing of Parquet and JSON. Nothing here uses pickle."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.core.errors import LabelsieveError, RunError, first_line, shown
from labelsieve.core.locks import locked
from labelsieve.core.provenance import fingerprint, to_json

if TYPE_CHECKING:
    import pyarrow as pa

# Content of a temporary file before anything is written to it.
_UNWRITTEN = b"labelsieve: not written yet"
_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a symbolic link that leads in a circle"),
)


def is_utf8(path: str | Path) -> bool:
    """Returns whether a path is valid UTF-8, as Arrow and the records of runs require."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def expand_home(path: str | Path) -> Path:
    """Returns a path with `~` replaced by the home folder; `~name` is kept if there is no user of that name."""
    return Path(os.path.expanduser(path))


def quoted(path: str | Path) -> str:
    """Returns a path quoted for a shell."""
    return shlex.quote(str(path))


def named(folder: Path) -> Path:
    """Returns the path of a folder such that it ends in the folder's name, also for `.` and `..`."""
    return folder.resolve() if folder.name in ("", "..") else folder


def check_reachable(path: str | Path, error: type[LabelsieveError]) -> None:
    """Checks that a path can be accessed, whether or not it exists.

    Args:
        path: The path.
        error: The type of the error to raise.

    Raises:
        LabelsieveError: It cannot, for example because a folder may not be entered or a name is too long.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return
    except OSError as reason:
        raise error(f"{shown(str(path))} cannot be read: {reason.strerror}; check the path") from reason


def target_of(path: Path) -> Path:
    """Returns the file that writing to `path` creates or replaces: `path` itself, or the target of a symbolic link.

    Raises:
        RunError: The path is not UTF-8, or exists and is not a regular file; devices and folders are never replaced.
    """
    if not is_utf8(path):
        raise RunError(f"could not write {str(path)!r}: the path is not UTF-8; choose another name")
    target = Path(os.path.realpath(path))
    kind = _kind(target)
    if kind not in (None, "a regular file"):
        reason = f"{path} leads to {kind}" if target != Path(os.path.abspath(path)) else f"it is {kind}"
        raise RunError(
            f"could not write {path}: {reason}, and only a regular file is ever replaced; choose another name"
        )
    return target


def _kind(path: Path) -> str | None:
    """Returns the kind of a path, without following links; None if nothing exists there."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # does not exist, or not accessible: writing reports it
        return None
    return next((kind for test, kind in _KINDS if test(mode)), "something else")


def remove(path: Path) -> None:
    """Removes the file that :func:`target_of` returns, if it exists.

    Raises:
        RunError: It is not a regular file, or cannot be removed.
    """
    try:
        target_of(path).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"could not replace {path}: {error.strerror}; choose a writable folder") from error


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; renames it to `path` when the block succeeds, removes it otherwise.

    If `path` is a symbolic link, its target is replaced. Temporary files of processes that were killed while they wrote
    the same file are removed.

    Raises:
        RunError: The disk is full or read-only, the path is not UTF-8, or it is not a regular file; the old file then
            stays as it was.
    """
    target = target_of(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        with new_temporary(target) as part:
            yield part
            with part.open("rb+") as handle:
                if handle.read(len(_UNWRITTEN) + 1) == _UNWRITTEN:
                    raise OSError("nothing was written")
                os.fsync(handle.fileno())
            part.replace(target)
    except OSError as error:
        # use the text of the error number, because messages of some libraries name the temporary file
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"could not write {path}: {reason}; free some space or choose a writable folder") from error


@contextmanager
def new_temporary(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Creates a temporary file or folder next to `target` and locks it within the `with` statement.

    It is removed at the end, unless it was renamed. :func:`remove_leftovers` removes those of killed processes.
    """
    with ExitStack() as stack:
        while True:
            part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
            stack.callback(_discard, part)
            if folder:
                part.mkdir()
            else:
                part.write_bytes(_UNWRITTEN)
            with suppress(BlockingIOError):  # another process removed it before it was locked
                stack.enter_context(locked(part))
                if part.exists():
                    break
        yield part


def remove_leftovers(target: Path) -> bool:
    """Removes temporary files next to `target` whose process was killed.

    Without locks, leftovers cannot be distinguished from files in use, so nothing is removed.

    Returns:
        Whether another process is writing `target`.
    """
    busy = False
    for part in temporaries_of(target):
        try:
            with locked(part) as unused:
                if unused:
                    _discard(part)
        except BlockingIOError:
            busy = True
    return busy


def temporaries_of(target: Path, suffix: str = "part") -> list[Path]:
    """Returns all temporary files and folders next to `target`, in use or left over."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.{suffix}")
    try:
        names = [entry.name for entry in os.scandir(target.parent) if name.fullmatch(entry.name)]
    except OSError:
        return []
    return [target.with_name(each) for each in names]


def _discard(part: Path) -> None:
    with suppress(OSError):  # a read-only disk
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_parquet(path: Path, table: pa.Table, *, row_group_size: int | None = None) -> None:
    """Writes a table as Parquet, atomically.

    Args:
        path: The file.
        table: The table.
        row_group_size: Maximum number of rows that readers have to load at once; None for the default of pyarrow.

    Raises:
        RunError: The file cannot be written.
    """
    import pyarrow.parquet as pq

    with write_atomically(path) as part:
        pq.write_table(table, part, row_group_size=row_group_size)


def read_parquet(path: Path, *schemas: pa.Schema, written: str | None = None) -> pa.Table:
    """Reads a table of a run.

    Args:
        path: The file.
        schemas: Accepted schemas; messages name the first.
        written: Fingerprint of the file in the record of the run; None if the record has none.

    Raises:
        RunError: The file cannot be read, has other columns, or does not match the fingerprint.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = path.read_bytes()
        if written is not None and fingerprint(data) != written:
            raise RunError(f"{path} is not the file that run.json was written for; make the run again")
        table = pq.read_table(pa.BufferReader(data))
    except FileNotFoundError:
        raise RunError(f"{path} is missing; make the run again") from None
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path} cannot be read ({first_line(error)}); make the run again") from None
    if not any(table.schema.equals(schema) for schema in schemas):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schemas[0])
        raise RunError(f"expected the columns {columns} in {path}, found others; make the run again")
    return table


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    write_text(path, to_json(value) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text; None if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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
