"""Small-loss: the share of labels with the largest losses is wrong, for a known rate (Han et al., NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from labelsieve.core.validation import Rate
from labelsieve.detect.training.settings import Training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class SmallLoss(Training):
    """Trains prompts with cross-entropy and flags the share of labels with the largest losses.

    Quality is exp(-loss), the probability of the given label.

    Attributes:
        noise_rate: Share of wrong labels, at least 0 and below 1. It has to be known.
        learns_from: Labels to train on: `all`, or `selected`, those with the smallest losses of each batch. The share
            that is left out rises to the noise rate during warm-up, as in co-teaching with one network and in the
            published code of DeFT.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(64, seed=0)
        >>> images = ls.load_images(drawn, labels=labels, class_names=CLASS_NAMES)
        >>> images = ls.inject(images, kind="symmetric", rate=0.25)
        >>> detector = ls.SmallLoss(noise_rate=0.25, epochs=2, min_steps=0, peft="none")
        >>> verdicts = ls.scan(images, ls.load_vlm(MINI_CLIP), detector=detector)
        >>> verdicts.metrics["auroc"] > 0.9
        True
        >>> int(verdicts.is_issue.sum())  # a quarter of 64
        16
    """

    noise_rate: Rate = 0.2
    learns_from: Literal["selected", "all"] = "selected"

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.detect.training.cross_entropy import CrossEntropyObjective, SmallestLosses, train_and_score

        selecting = partial(SmallestLosses, noise_rate=self.noise_rate)
        return train_and_score(
            self,
            inputs,
            objective=selecting if self.learns_from == "selected" else CrossEntropyObjective,
            rule=lambda probability: {"quality": probability, "issue": self._largest_losses(probability)},
        )

    def _largest_losses(self, probability: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns the mask of the labels with the largest losses, (n,); with ties, no threshold could select them."""
        import numpy as np

        issue = np.zeros(len(probability), dtype=bool)
        # stable, because copies of an image have equal losses
        issue[np.argsort(probability, kind="stable")[: round(self.noise_rate * len(issue))]] = True
        return issue
