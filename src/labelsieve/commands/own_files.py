"""Where a command must not write: among the images, and what it reads itself."""

from __future__ import annotations

import os
from pathlib import Path

from labelsieve.core.errors import RunError, UsageError


def refuse_inside(source: str | None, out: Path) -> None:
    """Checks that an output folder is not among the images: every later scan would read it as one more class.

    Raises:
        RunError: `source` is a folder, and `out` lies in it.
    """
    from labelsieve.data.published.base import named_source

    named = named_source(source) if source else None
    folder = named.path if named else Path(source).expanduser() if source else None
    if folder and folder.is_dir() and _real(out).is_relative_to(_real(folder)):
        raise RunError(f"expected --out outside of the source folder, got {out} in {source}; choose a folder beside it")


def refuse_own(out: Path, *, run: Path | None = None, source: str | None = None, but: str | None = None) -> None:
    """Checks that a file to write is none that the command reads: `--overwrite` is not meant for these.

    Args:
        out: The file to write.
        run: Folder of the run that is read.
        source: What holds the images.
        but: The file of the run that may be written.

    Raises:
        UsageError: It is a file of the run, or the file of the source.
    """
    from labelsieve.review.log import LOG
    from labelsieve.tags.verdicts import TAG_FILES
    from labelsieve.verdicts import RUN_FILES

    own = [run / name for name in (*RUN_FILES, *TAG_FILES, LOG) if name != but] if run is not None else []
    if _real(out) in map(_real, own):
        raise UsageError(f"expected --out to be no file of the run itself, got {out}; choose another name")
    if source and _real(out) == _real(Path(source).expanduser()):
        raise UsageError(f"expected --out to be no file that images are read from, got {out}; choose another name")


def _real(path: Path) -> Path:
    """Returns where a path leads; unlike `Path.resolve`, a link that leads in a circle raises nothing."""
    return Path(os.path.realpath(path))
