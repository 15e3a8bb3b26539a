"""LEMoN: label errors by multimodal neighbours (Zhang et al., ICML 2025, arXiv 2407.18941).

In classification, all images of a class are equally near in text space, and the published code takes the first ones.
Here s_m is the mean over all choices among equally near images: it does not depend on the order of the images and needs
no N times N distances. If a class has fewer than k other images, those of the class with the next nearest text follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labelsieve.core.validation import NeighbourCount, Weight
from labelsieve.detect.base import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from labelsieve.detect.inputs import DetectorInputs
    from labelsieve.detect.neighbours import Neighbours
    from labelsieve.detect.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Lemon(Detector):
    """Ranks labels by the distance of image and class text, and by their distances to neighbours in both spaces.

    The score is `s = d_mm + beta s_n + gamma s_m` (section 3), higher = more suspicious. Let x and y be the normalised
    features of an image and its label in the joint space, and d the cosine distance `1 - cos`:

    * `d_mm(x, y) = d(x, y)`,
    * `s_n = 1/k Σ_j d_Y(y, y_j) exp(-τ_1 d(x, x_j)) exp(-τ_2 d_mm(x_j, y_j))` over the k nearest images j,
    * `s_m = 1/k Σ_j d(x, x_j) exp(-τ_1 d(y, y_j)) exp(-τ_2 d_mm(x_j, y_j))` over the k nearest labels j.

    The defaults are the fixed hyper-parameters of the paper for data without validation labels. For such data the paper
    has no threshold. Here two Gaussians with a common variance are fitted to the scores. Quality is the posterior of
    the lower one, which ranks exactly as the score does; a label is an issue if it is at most one half.

    Attributes:
        neighbours: k, at least 1; small data have fewer.
        beta: Weight of the neighbours in image space.
        gamma: Weight of the neighbours in text space.
        distance_decay: Decay of the weight of a neighbour with its distance: τ_1,n and τ_1,m.
        pair_decay: Decay of the weight of a neighbour with the distance of its own image and label: τ_2,n and τ_2,m.
        text_distance: Distance of two labels in s_n: `discrete` is 0 or 1, as in the published code for classes;
            `cosine` is the cosine distance of their texts.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> points = np.repeat(np.eye(4), 25, axis=0) + np.random.default_rng(0).normal(scale=0.15, size=(100, 4))
        >>> labels = np.repeat(["cat", "dog", "fox", "owl"], 25)
        >>> labels[:2] = "dog"
        >>> features = ls.load_features(points, labels=labels).with_text(np.eye(4), logit_scale=20)
        >>> verdicts = ls.scan(features, detector=ls.Lemon(neighbours=10))
        >>> verdicts.is_issue.nonzero()[0].tolist()
        [0, 1]
    """

    neighbours: NeighbourCount = 30
    beta: Weight = 5.0
    gamma: Weight = 5.0
    distance_decay: Weight = 0.1
    pair_decay: Weight = 5.0
    text_distance: Literal["discrete", "cosine"] = "discrete"
    requires = frozenset({"text"})

    def score(self, inputs: DetectorInputs) -> Scores:
        """Scores every image; see :class:`labelsieve.detect.base.Detector`."""
        from labelsieve.detect.mixture import upper_posterior

        score = multimodal_score(self, inputs)
        first = inputs.zero_shot
        return inputs.scores(quality=upper_posterior(-score), predicted=first.predicted, confidence=first.confidence)


def multimodal_score(settings: Lemon, inputs: DetectorInputs) -> NDArray[np.float64]:
    """Returns s of the readable rows, (n,), higher = more suspicious."""
    import torch

    from labelsieve.detect.neighbours import nearest

    image, labels = inputs.all_joint(), torch.from_numpy(inputs.given)
    neighbours = nearest(image, k=settings.neighbours, progress=inputs.progress)
    image, text = image.cpu(), inputs.texts.cpu().double()  # images stay in float32 to save memory
    pair = 1 - torch.cat([(image[rows].double() * text[labels[rows]]).sum(dim=1) for rows in _chunks(len(labels))])
    weight = torch.exp(-settings.pair_decay * pair)
    s_n = torch.cat([_image_space(settings, neighbours, rows, labels, weight, text) for rows in _chunks(len(labels))])
    s_m = _text_space(settings, image, labels, weight, text, k=neighbours.rows.shape[1])
    return (pair + settings.beta * s_n + settings.gamma * s_m).numpy()


def _chunks(count: int) -> Iterator[Tensor]:
    import torch

    from labelsieve.detect.chunks import CHUNK

    return iter(torch.arange(count).split(CHUNK))


def _image_space(
    settings: Lemon, neighbours: Neighbours, rows: Tensor, labels: Tensor, weight: Tensor, text: Tensor
) -> Tensor:
    """Returns s_n of some rows."""
    import torch

    index = neighbours.rows[rows]
    if not index.shape[1]:
        return torch.zeros(len(rows), dtype=torch.float64)
    label, neighbour_labels = labels[rows], labels[index]
    if settings.text_distance == "discrete":
        distance = (neighbour_labels != label[:, None]).double()
    else:
        distance = (1 - text[label] @ text.T).gather(1, neighbour_labels)
    near = torch.exp(-settings.distance_decay * (1 - neighbours.similarity[rows].double()))
    return (distance * near * weight[index]).mean(dim=1)


def _text_space(settings: Lemon, image: Tensor, labels: Tensor, weight: Tensor, text: Tensor, *, k: int) -> Tensor:
    """Returns s_m of all rows from sums over classes: Σ_j w_j (1 - x·x_j) = Σ_j w_j - x·Σ_j w_j x_j."""
    import torch

    counts = torch.bincount(labels, minlength=len(text))
    weights = torch.zeros(len(text), dtype=torch.float64).index_add_(0, labels, weight)
    sums = torch.zeros_like(text)
    for part in _chunks(len(labels)):
        sums.index_add_(0, labels[part], weight[part, None] * image[part].double())
    result = torch.zeros(len(labels), dtype=torch.float64)
    by_class = labels.argsort(stable=True).split(counts.tolist())
    for label in counts.nonzero()[:, 0].tolist() if k else ():
        rows = by_class[label]
        features = image[rows].double()
        for other, share, distance in _nearest_labels(label, counts, text, k=k):
            far = weights[other] - features @ sums[other]
            if other == label:  # without the row itself
                far = far - weight[rows] * (1 - features.square().sum(dim=1))
            result[rows] += share / k * math.exp(-settings.distance_decay * distance) * far
    return result


def _nearest_labels(label: int, counts: Tensor, text: Tensor, *, k: int) -> Iterator[tuple[int, float, float]]:
    """Yields the classes of the k nearest labels of a row of a class.

    Each comes with the share of its available images that are among the k nearest, and with the distance of its text.
    """
    offered, left = int(counts[label]) - 1, k
    if offered:
        taken = min(left, offered)
        yield label, taken / offered, 0.0
        left -= taken
    if not left:
        return
    distance = 1 - text @ text[label]
    for other in distance.argsort(stable=True).tolist():
        offered = int(counts[other])
        if other == label or not offered:
            continue
        taken = min(left, offered)
        yield other, taken / offered, float(distance[other])
        left -= taken
        if not left:
            return
