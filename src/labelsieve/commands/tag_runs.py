"""`labelsieve report` and `labelsieve export` for a run of `labelsieve scan-tags`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from labelsieve.commands.output_checks import check_not_input
from labelsieve.commands.run_data import source_of, tagged_images_of
from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.progress import Progress


def is_tag_run(folder: Path) -> bool:
    """Returns whether a folder holds a run of `labelsieve scan-tags`; other errors are raised when it is read."""
    from labelsieve.core.provenance import read_json
    from labelsieve.records import is_tag_record
    from labelsieve.verdicts import RECORD

    try:
        return is_tag_record(read_json(folder / RECORD))
    except RunError:
        return False


def write_report_of_tags(
    run_folder: Path,
    *,
    out: Path,
    source: str | None,
    max_images: int | None,
    thumbnail_px: int,
    overwrite: bool,
    progress: Progress,
) -> None:
    """Writes the report of a run on tags again.

    Args:
        run_folder: Folder of the run.
        out: The file to write, which may not be a file of the run other than its report.
        source: Where the images lie now; None: their recorded source.
        max_images: Maximum number of pairs of each kind; by default `MAX_PAIRS`.
        thumbnail_px: Longest side of the embedded images.
        overwrite: Whether to replace a file that is not a report; reports are always replaced.
        progress: Receives progress.

    Raises:
        LabelsieveError: The run or its images cannot be read, or a foreign file would be replaced.
    """
    from labelsieve.core.quantities import megabytes
    from labelsieve.report.html import check_free
    from labelsieve.report.tag_report import MAX_PAIRS, write_tag_report
    from labelsieve.tags.verdicts import TagVerdicts
    from labelsieve.verdicts import REPORT

    verdicts = TagVerdicts.load(run_folder)
    check_not_input(out, run=run_folder, source=source_of(verdicts, source), but=REPORT)
    check_free(out, overwrite=overwrite)
    images = tagged_images_of(verdicts, source=source, progress=progress)
    limit = MAX_PAIRS if max_images is None else max_images
    path = write_tag_report(
        verdicts,
        images,
        out,
        max_images=limit,
        thumbnail_px=thumbnail_px,
        overwrite=overwrite,
        progress=progress,
    )
    progress.say(f"wrote {path} ({megabytes(path.stat().st_size)}): at most {limit:,} pairs of each kind")


def refuse_with_tags(options: Mapping[str, bool]) -> None:
    """Rejects options that do not apply to a run on tags.

    Raises:
        SettingsError: One is set; the message names the first.
    """
    if used := [name for name, is_used in options.items() if is_used]:
        raise SettingsError(f"{used[0]} does not go with a run of labelsieve scan-tags; leave it out")


def export_tags(
    run_folder: Path,
    *,
    out: Path,
    format: str,
    marks: Sequence[Path] | None,
    source: str | None,
    overwrite: bool,
    progress: Progress,
) -> None:
    """Writes the tags, corrected by the verdicts of a run and the marks of a person, one row per image.

    Args:
        run_folder: Folder of the run.
        out: The file to write.
        format: A key of `FORMATS` that is for tags.
        marks: Files of marks; None: the verdicts alone.
        source: Where the images lie now, only to keep `out` from replacing it; None: their recorded source.
        overwrite: Whether to replace an existing file.
        progress: Receives progress.

    Raises:
        DataError: The marks cannot be read, or belong to another run.
        SettingsError: The format does not apply to several labels per image.
        RunError: The run cannot be read, or the output exists.
    """
    from labelsieve.report.tag_export import export_corrected_tags
    from labelsieve.tags.marks import with_marks
    from labelsieve.tags.verdicts import TagVerdicts

    verdicts = TagVerdicts.load(run_folder)
    check_not_input(out, run=run_folder, source=source_of(verdicts, source))
    if marks is not None:
        verdicts = with_marks(verdicts, marks, progress=progress)
    path, separator = export_corrected_tags(verdicts, out, format=format, overwrite=overwrite)
    note = f'; tags are separated by "{separator}"' if separator else ""
    origin = "the verdicts" if marks is None else "the marks and the verdicts"
    progress.say(f"wrote {path}: the tags of {len(verdicts):,} images by {origin}{note}")
