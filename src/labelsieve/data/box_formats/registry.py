"""The registry of formats of boxes: what reads them, and what writes corrected labels back.

A new format is a file with three functions, and one line here. Nothing here loads one.
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
    """A format of boxes; its place is a function `(path, *, asked, split) -> Table` whose table has `box_files`.

    Attributes:
        edit: The place of a function `(data: bytes, edits: BoxEdits) -> bytes`, which gives one annotation file with
            other labels and every other byte as it is.
        written: The place of a function `(path, *, column) -> Iterator[Written]`, which yields the boxes of one file,
            and what else is in it, to check what was edited.
        suffixes: How its files end, in lower case, where that is enough to know it; see `find_boxes`.
        label_files: Where what is read is a file of settings, the place of a function `(path, *, split) -> list[Path]`,
            the files of labels that it leads to.
        caches: The place of a function `(files) -> list[Path]`, what trainers keep of files of labels; empty where
            they keep nothing.
    """

    edit: str = ""
    written: str = ""
    suffixes: tuple[str, ...] = ()
    label_files: str = ""
    caches: str = ""


def _format(name: str, about: str, *suffixes: str, **more: str) -> BoxFormat:
    """Returns a format whose functions are named after it; `more` are names of functions that few formats have."""
    here = f"labelsieve.data.box_formats.{name}:"
    return BoxFormat(
        name,
        f"{here}read_{name}",
        about,
        f"{here}edit_{name}",
        f"{here}written_{name}",
        suffixes=suffixes,
        **{field: here + function for field, function in more.items()},
    )


BOX_FORMATS: Registry[Callable[..., Table], BoxFormat] = Registry(
    "boxes",
    _format("coco", "COCO JSON with boxes", ".json"),
    _format(
        *("yolo", "YOLO, a data.yaml with a file of labels an image", ".yaml", ".yml"),
        label_files="label_files",
        caches="caches_of",
    ),
    _format("voc", "Pascal VOC, a folder with an XML file an image"),
    _format("open_images", "CSV of boxes in the columns of Open Images"),
)
BOX_FILES = {suffix: name for name, format in BOX_FORMATS.entries.items() for suffix in format.suffixes}
"""The format of each suffix."""
