"""The largest tensor that is made in a block: what tests of memory go by."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has that an operation within the block returns.

    Attributes:
        size: Their number.
    """

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            self.size = max(self.size, value.numel() if isinstance(value, torch.Tensor) else 0)
        return result
