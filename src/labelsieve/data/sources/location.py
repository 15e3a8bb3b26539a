"""Kind and location of a source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SourceLocation:
    """The kind and the location of a source.

    Attributes:
        kind: `folder`, for class folders; a key of `TABLE_FORMATS`, for a table in one or several files; a key of
            `BOX_FORMATS`, for boxes, whose reader finds their files; `saved`, for the output of `Dataset.save_to_disk`;
            `published`, for a known data set in its official layout; or `hub`.
        path: The folder or file; for YOLO, the YAML file; for a pattern of files, their common folder.
        files: The files of a table, in order.
        where: Name of a table, for messages.
        notes: Remarks for the user.
    """

    kind: str
    path: Path
    files: tuple[Path, ...] = ()
    where: str = ""
    notes: tuple[str, ...] = ()
