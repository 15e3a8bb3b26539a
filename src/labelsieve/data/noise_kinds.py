"""The registry of noise: `inject`, `labelsieve noise --kind`, experiments and `labelsieve list` derive from it.

A new kind is one function in :mod:`labelsieve.data.noise` and one line here. This module does not load numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry


@dataclass(frozen=True)
class NoiseEntry(Entry):
    """A kind of noise; its `place` is a function of images and :class:`labelsieve.data.noise.NoiseRequest`.

    Attributes:
        needs_images: Whether it depends on pixels, which features lack.
        takes_pairs: Whether a user may set which class is mistaken for which.
        for_tags: Whether it is for images that have several labels each; the others are for one label.
        takes: The fields of a request that it uses, besides the seed: shares, and whether they are `exact`.
    """

    needs_images: bool = False
    takes_pairs: bool = False
    for_tags: bool = False
    takes: tuple[str, ...] = ("rate", "exact")

    @property
    def shares(self) -> tuple[str, ...]:
        """What it takes besides whether it is exact."""
        return tuple(name for name in self.takes if name != "exact")


_HERE = "labelsieve.data.noise:"
NOISE: Registry[Callable[..., Any], NoiseEntry] = Registry(
    "--kind",
    NoiseEntry("symmetric", _HERE + "symmetric_noise", "to any other class, all equally likely"),
    NoiseEntry("pair", _HERE + "pair_noise", "to the next class, the last to the first", takes_pairs=True),
    NoiseEntry(
        *("instance", _HERE + "instance_noise", "to a class that depends on the pixels"),
        needs_images=True,
        takes=("rate",),
    ),
    NoiseEntry(
        *("tags", "labelsieve.data.tags.noise:tag_noise", "tags left out and added, where images have several labels"),
        for_tags=True,
        takes=("omit", "add"),
    ),
)


def kinds_for(*, tags: bool) -> list[str]:
    """Returns the kinds for images that have several labels each, or for those that have one."""
    return [name for name, kind in NOISE.entries.items() if kind.for_tags == tags]


SHARES = tuple(dict.fromkeys(name for kind in NOISE.entries.values() for name in kind.shares))
"""The shares that any kind takes: each is an option of `labelsieve noise` and a setting of an experiment's noise."""

if TYPE_CHECKING:
    NoiseKind = str
else:
    NoiseKind = Literal[tuple(kinds_for(tags=False))]


def kinds_with_pairs() -> list[str]:
    """Returns the kinds for which a user may set which class is mistaken for which."""
    return [name for name, kind in NOISE.entries.items() if kind.takes_pairs]


def kinds_for_features() -> list[str]:
    """Returns the kinds for one label that need no images."""
    return [name for name in kinds_for(tags=False) if not NOISE.entries[name].needs_images]
