"""Locks on files and folders. The system releases them when the process ends, even if it is killed.

Windows and some file systems do not support locks; writing is still atomic there.
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
    """Closes the locks in a forked process, because a worker that decodes images may outlive the run."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Locks an existing file or folder within a `with` statement, without writing to it.

    Args:
        path: The file or folder.
        wait: Whether to wait until the lock is free.

    Yields:
        Whether the lock is held; False if locks are not supported.

    Raises:
        BlockingIOError: `wait` is false, and another process or another block of this process has locked the path.
    """
    handle = _acquire(path, wait=wait)
    if handle is None:
        yield False
        return
    _held.add(handle)
    try:
        yield True
    finally:
        if handle in _held:  # false in a process that was forked within the block
            _held.discard(handle)
            os.close(handle)


def _acquire(path: Path, *, wait: bool) -> int | None:
    if not _HAS_LOCKS:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # not readable, or deleted
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # the file system does not support locks
        os.close(handle)
        return None
    return handle
