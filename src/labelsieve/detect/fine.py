"""FINE: alignment of each image with the principal direction of its class (Kim et al., NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from labelsieve.core.validation import Range
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from labelsieve.core.progress import Progress
    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class FINE(Detector):
    """Fits two Gaussians per class to the alignment of its images with the first eigenvector of its gram matrix.

    The direction of class k is the eigenvector u_k with the largest eigenvalue of `Σ_k = Σ_{i: y_i = k} x_i x_iᵀ`, with
    normalised features x. The alignment of an image is `⟨u_y, x⟩²` (Kim et al., *FINE Samples for Learning with Noisy
    Labels*, NeurIPS 2021, arXiv 2102.11628). Quality is the alignment. A label is an issue if the posterior of the
    Gaussian with the larger mean is at most `minimum_posterior`. Trains nothing and needs no class texts.

    Attributes:
        minimum_posterior: Posterior above which a label is clean, 0.5 in the published code.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> verdicts = ls.scan(ls.load_features(points, labels=labels), detector=ls.FINE())
        >>> sorted(verdicts.label_quality.argsort()[:2].tolist())  # the two of lowest quality
        [0, 1]
    """

    minimum_posterior: Annotated[float, Range(0, 1)] = 0.5

    uses_text = False

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        import numpy as np
        import torch

        from labelsieve.detect.chunks import in_chunks
        from labelsieve.detect.mixture import upper_posterior_by_class

        vectors, given = inputs.all_joint().cpu(), torch.from_numpy(inputs.given)
        directions = principal_directions(vectors, inputs.given, classes=inputs.classes, progress=inputs.progress)
        absent = torch.bincount(given, minlength=inputs.classes) == 0

        def score_rows(rows: NDArray[np.int64]) -> list[Tensor]:
            alignment = (vectors[rows].double() @ directions.T).square().masked_fill(absent, -1.0)
            strongest = alignment.max(dim=1)
            return [alignment.gather(1, given[rows][:, None])[:, 0], strongest.indices, strongest.values]

        alignment, predicted, confidence = in_chunks(score_rows, np.arange(len(given)), progress=inputs.progress)
        issue = upper_posterior_by_class(alignment, inputs.given) <= self.minimum_posterior
        return inputs.scores(quality=alignment, predicted=predicted, confidence=confidence, issue=issue)


def principal_directions(vectors: Tensor, given: NDArray[np.int64], *, classes: int, progress: Progress) -> Tensor:
    """Returns the eigenvector with the largest eigenvalue of the gram matrix of each class, (K, D), of length 1.

    Args:
        vectors: Normalised features, (n, D), on the CPU.
        given: Given labels, (n,).
        classes: K; a class without images has a row of zeros.
        progress: Receives progress.
    """
    import torch

    from labelsieve.detect.chunks import rows_of_classes

    directions = torch.zeros(classes, vectors.shape[1], dtype=torch.float64)
    groups = rows_of_classes(given)
    with progress.task("finding directions", total=len(groups), unit="classes", brief=True) as advance:
        for rows in groups:
            directions[given[rows[0]]] = _principal_direction(vectors, rows)
            advance(1)
    return directions


def _principal_direction(vectors: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Returns the principal direction of some rows, (D,)."""
    import numpy as np
    import torch
    from scipy.linalg import eigh
    from torch.nn.functional import normalize

    from labelsieve.detect.chunks import CHUNK

    width = vectors.shape[1]
    if len(rows) < width:  # X Xᵀ is smaller than Xᵀ X and has the same nonzero eigenvalues
        unit = vectors[rows].double()
        _, weights = eigh((unit @ unit.T).numpy(), subset_by_index=[len(rows) - 1] * 2)
        return normalize(unit.T @ torch.from_numpy(weights[:, 0]), dim=0)
    gram = torch.zeros(width, width, dtype=torch.float64)
    for start in range(0, len(rows), CHUNK):
        unit = vectors[rows[start : start + CHUNK]].double()
        gram += unit.T @ unit
    _, directions = eigh(gram.numpy(), subset_by_index=[width - 1] * 2)
    return torch.from_numpy(np.ascontiguousarray(directions[:, 0]))
