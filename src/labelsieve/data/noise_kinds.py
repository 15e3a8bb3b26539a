"""The table of kinds of noise: `inject`, `labelsieve noise --kind`, experiments and `labelsieve list` derive from it.

A new kind is one function in :mod:`labelsieve.data.noise` and one line here. Nothing here loads numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry


@dataclass(frozen=True)
class Kind(Entry):
    """A kind of noise; its place is a function of rows and :class:`labelsieve.data.noise.Request`.

    Attributes:
        needs_images: Whether it depends on pixels, which features come without.
        takes_pairs: Whether a user may say which class is mistaken for which.
    """

    needs_images: bool = False
    takes_pairs: bool = False


_HERE = "labelsieve.data.noise:"
NOISE: Registry[Callable[..., Any], Kind] = Registry(
    "--kind",
    Kind("symmetric", _HERE + "symmetric_noise", "to any other class, all equally likely"),
    Kind("pair", _HERE + "pair_noise", "to the next class, the last to the first", takes_pairs=True),
    Kind("instance", _HERE + "instance_noise", "to a class that depends on the pixels", needs_images=True),
)

TAGS, ABOUT_TAGS = "tags", "tags left out and added, where images have several labels"
"""The kind of several labels an image, which has shares of its own; see :func:`labelsieve.data.noise.inject_tags`."""

if TYPE_CHECKING:
    NoiseKind = str
else:
    NoiseKind = Literal[tuple(NOISE)]


def kinds_for_features() -> list[str]:
    """Returns the kinds that need no images."""
    return [name for name, kind in NOISE.entries.items() if not kind.needs_images]
