"""Data sets with the classes of ImageNet: Tiny ImageNet and WebVision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelsieve.data.published.layout import (
    Labels,
    PublishedSplit,
    distinct_names,
    home_of,
    images_in,
    indices,
    lines_of,
    looked_up,
    pairs,
    positions,
)

# Number of classes of mini-WebVision, the usual benchmark: the first ones of the Google part of WebVision.
_MINI = 50
# For each split, the list of its images, their folder, and the prefix of the paths in the list.
_WEBVISION = {
    "train": ("info/train_filelist_google.txt", "google/", ""),
    "val": ("info/val_filelist.txt", "val_images_256/", "val_images_256/"),
}


def read_tiny_imagenet(path: Path, split: str) -> PublishedSplit:
    """Reads Tiny ImageNet: 200 classes, 64 x 64 pixels."""
    files = ["train/"] if split == "train" else ["val/val_annotations.txt", "val/images/"]
    files = ["wnids.txt", "words.txt", *files]
    home = home_of(path, title="Tiny ImageNet", files=files, inside=["tiny-imagenet-200"])
    codes = lines_of(home / "wnids.txt")
    words = dict(pairs(home / "words.txt"))
    synonyms = looked_up(codes, words, where=home / "words.txt", of=home / "wnids.txt")
    names = distinct_names(synonyms, codes=codes)
    if split == "train":
        home_of(home, title="Tiny ImageNet", files=[f"train/{code}/images/" for code in codes])
        return _by_folder(home, [home / "train" / code / "images" for code in codes], names)
    where = home / "val" / "val_annotations.txt"
    listed = [(file, line.split()[0]) for file, line in pairs(where)]
    values = positions([code for _, code in listed], codes, where=home / "wnids.txt", of=where)
    labels = Labels(values=values, names=names)
    return PublishedSplit(folder=home, images=[f"val/images/{file}" for file, _ in listed], labels={"label": labels})


def read_webvision(path: Path, split: str) -> PublishedSplit:
    """Reads mini-WebVision: the first 50 classes of the Google part of WebVision 1.0."""
    files = ["info/synsets.txt", *_WEBVISION.get(split, ())[:2]]
    home = home_of(path, title="WebVision 1.0", files=files)
    synsets = pairs(home / "info" / "synsets.txt")
    codes = [code for code, _ in synsets[:_MINI]]
    names = distinct_names([synonyms for _, synonyms in synsets[:_MINI]], codes=codes)
    if split == "imagenet-val":
        return _imagenet_val(home, codes, names)
    file, _, below = _WEBVISION[split]
    listed = pairs(home / file, last=True)
    values = indices([label for _, label in listed], names=synsets, where=home / file)
    mini = values < _MINI
    images = [f"{below}{image}" for (image, _), is_mini in zip(listed, mini, strict=True) if is_mini]
    return PublishedSplit(folder=home, images=images, labels={"label": Labels(values=values[mini], names=names)})


def _imagenet_val(home: Path, codes: Sequence[str], names: tuple[str, ...]) -> PublishedSplit:
    """Reads the validation images of ImageNet of the same classes, in one folder per class."""
    folder = home / "imagenet" / "val" if (home / "imagenet" / "val").is_dir() else home / "imagenet-val"
    home_of(folder, title="the validation images of ImageNet", files=[f"{code}/" for code in codes])
    return _by_folder(home, [folder / code for code in codes], names)


def _by_folder(home: Path, folders: Sequence[Path], names: tuple[str, ...]) -> PublishedSplit:
    """Reads one folder of images per class."""
    images = [images_in(folder, home=home) for folder in folders]
    values = np.repeat(np.arange(len(folders)), [len(some) for some in images])
    return PublishedSplit(
        folder=home,
        images=[image for some in images for image in some],
        labels={"label": Labels(values=values, names=names)},
    )
