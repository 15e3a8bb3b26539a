"""The folder of a run: checks before a run, exclusive access during it, what unfinished runs leave, and the record."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from labelsieve.core.checkpoints import CHECKPOINT
from labelsieve.core.engine import Engine, Precision, make_engine
from labelsieve.core.errors import RunError, setting, shown
from labelsieve.core.files import remove_leftovers, target_of, temporaries_of
from labelsieve.core.output_folders import check_report, exclusive_folder, make_folder, unknown_files
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.data.labelled import Labelled
from labelsieve.data.tags.records import TaggedImages
from labelsieve.verdicts import CHECKPOINT_FOLDER, RECORD, REPORT, RUN_FILES
from labelsieve.vlm.features import TEMPORARY_PREFIX

_RunT = TypeVar("_RunT")


@contextmanager
def open_run(
    out: str | Path | None,
    *,
    check: Callable[..., Path],
    seed: int,
    device: str,
    precision: Precision,
    resume: bool,
    overwrite: bool,
    progress: Progress | None,
) -> Iterator[tuple[Path | None, Engine]]:
    """Yields the folder of a run, locked against other processes, and the engine of the run.

    Args:
        out: The folder; None keeps nothing on disk.
        check: Checks and makes the folder as `check_run_folder` does, with its arguments `resume` and `overwrite`.
        seed: See :func:`labelsieve.scan`.
        device: See :func:`labelsieve.scan`.
        precision: See :func:`labelsieve.scan`.
        resume: See :func:`labelsieve.scan`.
        overwrite: See :func:`labelsieve.scan`.
        progress: See :func:`labelsieve.scan`.
    """
    with nullcontext() if out is None else exclusive_folder(Path(out)):
        folder = None if out is None else check(out, overwrite=overwrite, resume=resume)
        checkpoint = None if folder is None else folder / CHECKPOINT_FOLDER
        engine = make_engine(
            device=device, precision=precision, seed=seed, checkpoint=checkpoint, resume=resume, progress=progress
        )
        yield folder, engine
        engine.accelerator.wait_for_everyone()


def check_run_folder(
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    record: str = RECORD,
    what: str = "run",
    files: Sequence[str] = RUN_FILES,
) -> Path:
    """Checks that a run may be written to a folder, before anything expensive starts.

    Args:
        out: The folder.
        overwrite: See :func:`labelsieve.scan`.
        resume: See :func:`labelsieve.scan`.
        record: Name of a file that only finished runs have.
        what: What messages call the run.
        files: The files that the run will write.

    Raises:
        RunError: The folder contains other files, there is nothing to resume, or it cannot be created.
    """
    folder = make_folder(Path(out))
    _check_files(folder, files)
    checkpoint, finished = bool(_checkpoint_files(folder)), (folder / record).is_file()
    if resume and finished and not checkpoint and not overwrite:
        raise RunError(
            f"{folder} holds a finished {what}: there is nothing to resume; make another with {setting('overwrite')}"
        )
    # a run that was killed before its first checkpoint leaves only known files, and starts again
    resumes = resume and (checkpoint or finished or not unknown_files(folder, {CHECKPOINT_FOLDER, *files}))
    if any(folder.iterdir()) and not (overwrite or resumes):
        content = f"a finished {what}" if finished else f"an unfinished {what}" if checkpoint else "other files"
        advice = (
            f"use {setting('resume')} to go on with it or {setting('overwrite')} to start again"
            if checkpoint
            else f"use {setting('overwrite')} to replace it, or choose another folder"
        )
        raise RunError(f"{folder} already holds {content}; {advice}")
    if overwrite and not resume:
        remove_checkpoint(folder)
    return folder


def _check_files(folder: Path, files: Sequence[str]) -> None:
    """Checks that a run replaces only its own files, and removes temporary files of killed processes.

    Raises:
        RunError: A path is not a regular file, or the report or checkpoint was written by another program.
    """
    for name in files:
        remove_leftovers(target_of(folder / name))
    if REPORT in files:
        check_report(folder / REPORT)
    checkpoint = folder / CHECKPOINT_FOLDER
    target_of(checkpoint / CHECKPOINT)
    unknown = unknown_files(checkpoint, _checkpoint_files(folder)) if checkpoint.is_dir() else []
    if unknown:
        raise RunError(f"{checkpoint} holds other files, such as {shown(unknown[0])}; choose another folder")


def _checkpoint_files(folder: Path) -> list[str]:
    """Returns the names of the files in the checkpoint folder that runs have written."""
    checkpoint = folder / CHECKPOINT_FOLDER
    if not checkpoint.is_dir():
        return []
    unfinished = temporaries_of(checkpoint / CHECKPOINT)
    temporary = [path for path in checkpoint.glob(f"{TEMPORARY_PREFIX}*") if path.is_dir() and not path.is_symlink()]
    state = [CHECKPOINT] if (checkpoint / CHECKPOINT).is_file() else []
    return [*state, *(path.name for path in (*unfinished, *temporary))]


def remove_checkpoint(folder: Path) -> None:
    """Removes the checkpoint of a run folder, but no other files."""
    checkpoint = folder / CHECKPOINT_FOLDER
    for name in _checkpoint_files(folder):
        with suppress(OSError):
            shutil.rmtree(checkpoint / name) if (checkpoint / name).is_dir() else (checkpoint / name).unlink()
    with suppress(OSError):
        checkpoint.rmdir()


def lacks_report(folder: Path) -> bool:
    """Returns whether a scan was stopped while writing its report, the last step."""
    return (folder / RECORD).is_file() and not os.path.lexists(folder / REPORT)


def finished_scan(
    folder: Path, load: Callable[[Path], _RunT], is_requested: Callable[[_RunT], bool], *, overwrite: bool
) -> _RunT | None:
    """Returns the scan that lacks only its report, None if its settings differ and it is to be replaced.

    Args:
        folder: The run folder.
        load: Reads the verdicts in a folder.
        is_requested: Returns whether they are those of the requested data and settings.
        overwrite: Whether to replace other verdicts.

    Raises:
        RunError: Its settings differ and it is not to be replaced, or its files cannot be read.
    """
    try:
        verdicts = load(folder)
        if not is_requested(verdicts):
            raise RunError(f"{folder} holds a finished run of other data or settings; pass {setting('overwrite')}")
    except RunError:
        if overwrite:
            return None
        raise
    remove_checkpoint(folder)
    return verdicts


def run_record(
    images: Labelled | TaggedImages,
    engine: Engine,
    detector: object,
    *,
    name: str,
    recipe: str | None = None,
    seconds: float,
) -> dict[str, Any]:
    """Returns the entries of `run.json` that all runs have: data, detector, settings, machine and versions.

    Args:
        images: The scanned images.
        engine: The engine of the run.
        detector: Its settings.
        name: Name of the detector.
        recipe: Name of the settings, if they have one.
        seconds: Duration of the run.
    """
    settings: dict[str, Any] = dataclasses.asdict(detector) if dataclasses.is_dataclass(detector) else {}  # type: ignore[arg-type]
    return {
        **engine.circumstances(seconds=seconds),
        "source": str(images.origin.get("source", "data in memory")),
        "origin": dict(images.origin),
        "data": {"images": len(images), "classes": len(images.class_names), "fingerprint": images.fingerprint},
        "detector": {"name": name, "recipe": recipe, "settings": settings, "fingerprint": fingerprint(settings)},
    }
