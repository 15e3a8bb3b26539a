"""Names of models and data sets, with and without the folders of this machine."""

from __future__ import annotations

import os
from pathlib import Path

from labelsieve.data.published.base import named_source

DEFAULT_MODEL = "openai/clip-vit-base-patch16"
"""What a scan reads images with where nobody names a model."""
OPEN_CLIP = "open_clip:"
"""What the names of models begin with that open_clip loads; see :func:`labelsieve.load_vlm`."""


def located(name: str) -> str:
    """Returns a name of a model by which it is found from any folder: one that lies here is named by its whole path.

    Example:
        >>> located("openai/clip-vit-base-patch16"), located("open_clip:ViT-B-32/openai")
        ('openai/clip-vit-base-patch16', 'open_clip:ViT-B-32/openai')
    """
    before, place = _parts(name)
    return before + os.path.abspath(place) if place and Path(place).exists() else name


def without_folders(name: str) -> str:
    """Returns the last part of a path: the folders above it stay private. A Hub id stays whole.

    Example:
        >>> without_folders("/home/ann/models/clip"), without_folders("openai/clip-vit-base-patch16")
        ('clip', 'openai/clip-vit-base-patch16')
    """
    if (named := named_source(name)) is not None:
        return f"{named.name}:{named.path.name}"
    before, place = _parts(name)
    is_path = Path(place).exists() or place.startswith(("/", ".", "~"))
    return before + (Path(place).name if is_path else place)


def _parts(name: str) -> tuple[str, str]:
    """Returns what stands before a file or folder in a name, and that."""
    if not name.startswith(OPEN_CLIP):
        return "", name
    place = name.removeprefix(OPEN_CLIP)
    architecture, _, file = place.partition("/")
    return (f"{OPEN_CLIP}{architecture}/", file) if Path(file).is_file() else (OPEN_CLIP, place)
