"""Evidence from windows of images: a class is in an image if it is in one of its views, the whole image or a window.

Windows are a grid of crops, in which small objects appear large. It is unknown which view shows a class: this is
multiple-instance learning (Dietterich et al., Artificial Intelligence 1997). For a class, each view is weighted by its
share of the image's zero-shot odds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from labelsieve.data.boxes import Boxes
from labelsieve.data.images import Images
from labelsieve.detect.chunks import SUM_CHUNK
from labelsieve.detect.tags.evidence import Kind, fit_against_rest
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.vlm.features import image_features

# Log-odds of every class in a window with too few pixels.
_NOTHING = -1e4


@dataclass(frozen=True, eq=False)
class Views:
    """T views of each of n readable images, the whole image and its windows, as an array (n T, W) of features.

    Attributes:
        pairs: The images.
        parts: Features of the windows before the projection, (N, T - 1, W), memory-mapped.
        blank: Shape (N, T - 1), bool: windows with too few pixels to show anything.
    """

    pairs: TagInputs
    parts: NDArray[np.float32]
    blank: NDArray[np.bool_]

    @cached_property
    def zero_shot(self) -> Tensor:
        """Log of the sum of the zero-shot odds over the views of each image, (n, K). Needs texts."""
        return self.joined(self.logits)

    @property
    def count(self) -> int:
        """T."""
        return int(self.blank.shape[1]) + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """N T and W."""
        return len(self.pairs.given) * self.count, self.parts.shape[2]

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:
        """Returns the features of some views, (m, W)."""
        positions, place = np.unique(rows // self.count, return_inverse=True)
        features: NDArray[np.float32] = self.of(positions)[place, rows % self.count]
        return features

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the features of all views of the images at m positions, (m, T, W)."""
        rows = self.pairs.images.rows[positions]
        return np.concatenate([self.pairs.images.features.pooled[rows][:, None], self.parts[rows]], axis=1)

    @torch.no_grad()
    def logits(self, positions: NDArray[np.int64]) -> Tensor:
        """Returns zero-shot log-odds of each class against all others, (m, T, K), on the CPU. Needs texts."""
        images = self.pairs.images
        views = torch.from_numpy(self.of(positions)).to(images.device).flatten(0, 1)
        cosines = normalize(images.project(views), dim=-1) @ images.texts.T
        log_p = (images.logit_scale * cosines).log_softmax(dim=-1).float().cpu().clamp(max=-1e-6)
        odds = log_p - (-log_p.expm1()).log()
        return self.without_blank(odds.unflatten(0, (len(positions), self.count)), positions)

    def without_blank(self, logits: Tensor, positions: NDArray[np.int64]) -> Tensor:
        """Sets the logits of blank windows, (m, T, K), to a very low value in place, and returns them."""
        blank = torch.from_numpy(self.blank[self.pairs.images.rows[positions]])
        logits[:, 1:][blank] = _NOTHING
        return logits

    def joined(self, logits: Callable[[NDArray[np.int64]], Tensor]) -> Tensor:
        """Returns the log of the summed odds over the views of each image, (n, K), from log-odds (m, T, K)."""
        every, step = np.arange(len(self.pairs.given)), max(1, SUM_CHUNK // self.count)
        return torch.cat([logits(every[at : at + step]).logsumexp(dim=1) for at in range(0, len(every), step)])


def in_windows(images: Images, finest: int) -> Images:
    """Returns all windows of all images, each as a separate image.

    Grid g, for g = 2, 3, ..., has g² windows whose sides are 1/g of the image's. An object on the border of one grid is
    mostly complete in another.

    Args:
        images: N images.
        finest: The last grid, at least 2.

    Returns:
        The 4 + 9 + ... windows of each image in consecutive rows, so that each image is decoded only once. Windows have
        the ids of their images, so that several rows have the same id.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> pixels = np.zeros((2, 60, 90, 3), dtype=np.uint8)
        >>> windows = in_windows(ls.load_tags(pixels, tags=[["cat", "dog"], []]), 3)
        >>> len(windows), windows.open(0).size, windows.open(12).size
        (26, (45, 30), (30, 20))
    """
    corners = [
        (left / grid, top / grid, 1 / grid, 1 / grid)
        for grid in range(2, finest + 1)
        for top in range(grid)
        for left in range(grid)
    ]
    rows = np.repeat(np.arange(len(images)), len(corners))
    sides = np.tile(np.array(corners, dtype=np.float64).reshape(-1, 4), (len(images), 1))
    return Images(
        dataset=images.dataset.select(rows),
        ids=tuple(images.ids[row] for row in rows.tolist()),
        contents=images.contents[rows],
        ranges=images.ranges,
        boxes=Boxes(sides=sides, image_of=rows, is_relative=True, margin=0.0),
        as_pipeline=images.as_pipeline,
    )


def views_of(pairs: TagInputs, finest: int) -> Views | None:
    """Encodes all windows of all images; their features are cached like those of images.

    Args:
        pairs: The images.
        finest: The finest grid of windows, see :func:`in_windows`; 1 for no windows.

    Returns:
        The views, or None without windows, images or texts: without texts, nothing says what a window shows.
    """
    images, source = pairs.images, pairs.source
    if finest < 2 or source is None or images.vlm is None or images.text is None:
        return None
    features = image_features(in_windows(source, finest), images.vlm, engine=images.engine)
    blank = np.zeros(len(features.pooled), dtype=bool)
    blank[list(features.errors)] = True
    parts = features.pooled.reshape(len(source), -1, features.pooled.shape[1])
    return Views(pairs, parts, blank.reshape(parts.shape[:2]))


def zero_shot_of_views(views: Views) -> Kind:
    """Returns the summed zero-shot odds of the views of an image as a kind of evidence."""
    return _kind(views.zero_shot)


def discriminant_of_views(views: Views, weights: Tensor, fold_ids: NDArray[np.int64], *, shrinkage: float) -> Kind:
    """Returns the out-of-fold evidence of discriminants of each class against the rest, fitted to views.

    Args:
        views: The views.
        weights: Weight of each class in each image, (n, K), float32, between 0 and 1.
        fold_ids: The fold of each readable image, (n,).
        shrinkage: Minimum weight of the identity in the covariance.
    """
    count, classes = views.count, weights.shape[1]

    def shares(rows: NDArray[np.int64]) -> Tensor:
        positions, place = np.unique(rows // count, return_inverse=True)
        images = torch.from_numpy(positions)
        odds = (views.logits(positions) - views.zero_shot[images, None]).exp() * weights[images, None]
        return odds[torch.from_numpy(place), torch.from_numpy(rows % count)]

    folds = np.repeat(fold_ids, count)
    (fitted,) = fit_against_rest(views, shares, folds, shrinkages=(shrinkage,), classes=classes)

    def logits(positions: NDArray[np.int64]) -> Tensor:
        rows = (positions[:, None] * count + np.arange(count)).ravel()
        features = torch.from_numpy(views.of(positions)).flatten(0, 1)
        return views.without_blank(fitted.logits(rows, features).unflatten(0, (len(positions), count)), positions)

    return _kind(views.joined(logits))


def _kind(logits: Tensor) -> Kind:
    """Returns logits (n, K), minus the mean of each class, as a kind of evidence."""
    mean = logits.mean(dim=0)
    return lambda positions: logits[torch.from_numpy(positions)] - mean
