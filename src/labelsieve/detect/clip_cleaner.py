"""CLIPCleaner: a label is clean if a zero-shot and a fitted classifier both select it (Feng et al., ACM MM 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from labelsieve.core.validation import Range
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores

    LogProbability = Callable[[NDArray[np.int64]], Tensor]


@dataclass(frozen=True, kw_only=True)
class CLIPCleaner(Detector):
    """Selects the labels that two estimates of p(y | x) consider clean, both by loss and by consistency.

    One estimate is the zero-shot model, the other a logistic regression on the normalised image features, fitted to all
    given labels. Each selects by the loss, if `log p_y` belongs to the upper of two Gaussians fitted within the class,
    and by consistency, if `p_y / max_k p_k` is large enough. A label is an issue unless all of these selections contain
    it (Feng, Tzimiropoulos and Patras, *CLIPCleaner: Cleaning Noisy Labels with CLIP*, ACM Multimedia 2024, arXiv
    2408.10012). Quality is the mean of the estimates of p_y, because the paper only selects and has no ranking.

    Attributes:
        estimate: `both`, as in the published code, or only one of them: `zero-shot` or `classifier`.
        minimum_posterior: θ_gmm, the minimum posterior of the upper Gaussian; 0 selects all.
        minimum_consistency: θ_cons, the minimum ratio `p_y / max_k p_k`; 0 selects all.
        temperature: Of the zero-shot probabilities, 0.07 in the published code; `model` is the model's own.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> features = ls.load_features(points, labels=labels).with_text(np.eye(4), logit_scale=20)
        >>> verdicts = ls.scan(features, detector=ls.CLIPCleaner())
        >>> sorted(verdicts.label_quality.argsort()[:2].tolist())  # the two of lowest quality
        [0, 1]
    """

    estimate: Literal["both", "zero-shot", "classifier"] = "both"
    minimum_posterior: Annotated[float, Range(0, 1)] = 0.5
    minimum_consistency: Annotated[float, Range(0, 1)] = 0.8
    temperature: Annotated[float, Range(0.0001, 10)] | Literal["model"] = 0.07
    requires = frozenset({"text"})

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import numpy as np

        from labelsieve.detect.chunks import in_chunks

        estimates = self._estimates(inputs)
        # predicted class, its probability and that of the label; then log p_y and consistency of each estimate
        predicted, confidence, quality, *measures = in_chunks(
            lambda rows: _measures([estimate(rows) for estimate in estimates], inputs.labels[rows]),
            inputs.rows,
            progress=inputs.progress,
        )
        clean = np.ones(len(inputs.rows), dtype=bool)
        for log_probability, consistency in zip(measures[::2], measures[1::2], strict=True):
            clean &= self._selected(log_probability, consistency, inputs.given)
        return inputs.scores(quality=quality, predicted=predicted, confidence=confidence, issue=~clean)

    def _estimates(self, inputs: DetectorInputs) -> list[LogProbability]:
        """Returns functions from m row numbers to log p_k(x), (m, K)."""
        import torch

        from labelsieve.detect.softmax_regression import fit_balanced

        scale = 1.0 if self.temperature == "model" else 1 / (self.temperature * inputs.logit_scale)
        estimates: list[LogProbability] = []
        if self.estimate != "classifier":
            estimates.append(lambda rows: (inputs.logits(rows).double().cpu() * scale).log_softmax(dim=1))
        if self.estimate != "zero-shot":
            labels = torch.from_numpy(inputs.given)
            fitted = fit_balanced(inputs.all_joint().cpu(), labels, classes=inputs.classes, progress=inputs.progress)
            estimates.append(lambda rows: fitted.log_probability(inputs.joint(rows).cpu()))
        return estimates

    def _selected(
        self, log_probability: NDArray[np.float64], consistency: NDArray[np.float64], given: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        from labelsieve.detect.mixture import upper_posterior_by_class

        posterior = upper_posterior_by_class(log_probability, given)
        return (posterior >= self.minimum_posterior) & (consistency >= self.minimum_consistency)


def _measures(estimates: Sequence[Tensor], labels: NDArray[np.int64]) -> list[Tensor]:
    """Returns the measures of n rows from log p_k(x), (n, K), of each estimate."""
    import torch

    column = torch.from_numpy(labels)[:, None]
    mean = sum(each.exp() for each in estimates) / len(estimates)
    confidence, predicted = torch.as_tensor(mean).max(dim=1)
    measures = [predicted, confidence, torch.as_tensor(mean).gather(1, column)[:, 0]]
    for each in estimates:
        of_label = each.gather(1, column)[:, 0]
        measures += [of_label, (of_label - each.amax(dim=1)).exp()]
    return measures
