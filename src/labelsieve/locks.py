"""Locks on files and folders. The system takes them back however the process that holds them ends.

There are none on Windows and on disks that have no locks; what is written there is still written whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

_held: set[int] = set()


def _release_in_child() -> None:
    """Closes the locks in a forked process: one that decodes images may live a little longer than the run itself."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds the lock of an existing file or folder for the time of a block; nothing is written to it.

    Args:
        path: The file or folder.
        wait: Wait for whoever holds it.

    Yields:
        Whether the lock is held: false where there are no locks.

    Raises:
        BlockingIOError: Without `wait`: another process, or another block of this one, holds it.
    """
    handle = _acquire(path, wait=wait)
    if handle is None:
        yield False
        return
    _held.add(handle)
    try:
        yield True
    finally:
        if handle in _held:  # not so in a process that was forked in the block
            _held.discard(handle)
            os.close(handle)


def _acquire(path: Path, *, wait: bool) -> int | None:
    if not _HAS_LOCKS:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # it may not be read, or is gone
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a disk that has no locks
        os.close(handle)
        return None
    return handle
