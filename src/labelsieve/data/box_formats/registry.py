"""The registry of formats of boxes: what reads them, and what writes corrected labels back.

A new format is a file with two functions, and one line here. Nothing here loads one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.registry import Entry, Registry

if TYPE_CHECKING:
    from labelsieve.data.columns import Table


@dataclass(frozen=True)
class BoxFormat(Entry):
    """A format of boxes; its place is a function `(path, *, asked, split) -> Table`.

    Attributes:
        suffixes: How its files end, in lower case; none where it is a folder.
    """

    suffixes: tuple[str, ...] = ()


_HERE = "labelsieve.data.box_formats."
BOX_FORMATS: Registry[Callable[..., Table], BoxFormat] = Registry(
    "boxes",
    BoxFormat("coco", _HERE + "coco:read_coco", "COCO JSON with boxes", suffixes=(".json",)),
)
BOX_FILES = {suffix: name for name, format in BOX_FORMATS.entries.items() for suffix in format.suffixes}
"""The format of each suffix."""
