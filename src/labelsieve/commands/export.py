"""`labelsieve export`: the verdicts of a finished run for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from labelsieve.commands.base import (
    Command,
    Flag,
    MarkOption,
    OptionalText,
    RunFolder,
    mark_files,
    review_files,
)
from labelsieve.commands.output_checks import check_not_input, check_outside_source
from labelsieve.commands.run_data import data_or_none, images_of, is_tag_run, load_reviews, source_of
from labelsieve.core.errors import SettingsError, listed
from labelsieve.core.progress import Progress
from labelsieve.core.validation import FalseFlags, Share
from labelsieve.report.exports.registry import FORMATS, FormatKind

if TYPE_CHECKING:
    from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Writes the verdicts of a finished run for other tools.

    Attributes:
        run_folder: Folder of the run.
        format: One table (csv, parquet), one as cleanlab has it; the clean part as a folder of class folders; all
            images with annotations as label-studio, fiftyone, cvat or coco import them; of boxes their annotation file
            with label quality (annotations); or a card of what was changed.
        out: File or folder to write.
        marks: CSVs of marks that were downloaded from the report, beside the answers of `labelsieve review` in the run
            folder, which always count; a review counts more than a verdict, and a later CSV more than an earlier one.
        drop_at: For imagefolder: leave out flagged images whose p_clean is at most this. 100% leaves out all of them;
            50% those that `labelsieve adapt` leaves out by default.
        copy: Copy the images of a folder instead of linking to them.
        overwrite: Replace existing output.
        false_flags: A share, such as 10%: flag again, so that by the audit at most this share of the flags is false.
        source: Where the images lie now, if not where the run found them.
    """

    run_folder: RunFolder
    format: FormatKind
    out: Path
    marks: MarkOption = ()
    drop_at: Share = 1.0
    copy: Flag = False
    overwrite: Flag = False
    false_flags: FalseFlags | None = None
    source: OptionalText = None

    def run(self, console: Console) -> None:
        """Reads the run and, if the format contains them, its images, and writes the export."""
        progress = Progress(console)
        export = self._export_tags if is_tag_run(self.run_folder) else self._export_labels
        export(progress)

    def _export_labels(self, progress: Progress) -> None:
        from labelsieve.report.exports.export import export
        from labelsieve.verdicts import Verdicts

        verdicts = Verdicts.load(self.run_folder)
        check_not_input(self.out, run=self.run_folder, source=source_of(verdicts, self.source))
        if self.false_flags is not None:
            verdicts = self._flagged_again(verdicts, self.false_flags, progress)
        images = self._images(verdicts, progress)
        path = export(
            verdicts,
            images,
            format=self.format,
            out=self.out,
            marks=review_files(self.run_folder, self.marks),
            drop_at=self.drop_at,
            copy=self.copy,
            overwrite=self.overwrite,
            progress=progress,
        )
        entry = FORMATS.entries[self.format]
        summary = _folder_summary(verdicts, path) if entry.is_clean_part and entry.needs_images else ""
        progress.say(f"wrote {path}{summary}")

    def _export_tags(self, progress: Progress) -> None:
        """Writes the tags, corrected by the verdicts of a run and the marks of a person, one row per image."""
        from labelsieve.report.exports.export import export_corrected_tags
        from labelsieve.tags.marks import with_marks
        from labelsieve.tags.verdicts import TagVerdicts

        self._refuse_options_of_labels()
        verdicts, marks = TagVerdicts.load(self.run_folder), mark_files(self.marks)
        check_not_input(self.out, run=self.run_folder, source=source_of(verdicts, self.source))
        if marks is not None:
            verdicts = with_marks(verdicts, marks, progress=progress)
        path, separator = export_corrected_tags(verdicts, self.out, format=self.format, overwrite=self.overwrite)
        note = f'; tags are separated by "{separator}"' if separator else ""
        origin = "the verdicts" if marks is None else "the marks and the verdicts"
        progress.say(f"wrote {path}: the tags of {len(verdicts):,} images by {origin}{note}")

    def _refuse_options_of_labels(self) -> None:
        options = {
            "--drop-at": self.drop_at != 1,
            "--copy": self.copy,
            "--false-flags": self.false_flags is not None,
        }
        for option, is_used in options.items():
            if is_used:
                raise SettingsError(f"{option} does not go with a run of labelsieve scan-tags; leave it out")

    def _images(self, verdicts: Verdicts, progress: Progress) -> Any:
        """Loads the data that the format needs, or that match answers to images by content, if they can be loaded."""
        from labelsieve.review.log import LOG

        if FORMATS.entries[self.format].needs_images:
            images = images_of(verdicts, source=self.source, progress=progress)
            check_outside_source(images.origin.get("source"), self.out)
            return images
        is_reviewed = (self.run_folder / LOG).is_file()
        return data_or_none(verdicts, source=self.source, progress=progress) if is_reviewed else None

    def _flagged_again(self, verdicts: Verdicts, false_flags: float, progress: Progress) -> Verdicts:
        from labelsieve.review.audit import with_false_flags

        reviews, contents = load_reviews(self.run_folder, verdicts, source=self.source, progress=progress)
        return with_false_flags(verdicts, reviews, false_flags=false_flags, contents=contents)


def _folder_summary(verdicts: Verdicts, folder: Path) -> str:
    """Returns a text on the number of images in an image folder, and the classes of which no image is left."""
    from labelsieve.core.files import read_json
    from labelsieve.report.exports.folder import MARKER

    content = read_json(folder / MARKER)
    text = f": {content['images']:,} of {len(verdicts):,} images"
    empty = [name for folder_name, name in content["class_of_folder"].items() if not (folder / folder_name).exists()]
    if not empty:
        return text
    return f"{text}; no image is left of {listed(empty)}"
