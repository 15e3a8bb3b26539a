"""Defects of images, such as dark and blurred ones: the one place that asks `cleanvision`, an extra."""

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


# Where all images have one size, another shape of as many pixels is as far from it as a square root is inexact.
_ROUNDING = 1e-6


def check_defects(images: object) -> None:
    """Checks that defects of images can be looked for, before anything expensive starts.

    Raises:
        SettingsError: There are no images but features, or `cleanvision` is not installed.
    """
    if not isinstance(images, LabelledImages):
        raise SettingsError("defects are looked for in images, and features come without; leave out --image-defects")
    if find_spec("cleanvision") is None:
        raise SettingsError("--image-defects needs cleanvision; pip install 'labelsieve[defects]'")


def find_defects(search: Search) -> Iterator[pa.Table]:
    """Yields the images that `cleanvision` calls dark, bright, blurred, empty, or of an odd shape or size.

    The thresholds are its own. Its scores are lower for worse images; here higher is surer, as in all findings.
    """
    data, rows = search.data, search.inputs.rows.tolist()
    if not search.defects or not isinstance(data, LabelledImages):
        return
    from cleanvision import Imagelab

    names = {kind: kind.replace("-", "_") for kind in DEFECTS}
    with search.inputs.progress.task("looking for defects", total=len(rows), unit="images", brief=True) as advance:
        photos = _Photos(data, rows, advance)
        if not len(photos):
            return
        with redirect_stderr(io.StringIO()):  # it draws a bar of its own
            lab = Imagelab(torchvision_dataset=photos, verbose=False)
            lab.find_issues({name: {} for name in names.values()}, n_jobs=1, verbose=False)
    for kind, name in names.items():
        score = 1 - lab.issues[f"{name}_score"].to_numpy()
        flagged = np.setdiff1d(np.flatnonzero(lab.issues[f"is_{name}_issue"] & (score > _ROUNDING)), photos.gone)
        score = score[flagged]
        order = np.argsort(-score, kind="stable")
        ids = [data.ids[photos.rows[place]] for place in flagged[order].tolist()]
        yield finding_table(kind, ids, score=score[order].astype(np.float32))


class _Photos:
    """Images as `cleanvision` takes those of torchvision: a tuple for each.

    It has no numbers for an image that is missing, and no way to leave one out. In the place of one that can be read no
    more since the scan stands the first that can.

    Args:
        images: All of them.
        rows: Those to look at, (n,).
        advance: Takes how many images were looked at since the last call.
    """

    def __init__(self, images: LabelledImages, rows: Sequence[int], advance: Callable[[int], None]) -> None:
        self._images, self._advance = images, advance
        first = next((place for place, row in enumerate(rows) if self._open(row) is not None), len(rows))
        self.rows = rows[first:]
        self._first = self._open(self.rows[0]) if self.rows else None
        self.gone: list[int] = []
        """Places of the images that cannot be read any more."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Image.Image | None]:
        self._advance(1)
        image = self._open(self.rows[place])
        if image is None:
            self.gone.append(place)
        return (self._first if image is None else image,)

    def _open(self, row: int) -> Image.Image | None:
        try:
            return self._images.open(row)
        except DataError:
            return None
