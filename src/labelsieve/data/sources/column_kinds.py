"""The content of a table column, derived from its feature in the `datasets` library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelsieve.core.errors import listed

ID_TYPES = ("string", "large_string", "int", "uint")
"""Prefixes of the types of texts and integers, which may name rows and files."""


def holds_images(feature: Any) -> bool:
    """Returns whether a column has encoded images: an image, bytes, or a struct of `bytes` and `path`."""
    if isinstance(feature, Mapping):
        return "bytes" in feature
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", "") in ("binary", "large_binary")


def holds_pixels(feature: Any) -> bool:
    """Returns whether a column has nested lists of integers, (H, W) or (H, W, C), per row."""
    if type(feature).__name__ in ("Array2D", "Array3D"):
        return str(feature.dtype).startswith(("int", "uint"))
    depth = 0
    while (inner := element_of(feature)) is not None:
        feature, depth = inner, depth + 1
    return depth in (2, 3) and str(getattr(feature, "dtype", "")).startswith(("int", "uint"))


def holds_numbers(feature: Any) -> bool:
    """Returns whether a column has a list of numbers per row, as for features."""
    inner = element_of(feature)
    return inner is not None and str(getattr(inner, "dtype", "")).startswith(("int", "uint", "float"))


def element_of(feature: Any) -> Any:
    """Returns the element type of the lists of a column, or None if it has no lists."""
    return getattr(feature, "feature", None)


def holds_text(feature: Any) -> bool:
    """Returns whether a column holds texts, such as paths."""
    return getattr(feature, "dtype", "") in ("string", "large_string")


def holds_names(feature: Any) -> bool:
    """Returns whether a column holds texts or integers, such as ids and names of files."""
    return str(getattr(feature, "dtype", "")).startswith(ID_TYPES) and type(feature).__name__ == "Value"


def holds_paths(feature: Any) -> bool:
    """Returns whether a column has images that may be stored as paths without bytes."""
    return holds_images(feature) and getattr(feature, "dtype", "") not in ("binary", "large_binary")


def kind_of(feature: Any) -> str:
    """Returns a description of the content of a column."""
    if (inner := element_of(feature)) is not None:
        return f"lists of {kind_of(inner)}"
    if isinstance(feature, Mapping):
        return f"records of {listed(feature)}"
    name, kind = type(feature).__name__, str(getattr(feature, "dtype", ""))
    if name == "ClassLabel":
        return f"classes ({listed(feature.names)})"
    if name != "Value":
        return "images" if name == "Image" else f"values of the kind {name}"
    words = {"string": "texts", "large_string": "texts", "binary": "bytes", "large_binary": "bytes"}
    if kind.startswith(("int", "uint")):
        return "integers"
    return "numbers" if kind.startswith(("float", "double")) else words.get(kind, kind)
