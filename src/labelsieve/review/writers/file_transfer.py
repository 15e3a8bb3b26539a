"""Copies unchanged files, or links to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Transfer = Callable[[Path, Path], None]
"""Transfers a file to a path that does not exist."""


def copy_file(source: Path, target: Path) -> None:
    """Copies a file, with its times and mode if the disk allows it; a link is resolved, unless it is broken."""
    resolves = source.exists()
    shutil.copyfile(source, target, follow_symlinks=resolves)
    with suppress(OSError):  # some network drives
        shutil.copystat(source, target, follow_symlinks=resolves)


def link_file(source: Path, target: Path) -> None:
    """Links to a file, or copies it if the system allows no links (Windows without the right, some network drives)."""
    with suppress(OSError):
        os.symlink(os.path.abspath(source), target)
        return
    with suppress(OSError):
        os.link(os.path.realpath(source), target)  # resolved, because a relative link would lead elsewhere here
        return
    copy_file(source, target)


def hard_link(source: Path, target: Path) -> None:
    """Creates a hard link, which needs no space; copies the file if the disk allows none."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)
