"""What an export is asked for, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.provenance import target_of
from labelsieve.report.registry import Format

if TYPE_CHECKING:
    from labelsieve.core.progress import Progress
    from labelsieve.data.images import LabelledImages
    from labelsieve.review.rows import RowReviews
    from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportRequest:
    """An export of the verdicts on N images.

    Attributes:
        format: What is written.
        verdicts: The verdicts, before the reviews.
        given_images: The images that they were made from, where they were given.
        reviews: What reviewers say, from :func:`labelsieve.review.rows.read_reviews`; None where nobody was asked.
        out: The file or folder to write; it appears whole or not at all.
        drop_at: For the clean part: label quality up to which flagged images are left out.
        copy: Copy image files instead of linking to them. Images held as bytes are always written.
        overwrite: Replace what stands at `out`; a folder only if it is empty or was made by an export.
        progress: Where to show how far it is.
    """

    format: Format
    verdicts: Verdicts
    given_images: LabelledImages | None
    reviews: RowReviews | None
    out: Path
    drop_at: float
    copy: bool
    overwrite: bool
    progress: Progress | None

    @property
    def images(self) -> LabelledImages:
        """The images.

        Raises:
            SettingsError: They were not given.
        """
        if self.given_images is None:
            raise SettingsError(f"format {self.format.name} needs the images; pass those that the run scanned")
        return self.given_images


def check_file(out: Path, *, overwrite: bool) -> None:
    """Checks that a file may be written to a path.

    Raises:
        RunError: It is no place for a file or, without `overwrite`, something is there.
    """
    target_of(out)
    if out.exists() and not overwrite:
        raise RunError(f"{out} is there already; choose another name or pass --overwrite (overwrite=True)")


def refuse_suffix(out: Path, suffix: str, *, format: str) -> None:
    """Refuses a name with the suffix of another format, which a tool would take the file for.

    Raises:
        SettingsError: It has it.
    """
    if out.suffix.lower() == suffix:
        raise SettingsError(f"expected a file ending in .{format} for format {format}, got {out.name}; change either")
