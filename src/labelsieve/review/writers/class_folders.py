"""Writes corrected labels to class folders: images move to the folder of their class, other files stay."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from labelsieve.core.errors import RunError, shown
from labelsieve.core.output_folders import UniqueNames, safe_name
from labelsieve.data.sources.edits import Edits
from labelsieve.review.writers.base import FolderWriter
from labelsieve.review.writers.file_transfer import Transfer


class ClassFolders(FolderWriter):
    """Writes a folder of class folders."""

    def write(self, part: Path, transfer: Transfer) -> None:
        """Writes all files of the folder: images with a new class move, some are left out.

        An image keeps its path within the class folder; a number is appended if the name is taken there.

        Raises:
            RunError: A folder cannot be read.
        """
        folder = Path(os.path.abspath(self.location.path))
        moves, files = _moves(self.images.ids, self.edits), [*_files(folder, part)]
        if lost := moves.keys() - set(files):
            raise RunError(f"{shown(min(lost))} in {folder} does not exist any more; try it again")
        names, root = UniqueNames(), Path(os.path.realpath(folder))
        for path in files:
            if path not in moves:
                names.take(*_split(path))
        with self.progress.task("writing files", total=len(files), unit="files", brief=True) as advance:
            for path in files:
                if (target := moves.get(path, path)) is not None:
                    if path in moves:
                        above, name = _split(target)
                        target = f"{above}{names.take(above, name)}"
                    (part / target).parent.mkdir(parents=True, exist_ok=True)
                    transfer(_resolved_inside(folder / path, root), part / target)
                advance(1)


def _moves(ids: Sequence[str], edits: Edits) -> dict[str, str | None]:
    """Returns the new path of each image that changes; None for images that are left out."""
    folders = _folders(ids, edits)
    moves: dict[str, str | None] = {}
    for row in edits.rows.tolist():
        label, inner = edits.new[row], PurePosixPath(*PurePosixPath(ids[row]).parts[1:])
        moves[ids[row]] = None if label < 0 else f"{folders[label]}/{inner}"
    return moves


def _folders(ids: Sequence[str], edits: Edits) -> list[str]:
    """Returns the class folder of each class; a new one if it has none."""
    existing: dict[int, str] = {}
    for name, label in zip(ids, edits.old.tolist(), strict=True):
        existing.setdefault(label, name.partition("/")[0])
    names = UniqueNames()
    for folder in existing.values():
        names.take("", folder)
    return [
        existing[label] if label in existing else names.take("", safe_name(name))
        for label, name in enumerate(edits.class_names)
    ]


def _resolved_inside(path: Path, root: Path) -> Path:
    """Resolves a link that leads into the folder itself, because files move within it."""
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    return real if real.exists() and real.is_relative_to(root) else path


def _split(path: str) -> tuple[str, str]:
    above, mark, name = path.rpartition("/")
    return above + mark, name


def _files(folder: Path, part: Path) -> Iterator[str]:
    """Yields the relative paths of all files, including hidden ones, and creates their folders in the new one.

    Raises:
        RunError: A folder cannot be read, so its files would be lost.
    """

    def refuse(error: OSError) -> None:
        raise RunError(f"{shown(error.filename)} cannot be read: {error.strerror}; check its permissions")

    root = Path(os.path.realpath(folder))
    above = {str(folder): {str(root), *map(str, root.parents)}}
    for current, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        below = Path(os.path.relpath(current, folder))
        for name in [*folders]:
            real = os.path.realpath(os.path.join(current, name))
            if real in above[current]:  # a circular link
                folders.remove(name)
                continue
            above[os.path.join(current, name)] = above[current] | {real}
            (part / below / name).mkdir(parents=True, exist_ok=True)
        yield from ((below / name).as_posix() for name in files)
