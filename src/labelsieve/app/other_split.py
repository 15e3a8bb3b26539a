"""The images of the other split, of which a run has leaks."""

from __future__ import annotations

import dataclasses

from labelsieve.app.thumbnails import Thumbnails
from labelsieve.data.images import LabelledImages
from labelsieve.verdicts import Verdicts


class OtherSplit:
    """The images that the images of a run were compared with, to be shown beside their copies.

    Args:
        images: The images of the other split, as :func:`labelsieve.load_images` gives them.
        like: The images of the run: what is black and what is white in them holds for the others too.
    """

    def __init__(self, images: LabelledImages, *, like: LabelledImages) -> None:
        self.images = dataclasses.replace(images, ranges={**images.ranges, **like.ranges})
        self.thumbnails = Thumbnails(self.images)
        self._rows = {name: row for row, name in enumerate(images.ids)}

    def __len__(self) -> int:
        return len(self.images)

    def is_of(self, verdicts: Verdicts) -> bool:
        """Returns whether a run was compared with these images, as they are now."""
        against = verdicts.run.against
        return against is not None and against.fingerprint == self.images.fingerprint

    def row(self, name: str) -> int | None:
        """Returns the row of an image by its id; None if there is no such image."""
        return self._rows.get(name)

    def label(self, row: int) -> str:
        """Returns the label that an image has in its split."""
        return self.images.class_names[int(self.images.labels[row])]
