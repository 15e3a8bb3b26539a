"""The request of an export, common to all formats, and checks of its output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labelsieve.core.errors import SettingsError
from labelsieve.report.exports.registry import Format

if TYPE_CHECKING:
    from labelsieve.core.progress import Progress
    from labelsieve.data.images import LabelledImages
    from labelsieve.review.row_reviews import RowReviews
    from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportRequest:
    """An export of the verdicts on N images.

    Attributes:
        format: The format.
        verdicts: The verdicts, before the reviews.
        images_or_none: Their images, if they were passed.
        reviews: The reviews, from :func:`labelsieve.review.row_reviews.read_reviews`; None without reviews.
        out: The file or folder to write; it is written completely or not at all.
        drop_at: For the clean part: label quality up to which flagged images are left out.
        copy: Copy image files instead of linking to them. Images held as bytes are always written.
        overwrite: Replace existing output; a folder only if it is empty or was written by an export.
        progress: Receives progress.
    """

    format: Format
    verdicts: Verdicts
    images_or_none: LabelledImages | None
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
            SettingsError: They were not passed.
        """
        if self.images_or_none is None:
            raise SettingsError(f"format {self.format.name} needs the images; pass those that the run scanned")
        return self.images_or_none


def check_suffix(out: Path, *, format: str) -> None:
    """Rejects a name that ends like a file of another format, which would mislead other tools.

    Args:
        out: The file to write.
        format: The format to write, which is also its suffix, without a dot.

    Raises:
        SettingsError: The name has another suffix.
    """
    if out.suffix.lower() not in ("", f".{format}"):
        raise SettingsError(f"expected a file ending in .{format} for format {format}, got {out.name}; change either")
