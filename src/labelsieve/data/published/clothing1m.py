"""Clothing1M: clothes from web shops, with labels derived from the surrounding texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.published.layout import (
    Labels,
    PublishedSplit,
    home_of,
    indices,
    lines_of,
    looked_up,
    pairs,
    readable,
)

_NAMES, _NOISY, _CLEAN = "category_names_eng.txt", "noisy_label_kv.txt", "clean_label_kv.txt"
# For each split, the list of its images, and its columns of labels with their files. `both` has no list of its own: it
# consists of all images with a label in both files.
_PARTS = {
    "train": ("noisy_train_key_list.txt", {"label": _NOISY}),
    "sample-64000": ("noisy_train_key_list.txt", {"label": _NOISY}),
    "both": (_CLEAN, {"label": _NOISY, "clean_label": _CLEAN}),
    "clean-train": ("clean_train_key_list.txt", {"label": _CLEAN}),
    "val": ("clean_val_key_list.txt", {"label": _CLEAN}),
    "test": ("clean_test_key_list.txt", {"label": _CLEAN}),
}
_SAMPLE = 64_000


def read_clothing1m(path: Path, split: str) -> PublishedSplit:
    """Reads Clothing1M.

    `train` has no true labels, because few of its images also have a clean label; these form the split `both`.
    `sample-64000` is a sample of `train` that is the same on every machine, see :func:`balanced`.
    """
    list_file, columns = _PARTS[split]
    home = home_of(path, title="Clothing1M", files=[_NAMES, list_file, *columns.values(), "images/"])
    names = tuple(map(readable, lines_of(home / _NAMES)))
    tables = {column: dict(pairs(home / file, last=True)) for column, file in columns.items()}
    if split == "both":
        keys = [key for key in tables["clean_label"] if key in tables["label"]]
    else:
        keys = lines_of(home / list_file)
    labels = {}
    for column, file in columns.items():
        values = looked_up(keys, tables[column], where=home / file, of=home / list_file)
        labels[column] = Labels(values=indices(values, names=names, where=home / file), names=names)
    truths = ("clean_label",) if split == "both" else ()
    contents = PublishedSplit(folder=home, images=keys, labels=labels, truths=truths)
    return _sample(contents) if split == "sample-64000" else contents


def _sample(contents: PublishedSplit) -> PublishedSplit:
    labels = contents.labels["label"]
    rows = balanced(labels.values, _SAMPLE)
    return replace(
        contents,
        images=[contents.images[row] for row in rows],
        labels={"label": replace(labels, values=labels.values[rows])},
        notes=(f"a sample of {len(rows):,} of {len(labels.values):,} images, balanced over the classes",),
    )


def balanced(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Draws `count` rows, with the same number per class; a class with fewer rows contributes all of them.

    Args:
        labels: Shape (N,), the class of each row.
        count: Number of rows to draw; all if there are fewer.

    Returns:
        Shape (min(count, N),), the rows in ascending order. They only depend on the labels.
    """
    # NumPy guarantees the same numbers in every release for this legacy generator only
    shuffled = np.random.RandomState(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    classes, first = np.unique(labels[by_class], return_index=True)
    turn = np.arange(len(labels)) - first[np.searchsorted(classes, labels[by_class])]
    # in each turn, every class with rows left contributes one
    return np.sort(by_class[np.argsort(turn, kind="stable")[:count]])
