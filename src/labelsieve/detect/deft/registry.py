"""The table of warm-up losses: `--warmup-loss` and `labelsieve list` derive from it. It loads no torch.

To add a loss, write a function in :mod:`labelsieve.detect.losses` that takes logits (B, K) and labels (B,) and returns
(B,), and add one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry

_LOSSES = "labelsieve.detect.losses:"
WARMUP_LOSSES: Registry[Callable[..., Any], Entry] = Registry(
    "--warmup-loss",
    Entry("ce", _LOSSES + "cross_entropy", "cross-entropy"),
    Entry(
        "sce",
        _LOSSES + "symmetric_cross_entropy",
        "symmetric cross-entropy: a second term that a wrong label cannot make large",
    ),
)

if TYPE_CHECKING:
    WarmupLoss = str
else:
    WarmupLoss = Literal[tuple(WARMUP_LOSSES)]
