"""Where modules sit: the linear layers in the blocks of a vision transformer, one line of a table a kind of block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from labelsieve.core.errors import shown


class Encoder(Protocol):
    """The part of a :class:`VisionLanguageModel` that a module attaches to; its members are documented there."""

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
    """An image encoder alone; see :class:`Encoder`. It need not have values to run with."""

    name: str
    vision_width: int
    patch_size: int
    image_encoder: nn.Module
    vision_layers: Sequence[nn.Module]
    run: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Sizes:
    """How large a module is.

    Attributes:
        tokens: L, the number of visual prompts, at least 0.
        bottleneck: Rank of `lora` and width of `adapter`, at least 1.
    """

    tokens: int
    bottleneck: int


class MisfitError(Exception):
    """A module has no place in an image encoder; the message says why, and not what has."""


class Handle(Protocol):
    """Something attached, such as `torch.utils.hooks.RemovableHandle`."""

    def remove(self) -> None:
        """Takes it away again; a second time does nothing."""
        ...


class Undo:
    """A handle for what is no hook.

    Args:
        action: Called by the first :meth:`remove`.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def remove(self) -> None:
        """Undoes what was done."""
        action, self._action = self._action, None
        if action is not None:
            action()


@dataclass(frozen=True)
class BlockKind:
    """Paths of attributes from a block to its linear layers.

    Attributes:
        attention_in: Query, key and value; or one layer that gives all three; or nothing, where the attention
            multiplies by its weights without calling a layer that could be replaced or hooked.
        attention_out: The layer after the attention; empty as above.
        mlp_in: The layer before the activation.
        mlp_out: The layer after it.
    """

    attention_in: tuple[str, ...]
    attention_out: str
    mlp_in: str
    mlp_out: str


def _qkv(parent: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for name in names)


BLOCKS = {
    "CLIP, SigLIP, AltCLIP, Chinese-CLIP": BlockKind(
        _qkv("self_attn", "q_proj", "k_proj", "v_proj"), "self_attn.out_proj", "mlp.fc1", "mlp.fc2"
    ),
    "BLIP": BlockKind(("self_attn.qkv",), "self_attn.projection", "mlp.fc1", "mlp.fc2"),
    "ViT of transformers 5": BlockKind(
        _qkv("attention", "q_proj", "k_proj", "v_proj"), "attention.o_proj", "mlp.fc1", "mlp.fc2"
    ),
    "DINOv3": BlockKind(
        _qkv("attention", "q_proj", "k_proj", "v_proj"), "attention.o_proj", "mlp.up_proj", "mlp.down_proj"
    ),
    "ViT of transformers 4": BlockKind(
        _qkv("attention.attention", "query", "key", "value"),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ),
    "Swin V2, Swin of transformers 4": BlockKind(
        _qkv("attention.self", "query", "key", "value"), "attention.output.dense", "intermediate.dense", "output.dense"
    ),
    "timm": BlockKind(("attn.qkv",), "attn.proj", "mlp.fc1", "mlp.fc2"),
    "open_clip": BlockKind((), "", "mlp.c_fc", "mlp.c_proj"),
}


@dataclass(frozen=True)
class Site:
    """A linear layer, and where it hangs."""

    parent: nn.Module
    name: str

    @property
    def layer(self) -> nn.Linear:
        """What is there now."""
        return getattr(self.parent, self.name)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Block:
    """The linear layers of one block; see :class:`BlockKind`."""

    attention_in: tuple[Site, ...]
    attention_out: Site | None
    mlp_in: Site
    mlp_out: Site


def blocks_of(encoder: Encoder, *, peft: str, kinds: Mapping[str, BlockKind] = BLOCKS) -> list[Block]:
    """Finds the linear layers of all blocks; of an encoder without one sequence of tokens, those of known blocks.

    Args:
        encoder: The model.
        peft: Who asks, for the error.
        kinds: Kinds of blocks, the first that fits is taken.

    Raises:
        MisfitError: There is no block, or one of a kind that is not in the table.
    """
    layers = encoder.vision_layers
    found = [block_in(layer, kinds=kinds) for layer in (layers if len(layers) else encoder.image_encoder.modules())]
    known = [block for block in found if block is not None]
    if not known or len(known) < len(found) * bool(len(layers)):
        raise unknown_blocks(encoder, peft=peft)
    return known


def unknown_blocks(encoder: Encoder, *, peft: str) -> MisfitError:
    """Returns the error for a model whose blocks have no place for a module."""
    found = type(encoder.vision_layers[0]).__name__ if len(encoder.vision_layers) else "it has none"
    return MisfitError(f"--peft {peft} does not know the blocks of {shown(encoder.name)} ({found})")


def block_in(layer: nn.Module, *, kinds: Mapping[str, BlockKind] = BLOCKS) -> Block | None:
    """Finds the linear layers of one block, by the first kind that fits; None where there is none."""
    for kind in kinds.values():
        inputs = [_site(layer, path) for path in kind.attention_in]
        out = _site(layer, kind.attention_out) if kind.attention_out else None
        first, last = _site(layer, kind.mlp_in), _site(layer, kind.mlp_out)
        found = tuple(site for site in inputs if site is not None)
        if first and last and len(found) == len(inputs) and bool(out) == bool(kind.attention_out):
            return Block(found, out, first, last)
    return None


def _site(layer: nn.Module, path: str) -> Site | None:
    """Follows a path of attributes, to None where it does not end at a linear layer."""
    parents, _, name = path.rpartition(".")
    try:
        site = Site(layer.get_submodule(parents), name)
        return site if isinstance(site.layer, nn.Linear) else None
    except AttributeError:
        return None
