"""Peak memory of a cell."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

_INTERVAL = 0.02  # seconds between two samples


class PeakMemory:
    """Measures the peak memory of this process within a block.

    Attributes:
        gigabytes: Peak resident memory, in 10^9 bytes, without worker processes.
        on_device: Peak memory of tensors on the GPU; None without one.
    """

    def __init__(self) -> None:
        self.gigabytes = 0.0
        self.on_device: float | None = None
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._watcher.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._done.set()
        self._watcher.join()
        self._sample()
        if torch.cuda.is_available():
            self.on_device = torch.cuda.max_memory_allocated() / 1e9

    def _watch(self) -> None:
        while not self._done.wait(_INTERVAL):
            self._sample()

    def _sample(self) -> None:
        self.gigabytes = max(self.gigabytes, psutil.Process().memory_info().rss / 1e9)
