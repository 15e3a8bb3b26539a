"""Defects of images, for example dark and blurred images, with the optional dependency `cleanvision`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from labelsieve.core.errors import DataError, SettingsError
from labelsieve.curation.findings import DEFECTS, finding_table
from labelsieve.data.images import LabelledImages

if TYPE_CHECKING:
    from labelsieve.curation.search import Search


# Minimum score: among images with equal numbers of pixels, odd sizes differ by the rounding of square roots only.
_ROUNDING = 1e-6


def check_defects(images: object) -> None:
    """Checks that defects can be detected, before anything expensive starts.

    Raises:
        SettingsError: The data are features without images, or `cleanvision` is not installed.
    """
    if not isinstance(images, LabelledImages):
        raise SettingsError("defects are looked for in images, and features come without; leave out --image-defects")
    if find_spec("cleanvision") is None:
        raise SettingsError("--image-defects needs cleanvision; pip install 'labelsieve[defects]'")


def find_defects(search: Search) -> Iterator[pa.Table]:
    """Yields the images that `cleanvision` reports as dark, bright, blurred, empty, or of an odd shape or size.

    The thresholds are those of `cleanvision`. Its scores are lower for worse images; here higher means more certain.
    """
    data, rows = search.data, search.inputs.rows.tolist()
    if not search.defects or not isinstance(data, LabelledImages):
        return
    from cleanvision import Imagelab

    names = {kind: kind.replace("-", "_") for kind in DEFECTS}
    with search.inputs.progress.task("looking for defects", total=len(rows), unit="images", brief=True) as advance:
        dataset = _TorchvisionDataset(data, rows, advance)
        if not len(dataset):
            return
        with redirect_stderr(io.StringIO()):  # it shows its own progress bar
            lab = Imagelab(torchvision_dataset=dataset, verbose=False)
            lab.find_issues({name: {} for name in names.values()}, n_jobs=1, verbose=False)
    for kind, name in names.items():
        score = 1 - lab.issues[f"{name}_score"].to_numpy()
        flagged = np.setdiff1d(np.flatnonzero(lab.issues[f"is_{name}_issue"] & (score > _ROUNDING)), dataset.unreadable)
        score = score[flagged]
        order = np.argsort(-score, kind="stable")
        ids = [data.ids[dataset.rows[index]] for index in flagged[order].tolist()]
        yield finding_table(kind, ids, score=score[order].astype(np.float32))


class _TorchvisionDataset:
    """Images in the format of torchvision data sets, which `cleanvision` expects: one tuple per image.

    `cleanvision` cannot skip images. An image that has become unreadable since the scan is replaced by the first
    readable one.

    Args:
        images: All images.
        rows: Rows of the images to check, (n,).
        advance: Receives the number of images since the last call.
    """

    def __init__(self, images: LabelledImages, rows: Sequence[int], advance: Callable[[int], None]) -> None:
        self._images, self._advance = images, advance
        first = next((index for index, row in enumerate(rows) if self._open(row) is not None), len(rows))
        self.rows = rows[first:]
        self._first = self._open(self.rows[0]) if self.rows else None
        self.unreadable: list[int] = []
        """Indices of the images that are no longer readable."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image | None]:
        self._advance(1)
        image = self._open(self.rows[index])
        if image is None:
            self.unreadable.append(index)
        return (self._first if image is None else image,)

    def _open(self, row: int) -> Image.Image | None:
        try:
            return self._images.open(row)
        except DataError:
            return None
