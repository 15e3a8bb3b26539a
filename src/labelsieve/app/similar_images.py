"""Which images look alike, and which classes an image looks like: from the features that the scan has kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.images import LabelledImages
from labelsieve.verdicts import Verdicts
from labelsieve.vlm.feature_cache import feature_stem, read_features

# Features are reduced to so many directions: a query among 100,000 images then takes some milliseconds.
_DIRECTIONS = 96
# Images that the directions are found with, and rows that are projected at a time.
_SAMPLE, _BLOCK = 20_000, 8_192
# Classes that may be asked for at a time.
_MOST_ASKED = 10
# Nearest images that vote for the classes of an image.
_VOTERS = 20
_NONE: NDArray[np.int64] = np.zeros(0, dtype=np.int64)


def kept_features(images: LabelledImages, verdicts: Verdicts) -> NDArray[np.float32] | None:
    """Returns the features that the scan of a run has kept in the cache, (N, W); None if they are not there."""
    model, precision = verdicts.run.model.fingerprint, verdicts.run.precision
    if not model or not precision:
        return None
    found = read_features(feature_stem(images, model, precision), images)
    return None if found is None else found.pooled


class Looks:
    """What images look like; with no features at hand, what the verdicts alone say.

    Args:
        verdicts: Of N images.
        features: Shape (N, W), or None.
    """

    def __init__(self, verdicts: Verdicts, features: NDArray[np.float32] | None) -> None:
        self.verdicts = verdicts
        self.vectors = None if features is None else reduced(features, verdicts.is_readable)
        self._trust = np.nan_to_num(verdicts.label_quality, nan=0.0)
        self._by_class, self._starts = _examples_by_class(verdicts)
        sizes = np.bincount(verdicts.given, minlength=len(verdicts.class_names))
        self._largest_classes = _largest(sizes, _MOST_ASKED)
        self._means = None if self.vectors is None else _class_means(self.vectors, verdicts, self._trust)

    def classes(self, rows: Sequence[int], count: int) -> list[list[int]]:
        """Returns for each image the classes that it looks like most, the best first.

        Classes of the nearest images come first, each image with its p_clean as its weight, then those whose mean is
        near. Without features these are the classes that are most often confused with the given one.

        Args:
            rows: Images.
            count: How many classes at most.
        """
        vectors, means = self.vectors, self._means
        if vectors is None or means is None:
            return [self._confused(int(self.verdicts.given[row]), count) for row in rows]
        found = []
        for row, similarity in zip(rows, vectors[list(rows)] @ vectors.T, strict=True):
            similarity[row] = -np.inf
            near = _largest(similarity, _VOTERS)
            weights = self._trust[near] * np.maximum(similarity[near], 0.0)
            votes = np.bincount(self.verdicts.given[near], weights=weights, minlength=1)
            voted = [int(each) for each in np.argsort(-votes, kind="stable")[:count] if votes[each] > 0]
            like = map(int, _largest(means @ vectors[row], count))
            found.append(list(dict.fromkeys([*voted, *like]))[:count])
        return found

    def examples(self, row: int, label: int, count: int) -> list[int]:
        """Returns images of a class beside an image: the nearest ones that are not flagged, without the image itself.

        Without features these are the images whose label is surest.
        """
        rows = self._by_class[self._starts[label] : self._starts[label + 1]]
        rows = rows[rows != row]
        return [int(each) for each in self.nearest(row, rows, count)]

    def nearest(self, row: int, among: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Returns those of some images that are nearest to an image, the nearest first; without features the first."""
        if self.vectors is None or len(among) < 2:
            return among[:count]
        return np.asarray(among[_largest(self.vectors[among] @ self.vectors[row], count)])

    def _confused(self, given: int, count: int) -> list[int]:
        """Returns the classes that are most often suggested for flagged images of a class, then the largest ones."""
        chosen = self.verdicts.is_issue & (self.verdicts.given == given) & (self.verdicts.predicted != given)
        suggested, counts = np.unique(self.verdicts.predicted[chosen], return_counts=True)
        confused = suggested[np.argsort(-counts, kind="stable")][:count]
        return [int(each) for each in dict.fromkeys([*confused, *self._largest_classes])][:count]


def reduced(features: NDArray[np.float32], is_readable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns features as unit vectors of their main directions about their mean, (N, D); unreadable rows are zero.

    Args:
        features: Shape (N, W); they may be mapped from the disk.
        is_readable: Shape (N,).
    """
    rows = np.flatnonzero(is_readable)
    if not len(rows):
        return np.zeros((len(features), 1), dtype=np.float32)
    sample = np.sort(np.random.default_rng(0).permutation(rows)[:_SAMPLE])
    known = np.asarray(features[sample], dtype=np.float32)
    mean = known.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(known - mean, rowvar=False, bias=True).reshape(known.shape[1], -1))
    directions = directions[:, ::-1][:, :_DIRECTIONS].astype(np.float32)
    found = np.zeros((len(features), directions.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        found[block] = _unit((np.asarray(features[block], dtype=np.float32) - mean) @ directions)
    return found


def _class_means(vectors: NDArray[np.float32], verdicts: Verdicts, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the weighted mean of each class as a unit vector, (K, D); zero for a class without images."""
    order = np.argsort(verdicts.given, kind="stable")
    present, first = np.unique(verdicts.given[order], return_index=True)
    means = np.zeros((len(verdicts.class_names), vectors.shape[1]), dtype=np.float32)
    means[present] = np.add.reduceat(vectors[order] * weights[order, None], first, axis=0)
    return _unit(means)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def _largest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Returns the indices of the largest values, the largest first."""
    count = min(count, len(values))
    if not count:
        return _NONE
    chosen = np.argpartition(-values, count - 1)[:count]
    return np.asarray(chosen[np.argsort(-values[chosen], kind="stable")])


def _examples_by_class(verdicts: Verdicts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns rows that may stand for their class, sorted by class, the surest first, and where each class starts."""
    rows = np.flatnonzero(verdicts.is_readable & ~verdicts.is_issue)
    given = verdicts.given[rows]
    rows = rows[np.lexsort((-verdicts.label_quality[rows], given))]
    return rows, np.searchsorted(verdicts.given[rows], np.arange(len(verdicts.class_names) + 1))
