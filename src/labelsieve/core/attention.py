"""Attention of short sequences in bf16 on a CPU, which PyTorch's fused kernel is slow at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

# Written out, the attention weights are kept for the backward pass: B x heads x L x L numbers in each block.
_MAX_CHARACTERS = 256


class WrittenOutAttention(TorchFunctionMode):
    """Computes attention by two matrix products and a softmax where that is faster than the fused kernel.

    That is so for bf16 on a CPU, with gradients above all (`benchmarks/attention.py`). It is done without them too, so
    that an encoder gives the same features, trained or not. A boolean mask is written out too; whatever else
    is asked for, dropout for example, goes to PyTorch as it is. It holds for any library that calls PyTorch's function.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Intercepts that one function."""
        named = dict(kwargs or {})
        if func is scaled_dot_product_attention and _pays(*args, **named):
            return _written_out(*args, **named)
        return func(*args, **named)


def _pays(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    masked = attn_mask is not None and attn_mask.dtype != torch.bool
    simple = not masked and not dropout_p and not is_causal and not enable_gqa
    short = max(query.shape[-2], key.shape[-2]) <= _MAX_CHARACTERS
    return simple and short and query.device.type == "cpu" and query.dtype == torch.bfloat16


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *_args: Any,
    scale: float | None = None,
    **_named: Any,
) -> Tensor:
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    logits = (query * factor) @ key.transpose(-2, -1)
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, torch.finfo(logits.dtype).min)
    weights = logits.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    if attn_mask is not None:  # who may see nothing gets zeros, as from PyTorch
        weights = weights * attn_mask.any(dim=-1, keepdim=True)
    return weights @ value
