"""GMM: a two-component Gaussian mixture on the losses of the images (Arazo et al., ICML 2019; Li et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labelsieve.detect.training.settings import Training

if TYPE_CHECKING:
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class GMM(Training):
    """Trains prompts with cross-entropy and fits a mixture of two Gaussians to the losses.

    Quality is the posterior of the component with the smaller mean; a label is an issue if it is at most one half.

    Attributes:
        learns_from: Labels to train on after warm-up: `all`, or those `selected` by a mixture that is fitted before
            each epoch, as in the published code of DeFT.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(64, seed=0)
        >>> images = ls.load_images(drawn, labels=labels, class_names=CLASS_NAMES)
        >>> images = ls.inject(images, kind="symmetric", rate=0.25)
        >>> detector = ls.GMM(epochs=2, min_steps=0, peft="none")
        >>> verdicts = ls.scan(images, ls.load_vlm(MINI_CLIP), detector=detector)
        >>> verdicts.metrics["auroc"] > 0.9
        True
    """

    learns_from: Literal["selected", "all"] = "selected"

    @property
    def evaluates_before_epochs(self) -> bool:
        """Whether the mixture is fitted again before each epoch after warm-up."""
        return self.learns_from == "selected"

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.detect.mixture import small_mean_posterior
        from labelsieve.detect.training.cross_entropy import (
            CrossEntropyObjective,
            SmallComponent,
            losses_of,
            train_and_score,
        )

        return train_and_score(
            self,
            inputs,
            objective=SmallComponent if self.learns_from == "selected" else CrossEntropyObjective,
            rule=lambda probability: {"quality": small_mean_posterior(losses_of(probability))},
        )
