"""The registry of export formats: `labelsieve export --format`, `labelsieve list` and messages derive from it.

A new format is one function and one line here. This module does not load pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labelsieve.core.registry import Entry, Registry

_HERE = "labelsieve.report.exports."


@dataclass(frozen=True)
class Format(Entry):
    """An export format; its `place` is the function of an export request that writes it.

    Attributes:
        needs_images: Whether it needs the images, which may be copied or linked. The others are one file.
        is_clean_part: Whether it leaves out flagged images.
        tags: The place of a function `(verdicts: TagVerdicts, out) -> str | None`, which writes the tags of a run as a
            file and returns their separator; empty if the format is not for tags.
    """

    needs_images: bool = False
    is_clean_part: bool = False
    tags: str = ""


FORMATS: Registry[Callable[..., None], Format] = Registry(
    "--format",
    Format(
        "csv",
        _HERE + "export:write_csv_table",
        "the table of verdicts, one row for each image",
        tags=_HERE + "tag_export:write_csv_of_tags",
    ),
    Format(
        "parquet",
        _HERE + "export:write_parquet_table",
        "the table of verdicts with types",
        tags=_HERE + "tag_export:write_parquet_of_tags",
    ),
    Format(
        "imagefolder",
        _HERE + "imagefolder:write_image_folder",
        "the clean part, one folder for each class",
        needs_images=True,
        is_clean_part=True,
    ),
    Format("cleanlab", _HERE + "export:write_cleanlab_table", "a table as cleanlab has it, labels as integers"),
    Format(
        "label-studio",
        _HERE + "annotation_tools:write_label_studio",
        "all images with tasks for Label Studio",
        needs_images=True,
    ),
    Format(
        "fiftyone",
        _HERE + "annotation_tools:write_fiftyone",
        "all images with labels as FiftyOneImageClassificationDataset",
        needs_images=True,
    ),
    Format(
        "cvat",
        _HERE + "annotation_tools:write_cvat",
        "all images with tags as CVAT for images 1.1",
        needs_images=True,
    ),
    Format(
        "coco",
        _HERE + "annotation_tools:write_coco",
        "all images with annotations as COCO",
        needs_images=True,
    ),
    Format(
        "annotations",
        _HERE + "box_annotations:write_annotations",
        "of boxes, the annotation file with corrected labels and label quality",
        needs_images=True,
    ),
    Format("dataset-card", _HERE + "dataset_card:write_card", "a card for the Hub that says which labels were changed"),
)


def formats_with(field: str) -> list[str]:
    """Returns the formats whose field of :class:`Format` is true, or not empty."""
    return [name for name, format in FORMATS.entries.items() if getattr(format, field)]


if TYPE_CHECKING:
    FormatKind = str
else:
    FormatKind = Literal[tuple(FORMATS)]
