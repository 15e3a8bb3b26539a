"""The registry of kinds of sources that labels can be written back to. This module does not load the writers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelsieve.core.registry import Entry, Registry
from labelsieve.data.box_formats.registry import BOX_FORMATS
from labelsieve.data.sources.table_formats import TABLE_FORMATS

if TYPE_CHECKING:
    from labelsieve.review.writers.base import Writer

_HERE = "labelsieve.review.writers."
WRITERS: Registry[type[Writer], Entry] = Registry(
    "source",
    Entry("folder", _HERE + "class_folders:ClassFolders", "class folders"),
    Entry("saved", _HERE + "saved:SavedDataset", "a folder of save_to_disk"),
    Entry("hub", _HERE + "saved:HubDataset", "a data set of the Hub"),
    *(Entry(name, _HERE + "tables:TableFiles", format.about) for name, format in TABLE_FORMATS.entries.items()),
    *(Entry(name, _HERE + "boxes:AnnotationFiles", format.about) for name, format in BOX_FORMATS.entries.items()),
)
"""By the `kind` of a :class:`labelsieve.data.sources.location.SourceLocation`; other kinds cannot be written."""
