"""What a parameter-efficient module is, and how one is built; :mod:`labelsieve.vlm.peft.registry` has the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from labelsieve.core.errors import SettingsError, listed, look_up, shown
from labelsieve.vlm.peft.functional_parameters import OwnCopies
from labelsieve.vlm.peft.registry import PEFT
from labelsieve.vlm.peft.target_layers import Encoder, Handle, MisfitError, Sizes


class Peft(Protocol):
    """A `torch.nn.Module` of trainable parameters that attach to the frozen image encoder and leave no trace after.

    Its parameters are its own: neither the image encoder's, nor seen by the image encoder before :meth:`attach`.
    """

    def attach(self, vlm: Encoder) -> Sequence[Handle]:
        """Attaches to the image encoder; removing all returned handles restores it bit for bit."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields what is trained, as every `torch.nn.Module` does."""
        ...


Build = Callable[[Encoder, Sizes, torch.Generator], Peft | None]
"""Makes a module for a model, with initial values from a generator; None where there is nothing to train."""


def no_module(vlm: Encoder, sizes: Sizes, generator: torch.Generator) -> None:
    """Builds nothing: the image encoder stays frozen."""


def build_peft(kind: str, vlm: Encoder, *, tokens: int, bottleneck: int = 8, generator: torch.Generator) -> Peft | None:
    """Builds a module of the given kind, or None where the image encoder stays as it is.

    Args:
        kind: A name of `PEFT`.
        vlm: The model to adapt; where it can run, it passes one image with the module attached.
        tokens: L, the number of visual prompts.
        bottleneck: Rank of `lora` and width of `adapter`, at least 1.
        generator: Source of the initial values.

    Raises:
        SettingsError: There is no such kind, it does not go with the model, or the bottleneck has no width.
    """
    look_up(PEFT, kind, what="--peft")
    if bottleneck < 1:
        raise SettingsError(f"expected a bottleneck of at least 1, got {bottleneck}")
    try:
        return _build(kind, vlm, Sizes(tokens, bottleneck), generator)
    except MisfitError as error:
        fitting = [other for other in PEFT if other != kind and fits(other, vlm)]
        raise SettingsError(f"{error}; use --peft {listed(fitting)}") from error


def fits(kind: str, vlm: Encoder) -> bool:
    """Returns whether the image encoder of a model has a place for a module of a kind."""
    try:
        _build(kind, vlm, Sizes(tokens=1, bottleneck=1), torch.Generator())
    except MisfitError:
        return False
    return True


def _build(kind: str, vlm: Encoder, sizes: Sizes, generator: torch.Generator) -> Peft | None:
    module: Any = PEFT[kind](vlm, sizes, generator)
    if module is None or vlm.run is None or isinstance(module, OwnCopies):
        return module  # type: ignore[no-any-return]
    module.to(next(vlm.image_encoder.parameters()).device)
    if not _has_a_say(module, vlm, vlm.run):
        raise MisfitError(
            f"--peft {kind} does not go with the image encoder of {shown(vlm.name)}, which cannot run with it"
        )
    return module  # type: ignore[no-any-return]


def _has_a_say(module: Any, vlm: Encoder, run: Callable[[], Tensor]) -> bool:
    """Returns whether the image encoder runs with a module, and all parts of that have an influence.

    There are blocks that read the weights of a layer without calling it, and attention that knows one length only.
    """
    handles, done = module.attach(vlm), False
    try:
        with suppress(Exception):  # each architecture has its own
            run().sum().backward()
            done = all(value.grad is not None for value in module.parameters())
    finally:
        for handle in handles:
            handle.remove()
    module.zero_grad(set_to_none=True)
    return done
