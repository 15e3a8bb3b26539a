"""Registry of noise kinds, used by `inject`, `labelsieve noise --kind`, experiments and `labelsieve list`.

To add a kind, write a function in :mod:`labelsieve.data.noise` and add a line here. This module does not import numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry


@dataclass(frozen=True)
class NoiseEntry(Entry):
    """A kind of noise; its `place` is a function of images, with `seed` and the names in `takes` as keywords.

    Attributes:
        needs_images: Whether it depends on pixels, which features lack; it then also gets `progress`. Never for tags.
        for_tags: Whether it is for several labels per image instead of one.
        takes: Its parameters: shares; `exact`, whether shares are exact; `pairs`, which class is mistaken for which.
    """

    needs_images: bool = False
    for_tags: bool = False
    takes: tuple[str, ...] = ("rate", "exact")

    @property
    def shares(self) -> tuple[str, ...]:
        """Its parameters that are shares."""
        return tuple(name for name in self.takes if name not in ("exact", "pairs"))


_HERE = "labelsieve.data.noise:"
NOISE: Registry[Callable[..., Any], NoiseEntry] = Registry(
    "--kind",
    NoiseEntry("symmetric", _HERE + "symmetric_noise", "to any other class, all equally likely"),
    NoiseEntry(
        *("pair", _HERE + "pair_noise", "to the next class, the last to the first"), takes=("rate", "exact", "pairs")
    ),
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
    """Returns the kinds for several labels per image, or those for one label."""
    return [name for name, kind in NOISE.entries.items() if kind.for_tags == tags]


SHARES = tuple(dict.fromkeys(name for kind in NOISE.entries.values() for name in kind.shares))
"""The shares of all kinds: each is an option of `labelsieve noise` and a setting of the noise of an experiment."""

if TYPE_CHECKING:
    NoiseKind = str
else:
    NoiseKind = Literal[tuple(kinds_for(tags=False))]


def kinds_for_features() -> list[str]:
    """Returns the kinds for one label per image that do not need pixels."""
    return [name for name in kinds_for(tags=False) if not NOISE.entries[name].needs_images]
