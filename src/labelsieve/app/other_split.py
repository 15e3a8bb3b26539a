"""The images of the other split, which the leaks of a run refer to."""

from __future__ import annotations

from labelsieve.app.thumbnails import Thumbnails
from labelsieve.data.images import LabelledImages
from labelsieve.verdicts import Verdicts


class OtherSplit:
    """The images that a run was compared with, to show them next to their copies.

    Args:
        images: The images of the other split, from :func:`labelsieve.load_images`.
        like: The images of the run, which the others are read like.
    """

    def __init__(self, images: LabelledImages, *, like: LabelledImages) -> None:
        self.images = images.read_like(like)
        self.thumbnails = Thumbnails(self.images)
        self._rows = {name: row for row, name in enumerate(images.ids)}

    def __len__(self) -> int:
        return len(self.images)

    def matches_run(self, verdicts: Verdicts) -> bool:
        """Returns whether a run was compared with these images, unchanged."""
        against = verdicts.run.against
        return against is not None and against.fingerprint == self.images.fingerprint

    def row(self, name: str) -> int | None:
        """Returns the row of an image by its id; None if there is no such image."""
        return self._rows.get(name)

    def label(self, row: int) -> str:
        """Returns the label of an image in its split."""
        return self.images.class_names[int(self.images.labels[row])]
