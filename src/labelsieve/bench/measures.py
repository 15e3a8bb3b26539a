"""What is measured of a cell beside its verdicts: how well probabilities are calibrated, and memory."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

BINS = 10
_EVEN = 0.5
_PAUSE = 0.02  # seconds between two measurements of the memory


def calibration(quality: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[str, float | list[list[float]] | None]:
    """Compares probabilities with what came true.

    Args:
        quality: Shape (n,), from 0 to 1: the probability that the label is right.
        right: Shape (n,): whether it is.

    Returns:
        `brier`, the mean squared difference (Brier, 1950), and `ece`, the expected calibration error (Guo et al., ICML
        2017): the mean over the images of the distance between mean probability and share of right labels in their one
        of 10 equal bins. Both from 0, which is best, to 1. `even_odds` is the quality from which on at least every
        other label is right, by isotonic regression: 0.5 if a threshold of one half is where it should be, and 1 where
        it is so of none. All None without images. `reliability` has for each bin its images, the sum of their
        probabilities, and how many of them are right.

    Example:
        >>> import numpy as np
        >>> quality = np.array([0.9, 0.9, 0.1, 0.1], dtype=np.float32)
        >>> found = calibration(quality, np.array([True, True, False, False]))
        >>> round(found["brier"], 3), round(found["ece"], 3)
        (0.01, 0.1)
    """
    if not quality.size:
        return {"brier": None, "ece": None, "even_odds": None, "reliability": []}
    chance, true = quality.astype(np.float64), right.astype(np.float64)
    bins = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    count, expected, found = (
        np.bincount(bins, weights=each, minlength=BINS) for each in (np.ones_like(chance), chance, true)
    )
    return {
        "brier": float(np.square(chance - true).mean()),
        "ece": float(np.abs(expected - found).sum() / len(chance)),
        "even_odds": _even_odds(chance, true),
        "reliability": np.stack([count, expected, found], axis=1).tolist(),
    }


def _even_odds(chance: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    from sklearn.isotonic import IsotonicRegression

    share = IsotonicRegression().fit_transform(chance, true)
    return float(chance[share >= _EVEN].min(initial=1.0))


class PeakMemory:
    """Watches, for the time of a block, the most memory that this process has at once.

    Attributes:
        gigabytes: The most that was resident, in 10^9 bytes; processes that decode images are not part of it.
        on_device: The most that tensors took on the GPU; None without one.
    """

    def __init__(self) -> None:
        self.gigabytes = 0.0
        self.on_device: float | None = None
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._watcher.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._done.set()
        self._watcher.join()
        self._look()
        if torch.cuda.is_available():
            self.on_device = torch.cuda.max_memory_allocated() / 1e9

    def _watch(self) -> None:
        while not self._done.wait(_PAUSE):
            self._look()

    def _look(self) -> None:
        self.gigabytes = max(self.gigabytes, psutil.Process().memory_info().rss / 1e9)
