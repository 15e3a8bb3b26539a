"""Where features and decoded images are kept from run to run, and room for them on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated

from labelsieve.core.validation import Range, number_from_environment

LIMIT = "LABELSIEVE_CACHE_LIMIT"
_Gibibytes = Annotated[float, Range(0, 1_000_000, hint="a number of GiB, 0 to keep no decoded images")]
_DEFAULT_LIMIT = 50.0


def cache_folder() -> Path:
    """Returns the folder of all that is cached: `LABELSIEVE_CACHE`, else `labelsieve` in the user's cache folder.

    Nothing in it is needed: it can be removed as a whole at any time at which nothing runs.
    """
    own = os.environ.get("LABELSIEVE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelsieve"


def cache_limit() -> float:
    """Returns how many bytes decoded images may take in all; the disk keeps half of what it has left, too.

    Raises:
        SettingsError: The variable that says so is no number of GiB, or out of its range.
    """
    limit: float = number_from_environment(LIMIT, _Gibibytes, default=_DEFAULT_LIMIT)
    return limit * 2**30


def keep_room(path: Path) -> None:
    """Fails now if the disk is too full for a file: writing to a memory map later would kill the process silently.

    Raises:
        OSError: There is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # others: the file system cannot do that
                raise
