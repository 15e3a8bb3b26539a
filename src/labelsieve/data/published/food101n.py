"""Food-101N: dishes, with labels from the web that people verified in part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labelsieve.data.published.layout import (
    Found,
    Labels,
    home_of,
    indices,
    lines_of,
    looked_up,
    pairs,
    positions,
    readable,
)

_LISTS = {"train": "imagelist.tsv", "verified-train": "verified_train.tsv", "verified-val": "verified_val.tsv"}
SPLITS = tuple(_LISTS)


def read_food101n(path: Path, split: str) -> Found:
    """Reads Food-101N. The splits that were verified have a column `verified`: 1 where the label is right, else 0."""
    files = ["meta/classes.txt", f"meta/{_LISTS[split]}", "images/"]
    home = home_of(path, title="Food-101N", files=files, inside=["Food-101N_release"])
    listed = home / files[1]
    folders = lines_of(home / files[0])[1:]  # below a header, as in all files of this data set
    names = tuple(map(readable, folders))
    numbers = {}
    if split == "train":
        keys = lines_of(listed)[1:]
    else:
        verified = pairs(listed, last=True)[1:]
        keys = [key for key, _ in verified]
        numbers["verified"] = indices([flag for _, flag in verified], names=("no", "yes"), where=listed)
    given = [key.partition("/")[0] for key in keys]
    values = looked_up(given, positions(folders), where=home / files[0], of=listed)
    labels = Labels(values=np.array(values, dtype=np.int64), names=names)
    pictures = [f"images/{key}" for key in keys]
    return Found(folder=home, pictures=pictures, labels={"label": labels}, numbers=numbers)
