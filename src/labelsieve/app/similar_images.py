"""Similar images and classes of an image, from the cached features of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.data.images import LabelledImages
from labelsieve.verdicts import Verdicts
from labelsieve.vlm.feature_cache import feature_stem, read_features

# Number of principal components: a query among 100,000 images then takes some milliseconds.
_DIRECTIONS = 96
# Number of images to fit the components, and of rows that are projected at a time.
_SAMPLE, _BLOCK = 20_000, 8_192
# Maximum number of classes of an image.
_MAX_CLASSES = 10
# Number of nearest neighbours that vote for the classes of an image.
_NEIGHBOURS = 20
_NONE: NDArray[np.int64] = np.zeros(0, dtype=np.int64)


def cached_features(images: LabelledImages, verdicts: Verdicts) -> NDArray[np.float32] | None:
    """Returns the features that the scan of a run has cached, (N, W); None if there are none."""
    model, precision = verdicts.run.model.fingerprint, verdicts.run.precision
    if not model or not precision:
        return None
    features = read_features(feature_stem(images, model, precision), images)
    return None if features is None else features.pooled


class SimilarityIndex:
    """Similarity of images and classes by features or, without features, by the verdicts.

    Args:
        verdicts: Of N images.
        features: Shape (N, W), or None.
    """

    def __init__(self, verdicts: Verdicts, features: NDArray[np.float32] | None) -> None:
        self.verdicts = verdicts
        self.vectors = None if features is None else project_features(features, verdicts.is_readable)
        self._suggestions = verdicts.suggestions()
        self._weights = np.nan_to_num(verdicts.label_quality, nan=0.0)
        self._by_class, self._starts = _examples_by_class(verdicts)
        sizes = np.bincount(verdicts.given, minlength=len(verdicts.class_names))
        self._largest_classes = _largest(sizes, _MAX_CLASSES)
        self._means = None if self.vectors is None else _class_means(self.vectors, verdicts, self._weights)

    def classes(self, rows: Sequence[int], count: int) -> list[list[int]]:
        """Returns the most similar classes of each image, the most similar first.

        Classes of the nearest images come first, weighted by p_clean, then those with the nearest mean. Without
        features these are the classes that are most often confused with the given one.

        Args:
            rows: The images.
            count: Maximum number of classes.
        """
        vectors, means = self.vectors, self._means
        if vectors is None or means is None:
            return [self._confused(int(self.verdicts.given[row]), count) for row in rows]
        classes_of_rows = []
        for row, similarity in zip(rows, vectors[list(rows)] @ vectors.T, strict=True):
            similarity[row] = -np.inf
            nearest = _largest(similarity, _NEIGHBOURS)
            weights = self._weights[nearest] * np.maximum(similarity[nearest], 0.0)
            votes = np.bincount(self.verdicts.given[nearest], weights=weights, minlength=1)
            by_votes = [int(each) for each in np.argsort(-votes, kind="stable")[:count] if votes[each] > 0]
            by_means = map(int, _largest(means @ vectors[row], count))
            classes_of_rows.append(list(dict.fromkeys([*by_votes, *by_means]))[:count])
        return classes_of_rows

    def examples(self, row: int, label: int, count: int) -> list[int]:
        """Returns example images of a class: the nearest unflagged ones to an image, without the image itself.

        Without features these are the images with the highest p_clean.

        Args:
            row: The image.
            label: Index of the class.
            count: Maximum number of examples.
        """
        rows = self._by_class[self._starts[label] : self._starts[label + 1]]
        rows = rows[rows != row]
        return [int(each) for each in self.nearest(row, rows, count)]

    def nearest(self, row: int, candidates: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Returns the nearest candidates of an image, the nearest first; without features the first candidates.

        Args:
            row: The image.
            candidates: Rows of images, shape (M,).
            count: Maximum number of candidates to return.
        """
        if self.vectors is None or len(candidates) < 2:
            return candidates[:count]
        return np.asarray(candidates[_largest(self.vectors[candidates] @ self.vectors[row], count)])

    def _confused(self, given: int, count: int) -> list[int]:
        """Returns the classes that are most often suggested for flagged images of a class, then the largest ones."""
        labels, suggested, counts = self._suggestions
        of_class = labels == given
        confused = suggested[of_class][np.argsort(-counts[of_class], kind="stable")][:count]
        return [int(each) for each in dict.fromkeys([*confused, *self._largest_classes])][:count]


def project_features(features: NDArray[np.float32], is_readable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Projects features to their principal components, as unit vectors (N, D); unreadable rows are zero.

    Args:
        features: Shape (N, W), may be memory-mapped.
        is_readable: Shape (N,).
    """
    rows = np.flatnonzero(is_readable)
    if not len(rows):
        return np.zeros((len(features), 1), dtype=np.float32)
    sample = np.sort(np.random.default_rng(0).permutation(rows)[:_SAMPLE])
    values = np.asarray(features[sample], dtype=np.float32)
    mean = values.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(values - mean, rowvar=False, bias=True).reshape(values.shape[1], -1))
    directions = directions[:, ::-1][:, :_DIRECTIONS].astype(np.float32)
    vectors = np.zeros((len(features), directions.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        vectors[block] = _unit((np.asarray(features[block], dtype=np.float32) - mean) @ directions)
    return vectors


def _class_means(vectors: NDArray[np.float32], verdicts: Verdicts, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the weighted mean of each class as a unit vector, (K, D); zero for a class without images."""
    order = np.argsort(verdicts.given, kind="stable")
    labels, first = np.unique(verdicts.given[order], return_index=True)
    means = np.zeros((len(verdicts.class_names), vectors.shape[1]), dtype=np.float32)
    means[labels] = np.add.reduceat(vectors[order] * weights[order, None], first, axis=0)
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
    """Returns example rows, sorted by class and descending p_clean, and the start of each class."""
    rows = np.flatnonzero(verdicts.is_readable & ~verdicts.is_issue)
    given = verdicts.given[rows]
    rows = rows[np.lexsort((-verdicts.label_quality[rows], given))]
    return rows, np.searchsorted(verdicts.given[rows], np.arange(len(verdicts.class_names) + 1))
