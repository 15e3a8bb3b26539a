"""Backups of a data set that is corrected in place, which are restored if the correction fails."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from labelsieve.core.errors import RunError
from labelsieve.core.files import write_atomically
from labelsieve.core.output_folders import check_no_mount, new_folder

BACKUP = ".backup"
"""Suffix of the backup of a data set that was corrected in place."""


def free_name(path: Path, ending: str) -> Path:
    """Returns a name beside a file or folder that is not taken: `photos.backup`, `photos-2.backup` ..."""
    candidate, number = path.with_name(f"{path.name}{ending}"), 2
    while os.path.lexists(candidate):
        candidate = path.with_name(f"{path.name}-{number}{ending}")
        number += 1
    return candidate


@contextmanager
def backed_up(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Backs up files that are replaced in the block; if the block fails, replaced files are restored.

    Raises:
        RunError: A file cannot be copied.
    """
    backups: dict[Path, Path] = {}
    try:
        for path in files:
            backup = free_name(path, BACKUP)
            with write_atomically(backup) as part:
                shutil.copy2(os.path.realpath(path), part)
            backups[path] = backup
        yield [*backups.values()]
    except BaseException:
        for path, backup in backups.items():
            if filecmp.cmp(path, backup, shallow=False):
                backup.unlink()
            else:
                backup.replace(os.path.realpath(path))
        raise


@contextmanager
def replacing_folder(folder: Path, backup: Path) -> Iterator[Path]:
    """Yields a temporary folder that replaces a folder, which is renamed to the backup.

    Raises:
        RunError: The folder cannot be replaced.
    """
    check_no_mount(folder)
    fresh = folder.with_name(f"{folder.name}.new-{os.getpid()}")
    with new_folder(fresh) as part:
        yield part
    try:
        folder.rename(backup)
        fresh.rename(folder)
    except OSError as error:
        if backup.exists() and not folder.exists():
            backup.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        raise RunError(f"could not replace {folder}: {error.strerror}; choose --out in a writable folder") from error
