"""Registry of published data sets, which are read by name: `NAME:PATH`. To add one, write a file and add a line here.

This module does not import the readers, because `labelsieve list` only needs names, titles and splits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.core.registry import Entry, Registry

if TYPE_CHECKING:
    from labelsieve.data.published.layout import PublishedSplit


@dataclass(frozen=True)
class Published(Entry):
    """A published data set; its `place` is a function that reads one split from a path, and `about` is its title.

    Attributes:
        splits: Its splits; `train` is among them and is the default.
    """

    splits: tuple[str, ...] = ("train", "test")


_HERE = "labelsieve.data.published."
PUBLISHED: Registry[Callable[..., PublishedSplit], Published] = Registry(
    "SOURCE",
    Published("cifar10", _HERE + "cifar:read_cifar10", "CIFAR-10"),
    Published("cifar100", _HERE + "cifar:read_cifar100", "CIFAR-100"),
    Published("cifar10n", _HERE + "cifar:read_cifar10n", "CIFAR-10N"),
    Published("cifar100n", _HERE + "cifar:read_cifar100n", "CIFAR-100N"),
    Published("tiny-imagenet", _HERE + "imagenet:read_tiny_imagenet", "Tiny ImageNet", splits=("train", "val")),
    Published("stanford-cars", _HERE + "cars:read_cars", "Stanford Cars"),
    Published("cub-200-2011", _HERE + "cub:read_cub", "CUB-200-2011"),
    Published(
        "clothing1m",
        _HERE + "clothing1m:read_clothing1m",
        "Clothing1M",
        splits=("train", "sample-64000", "both", "clean-train", "val", "test"),
    ),
    Published(
        "webvision", _HERE + "imagenet:read_webvision", "mini-WebVision", splits=("train", "val", "imagenet-val")
    ),
    Published("animal-10n", _HERE + "animal10n:read_animal10n", "ANIMAL-10N"),
    Published(
        "food-101n", _HERE + "food101n:read_food101n", "Food-101N", splits=("train", "verified-train", "verified-val")
    ),
)
