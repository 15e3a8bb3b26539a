"""Explicit attention for short sequences in bf16 on a CPU, where PyTorch's fused kernel is slow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

# Maximum length of a sequence, because explicit attention saves B x heads x L x L weights per block for backward.
_LONGEST = 256


class ExplicitAttention(TorchFunctionMode):
    """Computes attention by two matrix products and a softmax where that is faster than the fused kernel.

    This is the case for bf16 on a CPU, above all with gradients (`benchmarks/attention.py`). It also applies without
    gradients, so that an encoder returns the same features in training and evaluation. Boolean masks are supported;
    calls with other options, such as dropout, go to PyTorch. It affects every library that calls PyTorch's function.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Intercepts `scaled_dot_product_attention`."""
        named = dict(kwargs or {})
        if func is scaled_dot_product_attention and _is_faster(*args, **named):
            return _explicit_attention(*args, **named)
        return func(*args, **named)


def _is_faster(
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
    short = max(query.shape[-2], key.shape[-2]) <= _LONGEST
    return simple and short and query.device.type == "cpu" and query.dtype == torch.bfloat16


def _explicit_attention(
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
    if attn_mask is not None:  # a query whose keys are all masked gets zeros, as in PyTorch
        weights = weights * attn_mask.any(dim=-1, keepdim=True)
    return weights @ value
