"""GMM: a two-component Gaussian mixture on the loss of each image (Arazo et al., ICML 2019; Li et al., ICLR 2020)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.detect.settings import Training

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.detect.base import Scores
    from labelsieve.engine import Engine
    from labelsieve.vlm.base import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class GMM(Training):
    """Trains prompts with cross-entropy and splits the losses into two Gaussians.

    Quality is the posterior of the component with the smaller mean; a label is an issue where it is at most one half.

    Attributes:
        learns_from: Which labels training learns from after warm-up: those that are `selected` by a mixture that is
            fitted anew before each epoch, as in the published code of DeFT; or `all`.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.drawings import CLASS_NAMES, drawings
        >>> drawn, labels = drawings(64, seed=0)
        >>> images = ls.load_images(drawn, labels=labels, class_names=CLASS_NAMES)
        >>> images = ls.inject(images, kind="symmetric", rate=0.25)
        >>> detector = ls.GMM(epochs=2, min_steps=0, peft="none")
        >>> verdicts = ls.scan(images, ls.load_vlm(MINI_CLIP), detector=detector)
        >>> verdicts.metrics["auroc"] > 0.9
        True
    """

    learns_from: Literal["selected", "all"] = "selected"

    @property
    def looks_before_epochs(self) -> bool:
        """Whether the mixture is fitted anew before each epoch after warm-up."""
        return self.learns_from == "selected"

    def score(
        self,
        images: LabelledImages,
        vlm: VisionLanguageModel,
        *,
        engine: Engine,
        test: LabelledImages | None = None,
    ) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.TestableDetector`."""
        from labelsieve.detect.plain import PlainObjective, SmallComponent, losses_of, train_plainly

        objective = SmallComponent if self.learns_from == "selected" else PlainObjective
        result = train_plainly(self, images, vlm, engine=engine, test=test, objective=objective)
        return result.scores(quality=small_mean_posterior(losses_of(result.quality)))


def small_mean_posterior(losses: Any) -> Any:
    """Returns the posterior of the component with the smaller mean, (N,), between 0 and 1.

    Losses are brought to [0, 1] first; settings of the mixture as in DivideMix (Li et al., ICLR 2020): at most 10
    iterations, tolerance 1e-2, covariance regularised by 5e-4. Losses that are all equal are all clean.

    Args:
        losses: (N,), not negative.
    """
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    values = np.asarray(losses, dtype=np.float64)
    span = float(np.ptp(values)) if values.size else 0.0
    if values.size < 2 or span == 0:
        return np.ones_like(values)
    column = ((values - values.min()) / span)[:, None]
    mixture = GaussianMixture(n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    with warnings.catch_warnings():  # the method stops after ten iterations, whether they were enough or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(column)
    return mixture.predict_proba(column)[:, mixture.means_[:, 0].argmin()]
