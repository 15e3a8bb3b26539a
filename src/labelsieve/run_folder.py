"""The folder of a run: what may be in it before, who may use it meanwhile, and what unfinished runs leave there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from labelsieve.core.checkpoints import CHECKPOINT
from labelsieve.core.engine import Engine, Precision, make_engine
from labelsieve.core.errors import RunError, shown
from labelsieve.core.output_folders import alone_in, foreign, make_folder
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import parts_of, remove_parts, target_of
from labelsieve.verdicts import CHECKPOINT_FOLDER, RECORD, REPORT, RUN_FILES, check_report
from labelsieve.vlm.features import PASSING


@contextmanager
def opened_run(
    out: str | Path | None,
    *,
    check: Callable[[str | Path], Path],
    seed: int,
    device: str,
    precision: Precision,
    resume: bool,
    progress: Progress | None,
) -> Iterator[tuple[Path | None, Engine]]:
    """Yields the folder of a run, which no other process may use meanwhile, and what the run computes with.

    Args:
        out: The folder; None keeps nothing on disk.
        check: Checks and makes the folder, before anything expensive starts.
        seed: See :func:`labelsieve.scan`.
        device: See :func:`labelsieve.scan`.
        precision: See :func:`labelsieve.scan`.
        resume: See :func:`labelsieve.scan`.
        progress: See :func:`labelsieve.scan`.
    """
    with nullcontext() if out is None else alone_in(Path(out)):
        folder = None if out is None else check(out)
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
        record: The file that a finished run has.
        what: What to call a run in a message.
        files: The files that will be written to it.

    Raises:
        RunError: There is something in the way, nothing to resume, or the folder cannot be made.
    """
    folder = make_folder(Path(out))
    _check_files(folder, files)
    checkpoint, finished = bool(_own_checkpoint(folder)), (folder / record).is_file()
    if resume and finished and not checkpoint and not overwrite:
        raise RunError(f"{folder} holds a finished {what}: there is nothing to resume; make another with --overwrite")
    # without a checkpoint there is nothing to go on with, and a run that was killed leaves only files of its own
    resumes = resume and (checkpoint or finished or not foreign(folder, {CHECKPOINT_FOLDER, *files}))
    if any(folder.iterdir()) and not (overwrite or resumes):
        found = f"a finished {what}" if finished else f"an unfinished {what}" if checkpoint else "other files"
        advice = (
            "use --resume to go on with it or --overwrite to start again"
            if checkpoint
            else "use --overwrite to replace it, or choose another folder"
        )
        raise RunError(f"{folder} already holds {found}; {advice}")
    if overwrite and not resume:
        remove_checkpoint(folder)
    return folder


def _check_files(folder: Path, files: Sequence[str]) -> None:
    """Checks that nothing foreign stands where a run writes, and removes what killed processes left there.

    Raises:
        RunError: Something that is no file, a report of somebody else, or a checkpoint of another program.
    """
    for name in files:
        remove_parts(target_of(folder / name))
    if REPORT in files:
        check_report(folder / REPORT)
    checkpoint = folder / CHECKPOINT_FOLDER
    target_of(checkpoint / CHECKPOINT)
    others = foreign(checkpoint, _own_checkpoint(folder)) if checkpoint.is_dir() else []
    if others:
        raise RunError(f"{checkpoint} holds other files, such as {shown(others[0])}; choose another folder")


def _own_checkpoint(folder: Path) -> list[str]:
    """Returns the names of what runs leave in the checkpoint folder of a run."""
    checkpoint = folder / CHECKPOINT_FOLDER
    if not checkpoint.is_dir():
        return []
    parts = parts_of(checkpoint / CHECKPOINT)
    passing = [path for path in checkpoint.glob(f"{PASSING}*") if path.is_dir() and not path.is_symlink()]
    state = [CHECKPOINT] if (checkpoint / CHECKPOINT).is_file() else []
    return [*state, *(path.name for path in (*parts, *passing))]


def remove_checkpoint(folder: Path) -> None:
    """Removes the checkpoint of a run folder, and nothing else that may lie beside it."""
    checkpoint = folder / CHECKPOINT_FOLDER
    for name in _own_checkpoint(folder):
        with suppress(OSError):
            shutil.rmtree(checkpoint / name) if (checkpoint / name).is_dir() else (checkpoint / name).unlink()
    with suppress(OSError):
        checkpoint.rmdir()
