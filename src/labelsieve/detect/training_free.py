"""Joint evidence without training: what carries the default of DeFT, on features alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labelsieve.detect.base import FeatureDetector
from labelsieve.detect.settings import check_fields, check_least

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from labelsieve.detect.base import Scores
    from labelsieve.detect.view import FeatureView
    from labelsieve.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Joint(FeatureDetector):
    """Joins the untrained model and an out-of-fold discriminant on the image features into one posterior.

    The default of `deft` without the learned prompts: see `labelsieve.detect.joint` for the posterior and where it is
    flagged. Works without class texts too, on the discriminant alone.

    Attributes:
        folds: Number of parts for the out-of-fold discriminant, at least 2.
    """

    folds: int = 5

    def __post_init__(self) -> None:
        check_fields(self)
        check_least(self, folds=2)

    def score_features(self, view: FeatureView, *, engine: Engine) -> Scores:
        """Scores every row; see :class:`labelsieve.detect.base.FeatureDetector`."""
        import torch

        from labelsieve.detect.discriminant import fit_discriminants
        from labelsieve.detect.dual import FOLDS, SAMPLE
        from labelsieve.detect.joint import judge_jointly

        discriminants = fit_discriminants(
            view.features.pooled,
            view.labels,
            rows=view.rows,
            classes=view.classes,
            folds=self.folds,
            generator=engine.generator(FOLDS),
        )
        texts = view.text is not None

        @torch.no_grad()
        def evidence(rows: NDArray[np.int64]) -> Tensor:
            features = view.pooled(rows)
            plain, smoothed = (each.logits(rows, features) for each in discriminants)
            return torch.stack([view.logits(rows), plain, smoothed] if texts else [smoothed]).float().cpu()

        judged = judge_jointly(
            evidence,
            view.labels,
            rows=view.rows,
            classes=view.classes,
            least=LEAST_WEIGHTS if texts else LEAST_WEIGHT_ALONE,
            generator=engine.generator(SAMPLE),
        )
        return view.scores(**judged._asdict())


# As for deft: only the untrained model has not learned from the labels, so it is believed whatever they say.
LEAST_WEIGHTS = {"zero-shot": 1.0, "image features": 0.0, "smoothed features": 0.0}
# Without it the discriminant has to stand in at its own scale: free to blur, it would explain pair and
# instance-dependent noise as doubt and flag next to nothing.
LEAST_WEIGHT_ALONE = {"smoothed features": 1.0}
