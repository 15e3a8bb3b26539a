"""Target layers of the modules: linear layers of vision transformers, one line of a table for each kind of block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from labelsieve.core.errors import setting, shown


class Encoder(Protocol):
    """The part of a :class:`VisionLanguageModel` that modules attach to; its members are documented there."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def vision_width(self) -> int: ...  # noqa: D102
    @property
    def patch_size(self) -> int: ...  # noqa: D102
    @property
    def image_encoder(self) -> nn.Module: ...  # noqa: D102
    @property
    def vision_layers(self) -> Sequence[nn.Module]: ...  # noqa: D102
    @property
    def run(self) -> Callable[[], Tensor] | None: ...  # noqa: D102


@dataclass(frozen=True)
class BareEncoder:
    """An image encoder without a text encoder; see :class:`Encoder`. It may be on the meta device."""

    name: str
    vision_width: int
    patch_size: int
    image_encoder: nn.Module
    vision_layers: Sequence[nn.Module]
    run: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class ModuleSpec:
    """The module to build.

    Attributes:
        kind: A name of `PEFT`, or of `TUNE` in phase 2.
        tokens: L, the number of visual prompts, at least 0.
        bottleneck: Rank of `lora` and width of `adapter`, at least 1.
        generator: Source of the initial values.
    """

    kind: str
    tokens: int = 1
    bottleneck: int = 1
    generator: torch.Generator = field(default_factory=torch.Generator)


class UnsupportedEncoderError(Exception):
    """A module cannot attach to an image encoder; the message has the reason."""


class Handle(Protocol):
    """Something attached, such as `torch.utils.hooks.RemovableHandle`."""

    def remove(self) -> None:
        """Detaches it; does nothing the second time."""
        ...


class CallbackHandle:
    """A handle that calls a function.

    Args:
        action: Called by the first :meth:`remove`.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def remove(self) -> None:
        """Calls the function."""
        action, self._action = self._action, None
        if action is not None:
            action()


@dataclass(frozen=True)
class BlockKind:
    """Attribute paths from a block to its linear layers.

    Attributes:
        attention_in: Query, key and value; or one layer for all three; or empty, if the attention uses its weights
            without calling a layer that could be replaced or hooked.
        attention_out: The output projection of the attention; may be empty as well.
        mlp_in: The layer before the activation.
        mlp_out: The layer after it.
    """

    attention_in: tuple[str, ...]
    attention_out: str
    mlp_in: str
    mlp_out: str


def _qkv(parent: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for name in names)


BLOCKS = (
    # CLIP, SigLIP, AltCLIP, Chinese-CLIP
    BlockKind(_qkv("self_attn", "q_proj", "k_proj", "v_proj"), "self_attn.out_proj", "mlp.fc1", "mlp.fc2"),
    # BLIP
    BlockKind(("self_attn.qkv",), "self_attn.projection", "mlp.fc1", "mlp.fc2"),
    # ViT, DeiT, BEiT, DINOv2, Swin
    BlockKind(_qkv("attention", "q_proj", "k_proj", "v_proj"), "attention.o_proj", "mlp.fc1", "mlp.fc2"),
    # DINOv3
    BlockKind(_qkv("attention", "q_proj", "k_proj", "v_proj"), "attention.o_proj", "mlp.up_proj", "mlp.down_proj"),
    # Data2Vec, YOLOS, DPT, MobileViT
    BlockKind(
        _qkv("attention.attention", "query", "key", "value"),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    # Swin V2, Donut
    BlockKind(
        _qkv("attention.self", "query", "key", "value"), "attention.output.dense", "intermediate.dense", "output.dense"
    ),
    # timm
    BlockKind(("attn.qkv",), "attn.proj", "mlp.fc1", "mlp.fc2"),
    # open_clip
    BlockKind((), "", "mlp.c_fc", "mlp.c_proj"),
)


@dataclass(frozen=True)
class TargetLayer:
    """A linear layer, given by its parent module and name."""

    parent: nn.Module
    name: str

    @property
    def layer(self) -> nn.Linear:
        """The current layer."""
        return getattr(self.parent, self.name)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Block:
    """The linear layers of one block; see :class:`BlockKind`."""

    attention_in: tuple[TargetLayer, ...]
    attention_out: TargetLayer | None
    mlp_in: TargetLayer
    mlp_out: TargetLayer


def blocks_of(encoder: Encoder, *, peft: str) -> list[Block]:
    """Finds the linear layers of all blocks; without one sequence of tokens, those of known blocks.

    Args:
        encoder: The model.
        peft: Name of the module, for the error.

    Raises:
        UnsupportedEncoderError: There are no blocks, or some of an unknown kind.
    """
    layers = encoder.vision_layers
    blocks = [find_layers(layer) for layer in (layers if len(layers) else encoder.image_encoder.modules())]
    known = [block for block in blocks if block is not None]
    if not known or len(known) < len(blocks) * bool(len(layers)):
        raise unknown_blocks(encoder, peft=peft)
    return known


def unknown_blocks(encoder: Encoder, *, peft: str) -> UnsupportedEncoderError:
    """Returns the error for a model whose blocks do not support a module."""
    kind = type(encoder.vision_layers[0]).__name__ if len(encoder.vision_layers) else "it has none"
    return UnsupportedEncoderError(
        f"{setting('peft')} {peft} does not know the blocks of {shown(encoder.name)} ({kind})"
    )


def find_layers(layer: nn.Module) -> Block | None:
    """Finds the linear layers of one block, by the first matching kind; None if there is none."""
    for kind in BLOCKS:
        inputs = [_target_layer(layer, path) for path in kind.attention_in]
        out = _target_layer(layer, kind.attention_out) if kind.attention_out else None
        first, last = _target_layer(layer, kind.mlp_in), _target_layer(layer, kind.mlp_out)
        existing = tuple(each for each in inputs if each is not None)
        if first and last and len(existing) == len(inputs) and bool(out) == bool(kind.attention_out):
            return Block(existing, out, first, last)
    return None


def _target_layer(layer: nn.Module, path: str) -> TargetLayer | None:
    """Follows a path of attributes; returns None if it does not end at a linear layer."""
    parents, _, name = path.rpartition(".")
    try:
        target = TargetLayer(layer.get_submodule(parents), name)
        return target if isinstance(target.layer, nn.Linear) else None
    except AttributeError:
        return None
