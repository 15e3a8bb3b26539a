"""Stand-ins of the data of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.bench.config import NO_TEXT, Data
from labelsieve.bench.lookalikes.formats import write_hub_parquet
from labelsieve.bench.lookalikes.layouts import LOOKALIKES, NAMES, SketchSplits, Split, draw_splits
from labelsieve.bench.synthetic import SYNTHETIC_SOURCES
from labelsieve.core.provenance import fingerprint
from labelsieve.data.published.base import named_source
from labelsieve.demo.sketches import CLASS_NAMES

IMAGES, TEST_IMAGES = 72, 24
WIDTH = 16
"""Width of the features."""


class StandIns:
    """Writes tiny data sets to a folder, each on first use.

    A published data set is replaced by its look-alike, which the same reader reads; sketches and scenes remain; a file
    of features is replaced by one with the label columns and text features of the experiment; and other files, folders
    and data sets of the Hub are replaced by a Parquet file with the columns of the experiment.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._written = folder, set[str]()

    @cached_property
    def splits(self) -> SketchSplits:
        """The sketches of all stand-ins."""
        return draw_splits(IMAGES, TEST_IMAGES)

    def of(self, data: Data, *, columns: Sequence[str] = (), texts: Sequence[str] = ()) -> Data:
        """Writes the stand-ins of a data set and of its test images, and returns them as a data set.

        Splits, columns and the use of limits remain, if the stand-in has them.

        Args:
            data: The data set.
            columns: Label columns of a file of features.
            texts: Text regimes of a file of features.
        """
        if data.is_features:
            return replace(data, source=self._features(data, columns, texts), limit=None, class_names=None)
        name, test_name = _lookalike(data.source), _lookalike(data.test_source)
        changes: dict[str, Any] = {
            "source": self._source(data),
            "limit": _limit(data.source, data.limit, IMAGES),
            "test_limit": _limit(data.test_source, data.test_limit, TEST_IMAGES),
            "class_names": None,  # a file for the real classes
        }
        if name is None:
            changes["split"] = None
        if data.test is not None or (data.test_source is not None and name is None):
            changes["test"] = self._test(data)
            changes["test_split"] = data.test_split if test_name else None
        return replace(data, **changes)

    def _features(self, data: Data, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Writes features around the centre of each class, which is also its text feature."""
        truth, texts = data.truth_column or "truth", sorted({*texts, "text"} - {NO_TEXT})
        path = self.folder / f"features-{fingerprint(truth, data.label_column, list(columns), texts)}.npz"
        rng, train = np.random.default_rng(0), self.splits.train
        centres = rng.normal(size=(len(NAMES), WIDTH))
        arrays: dict[str, Any] = dict.fromkeys([*columns, data.label_column or "label"], train.noisy)
        arrays |= {truth: train.truth} | dict.fromkeys(texts, centres)
        if path.name not in self._written:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(
                path,
                features=(centres[train.truth] + rng.normal(size=(len(train), WIDTH))).astype(np.float32),
                class_names=np.array(NAMES),
                logit_scale=np.float32(10),
                **arrays,
            )
            self._written.add(path.name)
        return str(path)

    def _source(self, data: Data) -> str:
        if data.source in SYNTHETIC_SOURCES:
            return data.source
        if (name := _lookalike(data.source)) is not None:
            return self._published(name)
        train, label, truth = self.splits.train, data.label_column or "label", data.truth_column
        labels = {label: train.truth} if truth is None else {label: train.noisy, truth: train.truth}
        return self._parquet(train, labels, image=data.image_column, names=NAMES)

    def _test(self, data: Data) -> str:
        if data.test_source in SYNTHETIC_SOURCES:
            return str(data.test_source)
        if (name := _lookalike(data.test_source)) is not None:
            return self._published(name)
        labels = {data.test_label_column or "label": self.splits.test.truth}
        return self._parquet(self.splits.test, labels, image=None, names=_class_names(data.source))

    def _published(self, name: str) -> str:
        if name not in self._written:
            LOOKALIKES[name].write(self.folder / name, self.splits)
            self._written.add(name)
        return f"{name}:{self.folder / name}"

    def _parquet(self, part: Split, labels: dict[str, Any], *, image: str | None, names: tuple[str, ...]) -> str:
        split, column = "train" if part is self.splits.train else "test", image or "image"
        path = self.folder / f"{split}-{fingerprint(column, list(labels), names)}.parquet"
        if path.name not in self._written:
            write_hub_parquet(path, part.images, labels, class_names=names, image_column=column)
            self._written.add(path.name)
        return str(path)


def _limit(source: str | None, limit: int | None, images: int) -> int | None:
    """Returns the limit for a number of images, or the number of scenes; None if there was no limit."""
    if source in SYNTHETIC_SOURCES:
        return SYNTHETIC_SOURCES[source].count_for(images)
    return images if limit else None


def _lookalike(source: str | None) -> str | None:
    """Returns the name of the published data set with a look-alike that a source names, or None."""
    named = None if source is None else named_source(source)
    return named.name if named is not None and named.name in LOOKALIKES else None


def _class_names(source: str) -> tuple[str, ...]:
    """Returns the class names of the stand-in of a source, since test images need the same."""
    if source in SYNTHETIC_SOURCES:
        return CLASS_NAMES
    name = _lookalike(source)
    return NAMES if name is None else LOOKALIKES[name].names
