"""Injects wrong labels, to evaluate detectors: symmetric, pair and instance-dependent noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelsieve.core.errors import DataError, SettingsError, did_you_mean, look_up, shown
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted
from labelsieve.core.validation import Rate, Seed, check_value
from labelsieve.data.images import LabelledImages, UnreadableImageError
from labelsieve.data.noise_kinds import NOISE, NoiseKind, kinds_for, kinds_for_features

if TYPE_CHECKING:
    from labelsieve.data.features import LabelledFeatures

_RowsT = TypeVar("_RowsT", LabelledImages, "LabelledFeatures")
# Side in pixels to which images are resized for instance-dependent noise, as in CIFAR.
FEATURE_SIDE = 32
_FLIP_STD, _CHUNK = 0.1, 256


def inject(
    images: _RowsT,
    *,
    kind: NoiseKind,
    rate: float,
    seed: int = 0,
    exact: bool = True,
    pairs: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> _RowsT:
    """Replaces labels with wrong ones. The same arguments always give the same labels.

    * `symmetric`: to any other class, all equally likely. With `exact=False` as in common benchmarks (and the code of
      DeFT, Wei et al., NeurIPS 2024): each image gets, with probability `rate`, one of all K classes, including its
      own, so that the share of wrong labels is about `rate * (K - 1) / K`.
    * `pair`: to the next class, the last to the first, or as defined by `pairs`.
    * `instance`: depends on the pixels (Xia et al., NeurIPS 2020, Algorithm 2), see :func:`flip_rates` and
      :func:`transition_probabilities`. Images that cannot be read keep their label.

    Args:
        images: N images, or rows of features (not for instance noise); their given labels count as correct and become
            the `truth` of the result.
        kind: One of the kinds above.
        rate: Share of wrong labels, from 0 to below 1. Symmetric and pair noise change exactly `round(rate * N)`
            labels. Instance noise changes this number in expectation if `rate` is 0.2 to 0.8; outside this range, the
            truncation of flip rates at 0 and 1 matters: 0.05 gives 0.10, 0.1 gives 0.13, and 0.9 gives 0.87.
        seed: Random seed.
        exact: False draws each image independently. Instance noise always does.
        pairs: For pair noise: class name to the name it is mistaken for. Other classes stay clean, but count towards N.
        progress: Receives progress; instance noise opens every image.

    Returns:
        The same images with the noisy labels as given labels, and the previous labels as `truth`.

    Raises:
        SettingsError: `rate` is out of range or too high for the classes in `pairs`, or another argument is wrong.
        DataError: There are fewer than two classes.

    Example:
        >>> import numpy as np
        >>> import labelsieve as ls
        >>> features = ls.load_features(np.eye(6), labels=["cat", "dog", "owl"] * 2)
        >>> noisy = ls.inject(features, kind="pair", rate=0.5)
        >>> int((noisy.labels != noisy.truth).sum())
        3
    """
    classes = len(images.class_names)
    look_up(dict.fromkeys(kinds_for(tags=False)), kind, what="kind of noise")
    check_value("rate", rate, Rate)
    check_value("seed", seed, Seed)
    entry = NOISE.entries[kind]
    if pairs is not None and "pairs" not in entry.takes:
        kinds = " or ".join(name for name, each in NOISE.entries.items() if "pairs" in each.takes)
        raise SettingsError(f"pairs go with {kinds} noise, not with {kind} noise; leave them out")
    if entry.needs_images and not isinstance(images, LabelledImages):
        raise SettingsError(
            f"{kind} noise depends on pixels, which features come without; use {' or '.join(kinds_for_features())}"
        )
    if classes < 2:
        raise DataError(f"expected at least two classes to make noise, got {classes}")
    values = {"rate": rate, "exact": exact, "pairs": pairs}
    taken: dict[str, Any] = {name: values[name] for name in entry.takes}
    if entry.needs_images:
        taken["progress"] = progress or Progress()
    noisy: NDArray[np.int64]
    notes: tuple[str, ...]
    noisy, notes = NOISE[kind](images, seed=seed, **taken)
    changed = int((noisy != images.labels).sum())
    summary = f"{kind} noise at rate {rate} with seed {seed}: {changed} of {len(images)} labels changed"
    result = images.with_labels(noisy, truth=images.labels)
    return replace(result, notes=(*images.notes, *notes, summary))


def symmetric_noise(
    images: LabelledImages | LabelledFeatures, *, seed: int, rate: float, exact: bool
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Returns labels with symmetric noise, (N,), and notes for the user; see :func:`inject`.

    Args:
        images: N images, or rows of features.
        seed: Random seed.
        rate: Share of wrong labels.
        exact: Whether the share is exact.
    """
    return symmetric(images.labels, classes=len(images.class_names), rate=rate, seed=seed, exact=exact), ()


