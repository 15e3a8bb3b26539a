"""What is measured of a cell beside its verdicts: the memory that it takes."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

_PAUSE = 0.02  # seconds between two looks at the memory


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
