"""The base class of detectors of tags, which score how likely each class is in each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from labelsieve.core.validation import check_fields

if TYPE_CHECKING:
    from labelsieve.detect.tags.inputs import TagInputs
    from labelsieve.detect.tags.scores import TagScores


class TagDetector(ABC):
    """Base class of detectors of tags: frozen, keyword-only dataclasses of validated settings.

    Attributes:
        requires: Inputs that the detector needs besides image features: `images`, which come with a model, and `text`,
            a text feature per class; `scan_tags` then checks that the class texts differ.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def score(self, pairs: TagInputs) -> TagScores:
        """Scores every pair of image and class.

        Args:
            pairs: Image features, given tags and class texts, with all that `requires` lists.
        """
