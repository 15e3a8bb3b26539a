"""The cache of features and decoded images on disk: its folder, its limit, and disk space for new files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated

from labelsieve.core.files import expand_home
from labelsieve.core.validation import Range, number_from_environment

LIMIT = "LABELSIEVE_CACHE_LIMIT"
_Gibibytes = Annotated[float, Range(0, 1_000_000, hint="a number of GiB, 0 to keep no decoded images")]
_DEFAULT_LIMIT = 50.0


def cache_folder() -> Path:
    """Returns the cache folder: `LABELSIEVE_CACHE`, else `labelsieve` in the user's cache folder.

    The folder can be deleted at any time when no run uses it.
    """
    override = os.environ.get("LABELSIEVE_CACHE")
    if override:
        return expand_home(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelsieve"


def cache_limit() -> float:
    """Returns the maximum size of all cached images in bytes; half of the free disk space is also kept free.

    Raises:
        SettingsError: The environment variable is not a number of GiB, or is out of range.
    """
    limit: float = number_from_environment(LIMIT, _Gibibytes, default=_DEFAULT_LIMIT)
    return limit * 2**30


def reserve_disk_space(path: Path) -> None:
    """Allocates the disk space of a sparse file, because writing to a memory map on a full disk kills the process.

    Raises:
        OSError: The disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            # other errors mean that the file system does not support it
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
