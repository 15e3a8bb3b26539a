"""The interface of parameter-efficient modules, and building them; :mod:`labelsieve.vlm.peft.registry` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from torch import Tensor, nn

from labelsieve.core.errors import SettingsError, listed, look_up, setting, shown
from labelsieve.vlm.peft.functional_parameters import FunctionalParameters
from labelsieve.vlm.peft.registry import PEFT
from labelsieve.vlm.peft.target_layers import Encoder, Handle, ModuleSpec, UnsupportedEncoderError


class Peft(Protocol):
    """A `torch.nn.Module` of trainable parameters that can be attached to the frozen image encoder and removed.

    Its parameters are separate from those of the image encoder, and have no effect before :meth:`attach`.
    """

    def attach(self, vlm: Encoder) -> Sequence[Handle]:
        """Attaches to the image encoder; removing all returned handles restores it bit for bit."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields the trainable parameters, as every `torch.nn.Module` does."""
        ...


def no_module(_vlm: Encoder, _spec: ModuleSpec) -> None:
    """Builds nothing: the image encoder stays frozen."""


def build_peft(spec: ModuleSpec, vlm: Encoder) -> Peft | None:
    """Builds a module, or None if the image encoder stays frozen.

    Args:
        spec: The module.
        vlm: The model to adapt; if it can run, the module is tested on one image.

    Raises:
        SettingsError: The kind is unknown or does not support the model, or the bottleneck is below 1.
    """
    look_up(PEFT, spec.kind, what=setting("peft"))
    if spec.bottleneck < 1:
        raise SettingsError(f"expected a bottleneck of at least 1, got {spec.bottleneck}")
    try:
        return _build(vlm, spec)
    except UnsupportedEncoderError as error:
        alternatives = [name for name in PEFT if name != spec.kind and is_compatible(name, vlm)]
        raise SettingsError(f"{error}; use {setting('peft')} {listed(alternatives)}") from error


def is_compatible(kind: str, vlm: Encoder) -> bool:
    """Returns whether a kind of module supports the image encoder of a model."""
    try:
        _build(vlm, ModuleSpec(kind))
    except UnsupportedEncoderError:
        return False
    return True


def _build(vlm: Encoder, spec: ModuleSpec) -> Peft | None:
    module: Any = PEFT[spec.kind](vlm, spec)
    if module is None or vlm.run is None or isinstance(module, FunctionalParameters):
        return module  # type: ignore[no-any-return]
    module.to(next(vlm.image_encoder.parameters()).device)
    if not _has_gradients(module, vlm, vlm.run):
        raise UnsupportedEncoderError(
            f"{setting('peft')} {spec.kind} does not go with the image encoder of {shown(vlm.name)}, which cannot run "
            "with it"
        )
    return module  # type: ignore[no-any-return]


def _has_gradients(module: Any, vlm: Encoder, run: Callable[[], Tensor]) -> bool:
    """Returns whether the image encoder runs with a module, and all its parameters get gradients.

    Some blocks use the weights of a layer without calling it, and some attention supports only one sequence length.
    """
    handles, has_gradients = module.attach(vlm), False
    try:
        with suppress(Exception):  # each architecture has its own
            run().sum().backward()
            has_gradients = all(value.grad is not None for value in module.parameters())
    finally:
        for handle in handles:
            handle.remove()
    module.zero_grad(set_to_none=True)
    return has_gradients
