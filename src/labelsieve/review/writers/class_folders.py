"""Corrected labels in a folder of class folders: images move to the folder of their class, all else stays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from labelsieve.core.errors import RunError, shown
from labelsieve.core.output_folders import UniqueNames, safe_name
from labelsieve.core.progress import Progress
from labelsieve.data.sources.edits import Edits
from labelsieve.review.writers.placing import Placing
from labelsieve.review.writers.whole_folders import WholeFolder


class ClassFolders(WholeFolder):
    """Writes a folder of class folders again."""

    def write(self, part: Path, placing: Placing) -> None:
        """Writes all that is in the folder; see :func:`write_class_folders`."""
        write_class_folders(
            Path(os.path.abspath(self.place.path)),
            part,
            ids=self.images.ids,
            edits=self.edits,
            placing=placing,
            progress=self.progress,
        )


def write_class_folders(
    folder: Path, part: Path, *, ids: Sequence[str], edits: Edits, placing: Placing, progress: Progress
) -> None:
    """Writes a folder with all that is in another one, but for images of another class and those left out.

    An image keeps its path within the class folder, with a number at its end if the name is taken there.

    Args:
        folder: The folder of class folders.
        part: The folder to write, which is there and empty.
        ids: N paths of the images in it.
        edits: Of N images.
        placing: How files get there.
        progress: Where to show how far it is.

    Raises:
        RunError: A folder cannot be read.
    """
    moves = _moves(ids, edits)
    files = [*_files(folder, part)]
    if lost := moves.keys() - set(files):
        raise RunError(f"{shown(min(lost))} in {folder} has gone meanwhile; try it again")
    names, root = UniqueNames(), Path(os.path.realpath(folder))
    for path in files:
        if path not in moves:
            names.take(*_split(path))
    with progress.task("writing files", total=len(files), unit="files", brief=True) as advance:
        for path in files:
            if (target := moves.get(path, path)) is not None:
                if path in moves:
                    above, name = _split(target)
                    target = f"{above}{names.take(above, name)}"
                (part / target).parent.mkdir(parents=True, exist_ok=True)
                placing(_without_own_links(folder / path, root), part / target)
            advance(1)


def _moves(ids: Sequence[str], edits: Edits) -> dict[str, str | None]:
    """Returns the new path of each image that changes, None for one that is left out."""
    folders = _folders(ids, edits)
    moves: dict[str, str | None] = {}
    for row in edits.rows.tolist():
        label, inner = edits.new[row], PurePosixPath(*PurePosixPath(ids[row]).parts[1:])
        moves[ids[row]] = None if label < 0 else f"{folders[label]}/{inner}"
    return moves


def _folders(ids: Sequence[str], edits: Edits) -> list[str]:
    """Returns the class folder of each class; one for a class that has none yet."""
    there: dict[int, str] = {}
    for name, label in zip(ids, edits.old.tolist(), strict=True):
        there.setdefault(label, name.partition("/")[0])
    taken = UniqueNames()
    for folder in there.values():
        taken.take("", folder)
    return [
        there[label] if label in there else taken.take("", safe_name(name))
        for label, name in enumerate(edits.class_names)
    ]


def _without_own_links(path: Path, root: Path) -> Path:
    """Returns what a link leads to where that lies in the folder itself, in which files change their places."""
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    return real if real.exists() and real.is_relative_to(root) else path


def _split(path: str) -> tuple[str, str]:
    above, mark, name = path.rpartition("/")
    return above + mark, name


def _files(folder: Path, part: Path) -> Iterator[str]:
    """Yields the relative paths of all files, hidden ones too, and makes the folders in the new one.

    Raises:
        RunError: A folder cannot be read, and so would be lost.
    """

    def refuse(error: OSError) -> None:
        raise RunError(f"{shown(error.filename)} cannot be read: {error.strerror}; check its permissions")

    root = Path(os.path.realpath(folder))
    above = {str(folder): {str(root), *map(str, root.parents)}}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        below = Path(os.path.relpath(here, folder))
        for name in [*folders]:
            real = os.path.realpath(os.path.join(here, name))
            if real in above[here]:  # a link that leads back up
                folders.remove(name)
                continue
            above[os.path.join(here, name)] = above[here] | {real}
            (part / below / name).mkdir(parents=True, exist_ok=True)
        yield from ((below / name).as_posix() for name in files)
