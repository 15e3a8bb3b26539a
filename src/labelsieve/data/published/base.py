"""The published data sets that are read by name: `NAME:PATH`. A new one is one file and one line in `PUBLISHED`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from labelsieve.core.errors import DataError, look_up
from labelsieve.data.columns import Columns, Table, choose_columns, choose_split
from labelsieve.data.published import clothing1m, food101n
from labelsieve.data.published.animal10n import read_animal10n
from labelsieve.data.published.cars import read_cars
from labelsieve.data.published.cifar import read_cifar10, read_cifar10n, read_cifar100, read_cifar100n
from labelsieve.data.published.cub import read_cub
from labelsieve.data.published.imagenet import read_tiny_imagenet, read_webvision
from labelsieve.data.published.layout import Found, to_rows

# A drive of Windows has one letter, and a web address goes on with two slashes.
_LIKE_A_NAME = re.compile(r"([\w.-]{2,}):(?!//)")


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published data set.

    Attributes:
        title: Its name.
        splits: Its splits; `train` is among them and is the default.
        read: Reads one of them from a path.
    """

    title: str
    splits: tuple[str, ...]
    read: Callable[[Path, str], Found]


_BOTH = ("train", "test")
PUBLISHED = {
    "cifar10": Published(title="CIFAR-10", splits=_BOTH, read=read_cifar10),
    "cifar100": Published(title="CIFAR-100", splits=_BOTH, read=read_cifar100),
    "cifar10n": Published(title="CIFAR-10N", splits=_BOTH, read=read_cifar10n),
    "cifar100n": Published(title="CIFAR-100N", splits=_BOTH, read=read_cifar100n),
    "tiny-imagenet": Published(title="Tiny ImageNet", splits=("train", "val"), read=read_tiny_imagenet),
    "stanford-cars": Published(title="Stanford Cars", splits=_BOTH, read=read_cars),
    "cub-200-2011": Published(title="CUB-200-2011", splits=_BOTH, read=read_cub),
    "clothing1m": Published(title="Clothing1M", splits=clothing1m.SPLITS, read=clothing1m.read_clothing1m),
    "webvision": Published(title="mini-WebVision", splits=("train", "val", "imagenet-val"), read=read_webvision),
    "animal-10n": Published(title="ANIMAL-10N", splits=_BOTH, read=read_animal10n),
    "food-101n": Published(title="Food-101N", splits=food101n.SPLITS, read=food101n.read_food101n),
}


# Those of the data sets that the Hub has under an id of its own, and that its columns do not give away: CIFAR-100 has
# two of class names there.
HUB = {
    "uoft-cs/cifar10": Columns(image="img", label="label"),
    "uoft-cs/cifar100": Columns(image="img", label="fine_label"),
}


class NamedSource(NamedTuple):
    """A source `NAME:PATH` in its parts; the path is absolute."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name}:{self.path}"


def named_source(source: str | Path) -> NamedSource | None:
    """Returns the parts of a source `NAME:PATH` with a known name, or None; a path that exists is just that."""
    name, _, place = str(source).partition(":")
    if not place or name not in PUBLISHED or os.path.exists(source):
        return None
    return NamedSource(name, Path(os.path.abspath(Path(place).expanduser())))


def refuse_unknown_name(source: str) -> None:
    """Raises a `DataError` that names the nearest data set if a source looks like `NAME:PATH`, or like a name alone."""
    if (name := source.removesuffix(":")) in PUBLISHED:
        raise DataError(f"expected the folder of a published data set after its name, as in {name}:PATH, found none")
    if like := _LIKE_A_NAME.match(source):
        look_up(PUBLISHED, like[1], what="NAME in a source NAME:PATH", error=DataError)


def read_published(source: NamedSource, *, asked: Columns, split: str | None) -> Table:
    """Reads one split of a published data set in its official layout.

    Raises:
        DataError: Files are missing or are not what they should be, or there is no such split or column.
    """
    known = PUBLISHED[source.name]
    where = f"{known.title} in {source.path}"
    chosen, notes = choose_split(known.splits, split, where=where)
    found = known.read(source.path, chosen)
    label = asked.label or found.given
    wish = replace(asked, label=label, truth=asked.truth or found.truth_of(label))
    rows = to_rows(found, where=where)
    columns = choose_columns(rows.features, asked=wish, where=where)
    notes = (*notes, *found.notes, *_notes(found, asked=asked, truth=columns.truth))
    return Table(rows=rows, columns=columns, where=where, folder=found.folder, notes=notes)


def _notes(found: Found, *, asked: Columns, truth: str | None) -> list[str]:
    """Says which of several columns were taken though nobody asked for them."""
    notes = []
    others = [name for name in found.labels if name != found.given and name not in found.truths]
    if others and asked.label is None:
        notes.append(f"the given labels are {found.given}; --label-column takes {', '.join(others)}")
    if truth is not None and asked.truth is None:
        notes.append(f"the true labels, for metrics only, are {truth}")
    return notes
