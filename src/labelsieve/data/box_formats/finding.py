"""Detects files and folders of boxes, by name and first bytes."""

from __future__ import annotations

from pathlib import Path

from labelsieve.data.box_formats.open_images import is_open_images
from labelsieve.data.box_formats.registry import BOX_FILES
from labelsieve.data.box_formats.voc import is_voc

_YOLO = ("data.yaml", "data.yml", "dataset.yaml")


def find_boxes(path: Path) -> tuple[str, Path] | None:
    """Returns the format of boxes in a file or folder, and the path to read: for a YOLO folder its YAML file.

    Returns:
        A key of `BOX_FORMATS` and a path; None for other sources.
    """
    if path.is_dir():
        stated = next((path / name for name in _YOLO if (path / name).is_file()), None)
        return ("yolo", stated) if stated else ("voc", path) if is_voc(path) else None
    if path.suffix.lower() in BOX_FILES:
        return BOX_FILES[path.suffix.lower()], path
    return ("open_images", path) if path.suffix.lower() == ".csv" and is_open_images(path) else None
