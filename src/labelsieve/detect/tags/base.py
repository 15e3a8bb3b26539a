"""What a detector of tags is: something that says how likely each class is in each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from labelsieve.core.validation import check_fields

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs
    from labelsieve.detect.tags.scores import TagScores


class TagDetector(ABC):
    """Base of detectors of tags: frozen, keyword-only dataclasses of settings, checked by their types.

    Attributes:
        requires: `images`, if image features alone are not enough and it needs images and a model; `text`, if it goes
            by a text feature of each class, which `scan_tags` then checks to differ.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def score(self, pairs: TagInputs) -> TagScores:
        """Scores every pair of image and class.

        Args:
            pairs: Image features, given tags and class texts; what it requires is there.
        """
