"""Checks of output paths: not among the images, and not one of the files that the command reads."""

from __future__ import annotations

import os
from pathlib import Path

from labelsieve.core.errors import UsageError
from labelsieve.core.files import expand_home
from labelsieve.core.output_folders import check_outside


def check_outside_source(source: str | None, out: Path) -> None:
    """Checks that an output folder is outside of the images, also of those of a published data set.

    Raises:
        RunError: `source` is a folder that contains `out`.
    """
    from labelsieve.data.published.base import named_source

    if source:
        named = named_source(source)
        check_outside(out, named.path if named else source)


def check_not_input(out: Path, *, run: Path | None = None, source: str | None = None, but: str | None = None) -> None:
    """Checks that the output is not an input file of the command, even with `--overwrite`.

    Args:
        out: The file to write.
        run: Folder of the run that is read.
        source: The source of the images.
        but: The only file of the run that may be written.

    Raises:
        UsageError: It is a file of the run, or the file of the source.
    """
    from labelsieve.review.log import LOG
    from labelsieve.tags.verdicts import TAG_FILES
    from labelsieve.verdicts import RUN_FILES

    inputs = [run / name for name in (*RUN_FILES, *TAG_FILES, LOG) if name != but] if run is not None else []
    if _real(out) in map(_real, inputs):
        raise UsageError(f"expected --out to be no file of the run itself, got {out}; choose another name")
    if source and _real(out) == _real(expand_home(source)):
        raise UsageError(f"expected --out to be no file that images are read from, got {out}; choose another name")


def _real(path: Path) -> Path:
    """Resolves links; unlike `Path.resolve`, it does not raise on circular links."""
    return Path(os.path.realpath(path))
