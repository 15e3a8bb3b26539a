"""Fixtures for all tests. Nothing here reaches the network, and the cache of the user is left alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Both are read when the libraries are imported, so they are set before any test module is.
_cache = tempfile.TemporaryDirectory(prefix="labelsieve-tests-")
os.environ["HF_DATASETS_CACHE"] = _cache.name
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that makes a folder of class folders with small, different pictures.

    `photo_folder({"cat": 3, "dog": 2}, name="photos")` makes `photos/cat/0.png` to `photos/dog/1.png`.
    """

    def make(sizes: Mapping[str, int], *, name: str = "photos") -> Path:
        rng = np.random.default_rng(0)
        for folder, count in sizes.items():
            (tmp_path / name / folder).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / folder / f"{index}.png")
        return tmp_path / name

    return make
