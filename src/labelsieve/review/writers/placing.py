"""How files that stay the same get to their new place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

Placing = Callable[[Path, Path], None]
"""Puts a file to a place where nothing is yet."""


def copied(source: Path, target: Path) -> None:
    """Copies a file with its times, and what a link leads to in its place; one that leads nowhere stays a link."""
    shutil.copy2(source, target, follow_symlinks=source.exists())


def linked(source: Path, target: Path) -> None:
    """Links to a file, or copies it where the system allows no links."""
    try:
        os.symlink(os.path.abspath(source), target)
    except OSError:
        copied(source, target)


def hard_linked(source: Path, target: Path) -> None:
    """Gives a file a second name, which costs no space; copies it where the disk allows none."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(source, target, follow_symlinks=False)
