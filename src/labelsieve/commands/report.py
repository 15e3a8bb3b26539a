"""`labelsieve report`: the report of a finished run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import arg

from labelsieve.commands.base import Command, Flag, OptionalText, RunFolder
from labelsieve.commands.output_checks import check_not_input
from labelsieve.commands.run_data import data_of, is_tag_run, source_of, tagged_images_of
from labelsieve.core.output_folders import check_report
from labelsieve.core.progress import Progress
from labelsieve.report import MAX_IMAGES, ImageCount, ThumbnailPixels

if TYPE_CHECKING:
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.review.statement import Statement
    from labelsieve.tags.verdicts import TagVerdicts
    from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Writes the report of a finished run again, with more images or after the data have moved.

    Attributes:
        run_folder: Folder of the run.
        out: File to write; by default report.html in the folder of the run.
        source: Where the images lie now, if not where the run found them.
        max_images: Number of the most suspicious images to show, at most 20000; by default 5000, of tags 500 of each
            kind.
        thumbnail_px: Longest side of the thumbnails.
        overwrite: Replace also a file that is not a report.
    """

    run_folder: RunFolder
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    source: OptionalText = None
    max_images: Annotated[ImageCount | None, arg(metavar="INT")] = None
    thumbnail_px: ThumbnailPixels = 256
    overwrite: Flag = False

    def run(self, console: Console) -> None:
        """Reads the run and its images, and writes the report."""
        from labelsieve.core.quantities import megabytes
        from labelsieve.verdicts import REPORT

        out, progress = self.out or self.run_folder / REPORT, Progress(console)
        write = self._write_tags if is_tag_run(self.run_folder) else self._write_labels
        content = write(out, progress)
        progress.say(f"wrote {out} ({megabytes(out.stat().st_size)}): {content}")

    def _write_labels(self, out: Path, progress: Progress) -> str:
        """Writes the report of a run with one label per image, and returns a text on its content."""
        from labelsieve.report.label_report import write_report
        from labelsieve.report.texts import all_flagged
        from labelsieve.verdicts import Verdicts

        verdicts = Verdicts.load(self.run_folder)
        self._check_out(out, verdicts)
        data = data_of(verdicts, source=self.source, progress=progress)
        max_images = MAX_IMAGES if self.max_images is None else self.max_images
        audit = self._audited(verdicts, data, progress)
        write_report(verdicts, data, out, audit=audit, max_images=max_images, **self._options(progress))
        flagged = int(verdicts.is_issue.sum())
        in_page = min(flagged, max_images)
        more = all_flagged(verdicts, shown=in_page)
        return f"{in_page:,} of {flagged:,} flagged images" + (f"; for all: {more}" if more else "")

    def _write_tags(self, out: Path, progress: Progress) -> str:
        """Writes the report of a run with several labels per image, and returns a text on its content."""
        from labelsieve.report.tag_report import MAX_TAG_PAIRS, write_tag_report
        from labelsieve.tags.verdicts import TagVerdicts

        verdicts = TagVerdicts.load(self.run_folder)
        self._check_out(out, verdicts)
        max_images = MAX_TAG_PAIRS if self.max_images is None else self.max_images
        images = tagged_images_of(verdicts, source=self.source, progress=progress)
        write_tag_report(verdicts, images, out, max_images=max_images, **self._options(progress))
        return f"at most {max_images:,} pairs of each kind"

    def _options(self, progress: Progress) -> dict[str, Any]:
        return {"thumbnail_px": self.thumbnail_px, "overwrite": self.overwrite, "progress": progress}

    def _check_out(self, out: Path, verdicts: Verdicts | TagVerdicts) -> None:
        """Checks that no file of others is replaced, before the images are loaded."""
        from labelsieve.verdicts import REPORT

        check_not_input(out, run=self.run_folder, source=source_of(verdicts, self.source), but=REPORT)
        check_report(out, overwrite=self.overwrite)

    def _audited(
        self, verdicts: Verdicts, data: LabelledImages | LabelledFeatures, progress: Progress
    ) -> Statement | None:
        """Returns the bounds from the answers in the run folder; None without answers."""
        from labelsieve import review
        from labelsieve.review.audit import statement

        reviews = review.load(self.run_folder, progress=progress)
        return statement(verdicts, reviews, contents=data.contents) if len(reviews) else None
