"""The table of export formats: `labelsieve export --format`, `labelsieve list` and messages derive from it.

A new format is one function and one line here. Nothing here loads pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry


@dataclass(frozen=True)
class Format(Entry):
    """An export format; its place is the function that writes it.

    Attributes:
        kind: What that function is called with. `file`: verdicts, reviews and the path of the file. `tool`: a card for
            each image, class names, the folder to write in and the one that it becomes, see
            :func:`labelsieve.report.tools.write_for_tool`. `imagefolder`: as
            :func:`labelsieve.report.imagefolder.write_image_folder`. `annotations`: as
            :func:`labelsieve.report.annotations.write_annotations`.
        images_in: Where the images lie in the folder of a tool.
        has_sizes: Whether the cards for a tool hold the size of each image, which means to decode it.
    """

    kind: Literal["file", "tool", "imagefolder", "annotations"] = "file"
    images_in: str = "images"
    has_sizes: bool = False


_HERE = "labelsieve.report."
FORMATS: Registry[Callable[..., Any], Format] = Registry(
    "--format",
    Format("csv", _HERE + "export:write_csv_table", "the table of verdicts, one row for each image"),
    Format("parquet", _HERE + "export:write_parquet_table", "the table of verdicts with types"),
    Format(
        "imagefolder",
        _HERE + "imagefolder:write_image_folder",
        "the clean part, one folder for each class",
        kind="imagefolder",
    ),
    Format("cleanlab", _HERE + "export:write_cleanlab_table", "a table as cleanlab has it, labels as integers"),
    Format("label-studio", _HERE + "tools:write_label_studio", "all images with tasks for Label Studio", kind="tool"),
    Format(
        "fiftyone",
        _HERE + "tools:write_fiftyone",
        "all images with labels as FiftyOneImageClassificationDataset",
        kind="tool",
        images_in="data",
    ),
    Format(
        "cvat", _HERE + "tools:write_cvat", "all images with tags as CVAT for images 1.1", kind="tool", has_sizes=True
    ),
    Format("coco", _HERE + "tools:write_coco", "all images with annotations as COCO", kind="tool", has_sizes=True),
    Format(
        "annotations",
        _HERE + "annotations:write_annotations",
        "of boxes, the annotation file with corrected labels and label quality",
        kind="annotations",
    ),
    Format("dataset-card", _HERE + "card:write_card", "a card for the Hub that says which labels were changed"),
)


def folder_formats() -> list[str]:
    """Returns the formats that need the images."""
    return [name for name, format in FORMATS.entries.items() if format.kind != "file"]


if TYPE_CHECKING:
    FormatKind = str
else:
    FormatKind = Literal[tuple(FORMATS)]