def pair_noise(
    images: LabelledImages | LabelledFeatures,
    *,
    seed: int,
    rate: float,
    exact: bool,
    pairs: Mapping[str, str] | None,
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Returns labels with pair noise, (N,), and notes for the user; see :func:`inject`.

    Args:
        images: N images, or rows of features.
        seed: Random seed.
        rate: Share of wrong labels.
        exact: Whether the share is exact.
        pairs: Class name to the class name it is mistaken for; None: the next class.
    """
    return paired(images.labels, target=_targets(images.class_names, pairs), rate=rate, seed=seed, exact=exact), ()


def instance_noise(
    images: LabelledImages, *, seed: int, progress: Progress, rate: float
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Returns labels with instance-dependent noise, (N,), and notes for the user; see :func:`inject`.

    Processes one class and a few images at a time, so that memory does not grow with the number of images.

    Args:
        images: N images.
        seed: Random seed.
        progress: Receives progress.
        rate: Share of wrong labels.
    """
    classes, noisy = len(images.class_names), images.labels.copy()
    rates = flip_rates(len(images), rate=rate, seed=seed)
    dice = np.random.default_rng([seed, 2]).random(len(images))
    unreadable: list[str] = []
    with progress.task("reading images", total=len(images), unit="images", brief=True) as advance:
        for label in np.unique(images.labels).tolist():
            weights = class_weights(label, features=3 * FEATURE_SIDE**2, classes=classes, seed=seed)
            for rows, features in _features(images, np.flatnonzero(images.labels == label), unreadable, advance):
                chances = transition_probabilities(features, label, flip_rates=rates[rows], weights=weights)
                noisy[rows] = _draw(chances, dice[rows])
    if not unreadable:
        return noisy, ()
    what = counted(len(unreadable), "image", "images")
    return noisy, (f"{what} could not be read, so labels stay (first: {unreadable[0]})",)


def symmetric(
    labels: NDArray[np.int64], *, classes: int, rate: float, seed: int = 0, exact: bool = True
) -> NDArray[np.int64]:
    """Returns labels with symmetric noise, (N,), int64.

    Args:
        labels: Shape (N,), values 0 to `classes` - 1.
        classes: K, at least 2.
        rate: From 0 to below 1.
        seed: Random seed.
        exact: True: exactly `round(rate * N)` labels change, each to one of the K - 1 other classes. False: each label
            becomes, with probability `rate`, one of all K.
    """
    rng, noisy = np.random.default_rng(seed), labels.copy()
    rows = _rows(np.arange(len(labels)), rate=rate, total=len(labels), rng=rng, exact=exact)
    if exact:
        noisy[rows] = (labels[rows] + rng.integers(1, classes, size=len(rows))) % classes
    else:
        noisy[rows] = rng.integers(0, classes, size=len(rows))
    return noisy


def paired(
    labels: NDArray[np.int64], *, target: NDArray[np.int64], rate: float, seed: int = 0, exact: bool = True
) -> NDArray[np.int64]:
    """Returns labels with pair noise, (N,), int64.

    Args:
        labels: Shape (N,), values 0 to K-1.
        target: Shape (K,), int64: the class that class k is mistaken for; k itself if it stays clean.
        rate: From 0 to below 1: share of all N labels.
        seed: Random seed.
        exact: True changes exactly `round(rate * N)` labels. False changes each eligible label with probability `rate`.

    Raises:
        SettingsError: Fewer labels can change than `rate` requires.
    """
    rng, noisy = np.random.default_rng(seed), labels.copy()
    able = np.flatnonzero(target[labels] != labels)
    rows = _rows(able, rate=rate, total=len(labels), rng=rng, exact=exact)
    noisy[rows] = target[labels[rows]]
    return noisy


def _rows(able: NDArray[Any], *, rate: float, total: int, rng: np.random.Generator, exact: bool) -> NDArray[Any]:
    """Draws the rows to change among those that can change."""
    if not exact:
        return able[rng.random(len(able)) < rate]
    count = round(rate * total)
    if count > len(able):
        raise SettingsError(
            f"expected a noise rate of at most {len(able) / total:.4g}, got {rate}: only {len(able)} of {total} images "
            "are in classes that can change; lower the rate or name more pairs"
        )
    return rng.choice(able, size=count, replace=False)


def _targets(names: Sequence[str], pairs: Mapping[str, str] | None) -> NDArray[np.int64]:
    if pairs is None:
        return (np.arange(len(names), dtype=np.int64) + 1) % len(names)
    target = np.arange(len(names), dtype=np.int64)
    for source, mistaken in pairs.items():
        for name in (source, mistaken):
            if name not in names:
                raise SettingsError(
                    f'"{shown(name)}" in pairs is not a class{did_you_mean(name, names)}; choose class names'
                )
        if source == mistaken:
            raise SettingsError(f'the pair "{shown(source)}" to "{shown(mistaken)}" would change nothing; leave it out')
        target[names.index(source)] = names.index(mistaken)
    return target


def flip_rates(count: int, *, rate: float, seed: int = 0) -> NDArray[np.float64]:
    """Draws the probability that each image is mislabelled, (N,), float64, from 0 to 1.

    Normal with standard deviation 0.1, truncated to [0, 1] (Xia et al. 2020, Algorithm 2, line 1).

    Args:
        count: N.
        rate: Mean before truncation, from 0 to below 1. If it is 0, so are all probabilities.
        seed: Random seed.
    """
    drawn = np.zeros(count)
    if rate == 0:
        return drawn
    rng, pending = np.random.default_rng([seed, 0]), np.arange(count)
    while len(pending):  # each pass accepts at least half on average, because the mean is in [0, 1)
        values = rng.normal(rate, _FLIP_STD, size=len(pending))
        drawn[pending] = values
        pending = pending[(values < 0) | (values > 1)]
    return drawn


def class_weights(label: int, *, features: int, classes: int, seed: int = 0) -> NDArray[np.float32]:
    """Draws the projection W of one class, (F, K), float32, standard normal (Xia et al. 2020, Algorithm 2, line 2).

    Each class has its own random stream, so that only one projection has to be in memory.

    Args:
        label: Index of the class.
        features: F, the number of features of an image.
        classes: K.
        seed: Random seed, the same for all classes.
    """
    return np.random.default_rng([seed, 1, label]).standard_normal((features, classes), dtype=np.float32)


def transition_probabilities(
    features: NDArray[Any], label: int, *, flip_rates: NDArray[Any], weights: NDArray[Any]
) -> NDArray[np.float64]:
    """Returns the probability of each label for each image of one class.

    Part-dependent noise, Xia et al., NeurIPS 2020, Algorithm 2: with x the features, y the class, q the flip rate and
    W[y] its projection, `A = x W[y]`, `A[y] = -inf`, `P = q softmax(A)`, `P[y] = 1 - q`. On raw pixels
    from 0 to 255 the softmax is nearly one-hot: each image has one class that it is mistaken for.

    Args:
        features: Shape (N, F).
        label: Index of the class.
        flip_rates: Shape (N,), values 0 to 1.
        weights: Shape (F, K), see :func:`class_weights`.

    Returns:
        Shape (N, K), float64, between 0 and 1; each row adds up to 1.
    """
    logits = np.asarray(features, dtype=np.float64) @ np.asarray(weights, dtype=np.float64)
    logits[:, label] = -np.inf
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances: NDArray[np.float64] = flip_rates[:, None] * powers / powers.sum(axis=1, keepdims=True)
    chances[:, label] = 1 - flip_rates
    return chances


def _draw(chances: NDArray[np.float64], dice: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draws one column per row: the first whose cumulative sum exceeds the random number."""
    sums = chances.cumsum(axis=1)
    # the division makes the last sum exactly 1, above every number in [0, 1); columns of probability 0 are never drawn
    drawn: NDArray[np.int64] = (sums / sums[:, -1:] <= dice[:, None]).sum(axis=1)
    return drawn


def _features(
    images: LabelledImages, rows: NDArray[Any], unreadable: list[str], advance: Callable[[int], None]
) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
    """Yields row numbers and their pixels in chunks: raw values from 0 to 255, ordered by colour, row and column."""
    for start in range(0, len(rows), _CHUNK):
        readable_rows, pixels = [], []
        for row in rows[start : start + _CHUNK].tolist():
            advance(1)
            try:
                image = images.open(row)
            except UnreadableImageError:
                unreadable.append(images.ids[row])
                continue
            small = image.resize((FEATURE_SIDE, FEATURE_SIDE), Image.Resampling.BILINEAR)
            pixels.append(np.asarray(small).transpose(2, 0, 1).ravel())
            readable_rows.append(row)
        if readable_rows:
            yield np.array(readable_rows), np.stack(pixels)
