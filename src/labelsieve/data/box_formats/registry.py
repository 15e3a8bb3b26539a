"""Registry of box formats, with their readers and their writers of corrected labels.

To add a format, write a file with three functions and add a line here. This module does not import the formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.registry import Entry, Registry

if TYPE_CHECKING:
    from labelsieve.data.sources.columns import Table


@dataclass(frozen=True)
class BoxFormat(Entry):
    """A box format; its `place` is a function `(path, *, requested, split) -> Table` whose table has `box_files`.

    Attributes:
        edit: The place of a function `(data: bytes, edits: TextEdits) -> bytes`, which returns one annotation file with
            new labels and every other byte unchanged.
        written: The place of a function `(path, *, column) -> Iterator[Written]`, which yields the boxes and all other
            parts of one file, to check edits.
        suffixes: Suffixes of its files, in lower case, if they identify the format; see `find_boxes`.
        label_files: The place of a function `(path, *, split) -> list[Path]`, which returns the label files of a source
            that is a configuration file; else empty.
        caches: The place of a function `(files) -> list[Path]`, which returns the caches that training tools made of
            label files; empty if there are none.
    """

    edit: str = ""
    written: str = ""
    suffixes: tuple[str, ...] = ()
    label_files: str = ""
    caches: str = ""


def _format(name: str, about: str, *suffixes: str, **other_functions: str) -> BoxFormat:
    """Returns a format whose functions are named after it, with optional functions."""
    module = f"labelsieve.data.box_formats.{name}:"
    return BoxFormat(
        name,
        f"{module}read_{name}",
        about,
        f"{module}edit_{name}",
        f"{module}written_{name}",
        suffixes=suffixes,
        **{field: module + function for field, function in other_functions.items()},
    )


BOX_FORMATS: Registry[Callable[..., Table], BoxFormat] = Registry(
    "boxes",
    _format("coco", "COCO JSON with boxes", ".json"),
    _format(
        *("yolo", "YOLO, a data.yaml with a file of labels per image", ".yaml", ".yml"),
        label_files="label_files",
        caches="caches_of",
    ),
    _format("voc", "Pascal VOC, a folder with an XML file an image"),
    _format("open_images", "CSV of boxes in the columns of Open Images"),
)
BOX_FILES = {suffix: name for name, format in BOX_FORMATS.entries.items() for suffix in format.suffixes}
"""The format of each suffix."""
