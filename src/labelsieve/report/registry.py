"""The table of export formats: `labelsieve export --format`, `labelsieve list` and messages derive from it.

A new format is one function and one line here. Nothing here loads pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry

_HERE = "labelsieve.report."


@dataclass(frozen=True)
class Format(Entry):
    """An export format; its place is the function that writes it.

    Attributes:
        through: The place of a function of an :class:`labelsieve.report.request.ExportRequest` that calls the one that
            writes; empty where that takes the request itself.
        needs_images: Whether it is a folder with the images, which may be copied or linked.
        is_clean_part: Whether it leaves out what is flagged.
        tags: The place of a function `(verdicts: TagVerdicts, out) -> str | None`, which writes the tags of a run as a
            file and returns what separates them there; empty where the format is not for tags.
        images_in: Where the images lie in the folder of a tool.
        has_sizes: Whether the cards for a tool hold the size of each image, which means to decode it.
    """

    through: str = ""
    needs_images: bool = False
    is_clean_part: bool = False
    tags: str = ""
    images_in: str = "images"
    has_sizes: bool = False


def _file(name: str, place: str, about: str, *, tags: str = "") -> Format:
    """Returns a format that is one file; its function takes verdicts, reviews and the path."""
    return Format(name, _HERE + place, about, through=_HERE + "export:export_file", tags=tags and _HERE + tags)


def _tool(name: str, about: str, *, images_in: str = "images", has_sizes: bool = False) -> Format:
    """Returns a format of an annotation tool; see :func:`labelsieve.report.tools.export_for_tool`."""
    return Format(
        name,
        f"{_HERE}tools:write_{name.replace('-', '_')}",
        about,
        through=_HERE + "tools:export_for_tool",
        needs_images=True,
        images_in=images_in,
        has_sizes=has_sizes,
    )


FORMATS: Registry[Callable[..., Any], Format] = Registry(
    "--format",
    _file(
        *("csv", "export:write_csv_table", "the table of verdicts, one row for each image"),
        tags="tag_export:write_csv_of_tags",
    ),
    _file(
        *("parquet", "export:write_parquet_table", "the table of verdicts with types"),
        tags="tag_export:write_parquet_of_tags",
    ),
    Format(
        "imagefolder",
        _HERE + "imagefolder:write_image_folder",
        "the clean part, one folder for each class",
        needs_images=True,
        is_clean_part=True,
    ),
    _file("cleanlab", "export:write_cleanlab_table", "a table as cleanlab has it, labels as integers"),
    _tool("label-studio", "all images with tasks for Label Studio"),
    _tool("fiftyone", "all images with labels as FiftyOneImageClassificationDataset", images_in="data"),
    _tool("cvat", "all images with tags as CVAT for images 1.1", has_sizes=True),
    _tool("coco", "all images with annotations as COCO", has_sizes=True),
    Format(
        "annotations",
        _HERE + "annotations:write_annotations",
        "of boxes, the annotation file with corrected labels and label quality",
        needs_images=True,
    ),
    _file("dataset-card", "card:write_card", "a card for the Hub that says which labels were changed"),
)


def formats_with(field: str) -> list[str]:
    """Returns the formats of which a field of :class:`Format` is true, or not empty."""
    return [name for name, format in FORMATS.entries.items() if getattr(format, field)]


if TYPE_CHECKING:
    FormatKind = str
else:
    FormatKind = Literal[tuple(FORMATS)]
