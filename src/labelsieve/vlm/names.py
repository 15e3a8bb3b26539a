"""Names of models and data sets, with absolute paths or without folders."""

from __future__ import annotations

import os
from pathlib import Path

from labelsieve.data.published.base import named_source

DEFAULT_MODEL = "openai/clip-vit-base-patch16"
"""The default model of a scan."""
OPEN_CLIP = "open_clip:"
"""Prefix of the names of models that open_clip loads; see :func:`labelsieve.load_vlm`."""


def absolute_name(name: str) -> str:
    """Returns the name of a model with an absolute path, if it is a local one.

    Example:
        >>> absolute_name("openai/clip-vit-base-patch16"), absolute_name("open_clip:ViT-B-32/openai")
        ('openai/clip-vit-base-patch16', 'open_clip:ViT-B-32/openai')
    """
    prefix, path = _split_path(name)
    return prefix + os.path.abspath(path) if path and os.path.exists(path) else name


def without_folders(name: str) -> str:
    """Returns a name without the folders of a path, which are private. A Hub id stays as it is.

    Example:
        >>> without_folders("/home/ann/models/clip"), without_folders("openai/clip-vit-base-patch16")
        ('clip', 'openai/clip-vit-base-patch16')
    """
    if (named := named_source(name)) is not None:
        return f"{named.name}:{named.path.name}"
    prefix, path = _split_path(name)
    is_path = os.path.exists(path) or path.startswith(("/", ".", "~"))
    return prefix + (Path(path).name if is_path else path)


def _split_path(name: str) -> tuple[str, str]:
    """Splits the name of a model into a prefix and a path or Hub id."""
    if not name.startswith(OPEN_CLIP):
        return "", name
    path = name.removeprefix(OPEN_CLIP)
    architecture, _, file = path.partition("/")
    return (f"{OPEN_CLIP}{architecture}/", file) if os.path.isfile(file) else (OPEN_CLIP, path)
