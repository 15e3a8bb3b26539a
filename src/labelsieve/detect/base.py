"""The base class of detectors, which score how likely each given label is correct.

A detector only scores; :func:`labelsieve.verdicts.decide` turns scores into verdicts. To add a detector, write one file
and add one line to :data:`labelsieve.detect.registry.DETECTORS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from labelsieve.core.validation import check_fields

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores
    from labelsieve.vlm.base import VisionLanguageModel


class Detector(ABC):
    """Base class of detectors: frozen, keyword-only dataclasses of validated settings that score images.

    Attributes:
        requires: Inputs that the detector needs besides image features: `images`, which come with a model, and `text`,
            a text feature per class.
        uses_text: Whether its scores depend on text features.
        predicts_test: Whether it also classifies test images.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    uses_text: ClassVar[bool] = True
    predicts_test: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    def check_model(self, vlm: VisionLanguageModel) -> None:  # noqa: B027, most detectors take any model
        """Checks that the settings work with a model, before all images are read.

        Raises:
            SettingsError: They do not.
        """

    @property
    def weighs_annotators(self) -> bool:
        """Whether it uses the labels of several annotators instead of one label per image."""
        return False

    @abstractmethod
    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image.

        Args:
            inputs: Image features, given labels and class texts, with all that `requires` lists. They never contain the
                true labels.
        """
