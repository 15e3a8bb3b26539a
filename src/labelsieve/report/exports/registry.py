"""The registry of export formats: `labelsieve export --format`, `labelsieve list` and messages derive from it.

A new format is one function of an :class:`ExportRequest` and one line here. This module does not load pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from labelsieve.core.errors import SettingsError
from labelsieve.core.registry import Entry, Registry

if TYPE_CHECKING:
    from labelsieve.core.progress import Progress
    from labelsieve.data.images import LabelledImages
    from labelsieve.review.row_reviews import Reviewed
    from labelsieve.verdicts import Verdicts

_HERE = "labelsieve.report.exports."


@dataclass(frozen=True)
class Format(Entry):
    """An export format; its `place` is the function of an export request that writes it.

    Attributes:
        needs_images: Whether it needs the images, which may be copied or linked. The others are one file.
        is_clean_part: Whether it leaves out flagged images.
        tags: Whether it is also for tags, see :func:`labelsieve.report.exports.export.export_corrected_tags`.
    """

    needs_images: bool = False
    is_clean_part: bool = False
    tags: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportRequest:
    """An export of the verdicts on N images.

    Attributes:
        format: The format.
        reviewed: The verdicts, and the reviews if there are any.
        images_or_none: Their images, if they were passed.
        out: The file or folder to write; it is written completely or not at all.
        drop_at: For the clean part: label quality up to which flagged images are left out.
        copy: Copy image files instead of linking to them. Images held as bytes are always written.
        overwrite: Replace existing output; a folder only if it is empty or was written by an export.
        progress: Receives progress.
    """

    format: Format
    reviewed: Reviewed
    images_or_none: LabelledImages | None
    out: Path
    drop_at: float
    copy: bool
    overwrite: bool
    progress: Progress | None

    @property
    def verdicts(self) -> Verdicts:
        """The verdicts, before the reviews."""
        return self.reviewed.verdicts

    @property
    def images(self) -> LabelledImages:
        """The images.

        Raises:
            SettingsError: They were not passed.
        """
        if self.images_or_none is None:
            raise SettingsError(f"format {self.format.name} needs the images; pass those that the run scanned")
        return self.images_or_none


def _with_images(name: str, place: str, about: str, *, is_clean_part: bool = False) -> Format:
    return Format(name, _HERE + place, about, needs_images=True, is_clean_part=is_clean_part)


FORMATS: Registry[Callable[..., None], Format] = Registry(
    "--format",
    Format("csv", _HERE + "export:write_table", "the table of verdicts, one row for each image", tags=True),
    Format("parquet", _HERE + "export:write_table", "the table of verdicts with types", tags=True),
    _with_images(
        "imagefolder", "imagefolder:write_image_folder", "the clean part, one folder for each class", is_clean_part=True
    ),
    Format("cleanlab", _HERE + "export:write_cleanlab_table", "a table as cleanlab has it, labels as integers"),
    _with_images("label-studio", "annotation_tools:write_label_studio", "all images with tasks for Label Studio"),
    _with_images(
        "fiftyone", "annotation_tools:write_fiftyone", "all images with labels as FiftyOneImageClassificationDataset"
    ),
    _with_images("cvat", "annotation_tools:write_cvat", "all images with tags as CVAT for images 1.1"),
    _with_images("coco", "annotation_tools:write_coco", "all images with annotations as COCO"),
    _with_images(
        "annotations",
        "box_annotations:write_annotations",
        "of boxes, the annotation file with corrected labels and label quality",
    ),
    Format("dataset-card", _HERE + "dataset_card:write_card", "a card for the Hub that says which labels were changed"),
)


def formats_with(field: str) -> list[str]:
    """Returns the formats whose field of :class:`Format` is true."""
    return [name for name, format in FORMATS.entries.items() if getattr(format, field)]


if TYPE_CHECKING:
    FormatKind = str
else:
    FormatKind = Literal[tuple(FORMATS)]
