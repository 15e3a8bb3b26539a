"""Helpers of all loaders: random subsets, and the arguments that load the same data again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.files import expand_home
from labelsieve.core.validation import Limit, Seed, check_value
from labelsieve.data.labelled import Labelled, Rows
from labelsieve.data.published.base import named_source
from labelsieve.data.sources.shards import has_pattern

if TYPE_CHECKING:
    from labelsieve.data.tags.records import TaggedImages

RowsT = TypeVar("RowsT", bound=Rows)


def check_limit(limit: int | None, seed: int) -> None:
    """Raises a `SettingsError` if the size or the seed of a subset is out of range."""
    check_value("seed", seed, Seed)
    check_value("limit", limit, Limit)


def subset(rows: int, limit: int | None, seed: int) -> NDArray[np.int64] | None:
    """Draws rows without replacement, and returns them in ascending order, or None if all rows are used.

    Args:
        rows: Number of all rows.
        limit: Number of rows to draw; None: all.
        seed: Seed of the draw.
    """
    if limit is None or limit >= rows:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, size=limit, replace=False)).astype(np.int64)


def with_origin(images: RowsT, source: Any, arguments: Mapping[str, Any]) -> RowsT:
    """Returns images or features whose `origin` can load them again; unchanged if their source is in memory.

    Args:
        images: The loaded images or features.
        source: Their source.
        arguments: The other arguments by name; None if omitted.
    """
    if not isinstance(source, str | Path):
        return images
    arguments_set = {name: value for name, value in arguments.items() if value is not None}
    return replace(images, origin={"source": absolute_source(source), **arguments_set})


def absolute_source(source: str | Path) -> str:
    """Returns a source with an absolute path, so that it does not depend on the current folder."""
    if (named := named_source(source)) is not None:
        return str(named)
    path = os.path.abspath(expand_home(source))
    return path if os.path.exists(path) or has_pattern(str(source)) else str(source)  # a Hub id stays as it is


def source_record(images: Labelled | TaggedImages) -> dict[str, Any]:
    """Returns source and fingerprint of test images, or of images to compare with, for the record of a run.

    Its `origin` has the arguments to load them again; it is empty for data in memory.
    """
    source = str(images.origin.get("source", "data in memory"))
    return {
        "source": source,
        "source_name": Path(source).name,
        "origin": dict(images.origin),
        "images": len(images),
        "fingerprint": images.fingerprint,
    }
