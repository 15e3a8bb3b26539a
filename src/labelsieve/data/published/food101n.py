"""Food-101N: dishes, with labels from the web, some of which people have verified."""

from __future__ import annotations

from pathlib import Path

from labelsieve.core.errors import DataError, shown
from labelsieve.data.published.layout import (
    AGAIN,
    Labels,
    PublishedSplit,
    home_of,
    indices,
    lines_of,
    pairs,
    positions,
    readable,
)

_LISTS = {"train": "imagelist.tsv", "verified-train": "verified_train.tsv", "verified-val": "verified_val.tsv"}


def read_food101n(path: Path, split: str) -> PublishedSplit:
    """Reads Food-101N. The verified splits have a column `verified`: 1 if the label is correct, else 0."""
    files = ["meta/classes.txt", f"meta/{_LISTS[split]}", "images/"]
    home = home_of(path, title="Food-101N", files=files, inside=["Food-101N_release"])
    listed = home / files[1]
    folders = _below_header(lines_of(home / files[0]), home / files[0])
    numbers = {}
    if split == "train":
        keys = _below_header(lines_of(listed), listed)
    else:
        verified = dict(pairs(listed, last=True))
        keys = _below_header(list(verified), listed)
        numbers["verified"] = indices([verified[key] for key in keys], names=("wrong", "right"), where=listed)
    values = positions([key.partition("/")[0] for key in keys], folders, where=home / files[0], of=listed)
    labels = Labels(values=values, names=tuple(map(readable, folders)))
    images = [f"images/{key}" for key in keys]
    return PublishedSplit(folder=home, images=images, labels={"label": labels}, numbers=numbers)


def _below_header(lines: list[str], path: Path) -> list[str]:
    """Removes the header, which every list of this data set has."""
    if not lines or not lines[0].startswith("class_name"):
        actual = f'"{shown(lines[0])}"' if lines else "nothing"
        raise DataError(f'expected a header "class_name" in {path}, found {actual}; {AGAIN}')
    return lines[1:]
