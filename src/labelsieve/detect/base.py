"""What a detector is: something that scores how likely each given label is correct.

A detector only scores; :func:`labelsieve.verdicts.decide` turns scores into verdicts. A new detector is one file and
one line in :data:`labelsieve.detect.registry.DETECTORS`.
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
    """Base of detectors: frozen, keyword-only dataclasses of settings, checked by their types, that score images.

    Attributes:
        requires: What it cannot do without: `images`, which come with a model, and `text`, a text feature of each
            class. Image features it always gets.
        uses_text: Whether its scores differ with text features and without.
        predicts_test: Whether its model, trained or not, classifies the test images too.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    uses_text: ClassVar[bool] = True
    predicts_test: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    def check_model(self, vlm: VisionLanguageModel) -> None:  # noqa: B027, most detectors take any model
        """Refuses a model that the settings do not go with, before all images are read.

        Raises:
            SettingsError: The settings do not go with it.
        """

    @property
    def weighs_annotators(self) -> bool:
        """Whether it makes use of the labels of several annotators, rather than of one label an image."""
        return False

    @abstractmethod
    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image.

        Args:
            inputs: Image features, given labels and class texts; what it requires is there. The true labels are not
                among them.
        """
