"""`labelsieve report`: the report of a finished run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import arg

from labelsieve.commands.base import (
    Command,
    Flag,
    OptionalText,
    RunFolder,
)
from labelsieve.commands.output_checks import check_not_input
from labelsieve.commands.run_data import data_of, source_of
from labelsieve.commands.tag_runs import is_tag_run, write_report_of_tags
from labelsieve.core.progress import Progress
from labelsieve.report import MAX_IMAGES, ImageCount, ThumbnailPixels

if TYPE_CHECKING:
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.review.statement import Statement
    from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Writes the report of a finished run again, with more images or after the data have moved.

    Attributes:
        run_folder: Folder of the run.
        out: File to write; by default report.html in the folder of the run.
        source: Where the images lie now, if not where the run found them.
        max_images: Number of the most suspicious images to show, at most 20,000; by default 5,000, of tags 500 of each
            kind.
        thumbnail_px: Longest side of the thumbnails.
        overwrite: Replace also a file that is not a report.
    """

    run_folder: RunFolder
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    source: OptionalText = None
    max_images: Annotated[ImageCount | None, arg(metavar="INT", help_behavior_hint="(optional)")] = None
    thumbnail_px: ThumbnailPixels = 256
    overwrite: Flag = False

    def run(self, console: Console) -> None:
        """Reads the run and its images, and writes the report."""
        from labelsieve.core.quantities import megabytes
        from labelsieve.report.common import all_flagged
        from labelsieve.report.html import check_free, write_report
        from labelsieve.verdicts import REPORT, Verdicts

        progress = Progress(console)
        if is_tag_run(self.run_folder):
            write_report_of_tags(
                self.run_folder,
                out=self.out or self.run_folder / REPORT,
                source=self.source,
                max_images=self.max_images,
                thumbnail_px=self.thumbnail_px,
                overwrite=self.overwrite,
                progress=progress,
            )
            return
        verdicts = Verdicts.load(self.run_folder)
        out, max_images = (
            self.out or self.run_folder / REPORT,
            MAX_IMAGES if self.max_images is None else self.max_images,
        )
        check_not_input(out, run=self.run_folder, source=source_of(verdicts, self.source), but=REPORT)
        check_free(out, overwrite=self.overwrite)  # before the images are loaded
        data = data_of(verdicts, source=self.source, progress=progress)
        path = write_report(
            verdicts,
            data,
            out,
            audit=self._audited(verdicts, data, progress),
            max_images=max_images,
            thumbnail_px=self.thumbnail_px,
            overwrite=self.overwrite,
            progress=progress,
        )
        flagged = int(verdicts.is_issue.sum())
        in_page = min(flagged, max_images)
        message = f"wrote {path} ({megabytes(path.stat().st_size)}): {in_page:,} of {flagged:,} flagged images"
        more = all_flagged(verdicts, shown=in_page)
        progress.say(f"{message}; for all: {more}" if more else message)

    def _audited(
        self, verdicts: Verdicts, data: LabelledImages | LabelledFeatures, progress: Progress
    ) -> Statement | None:
        """Returns the bounds from the answers in the run folder; None without answers."""
        from labelsieve import review
        from labelsieve.review.audit import statement

        reviews = review.load(self.run_folder, progress=progress)
        return statement(verdicts, reviews, contents=data.contents) if len(reviews) else None
