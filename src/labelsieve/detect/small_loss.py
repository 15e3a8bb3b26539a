"""Small-loss: the labels with the largest loss are wrong, as many as the noise rate says (Han et al., NeurIPS 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from labelsieve.detect.settings import Training
from labelsieve.validation import Rate

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.detect.base import Scores
    from labelsieve.engine import Engine
    from labelsieve.vlm.base import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class SmallLoss(Training):
    """Trains prompts with cross-entropy and flags the share with the largest loss.

    Quality is exp(-loss), the probability of the given label.

    Attributes:
        noise_rate: Share of wrong labels, at least 0 and below 1: it has to be known.
        learns_from: Which labels training learns from: those that are `selected`, in each batch the ones with the
            smallest losses, where the share that is left out rises to the noise rate during warm-up, as in co-teaching
            with one net and in the published code of DeFT; or `all`.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.drawings import CLASS_NAMES, drawings
        >>> drawn, labels = drawings(64, seed=0)
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

    def score(
        self,
        images: LabelledImages,
        vlm: VisionLanguageModel,
        *,
        engine: Engine,
        test: LabelledImages | None = None,
    ) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.TestableDetector`."""
        import numpy as np

        from labelsieve.detect.plain import PlainObjective, SmallestLosses, train_plainly

        selecting = partial(SmallestLosses, noise_rate=self.noise_rate)
        objective = selecting if self.learns_from == "selected" else PlainObjective
        result = train_plainly(self, images, vlm, engine=engine, test=test, objective=objective)
        count = round(self.noise_rate * len(result.quality))
        issue = np.zeros(len(result.quality), dtype=bool)
        # named one by one: the threshold is a rank, and no probability to compare with others; copies of a picture have
        # equal losses, and the first of them go first
        issue[np.argsort(result.quality, kind="stable")[:count]] = True
        return result.scores(quality=result.quality, issue=issue)
