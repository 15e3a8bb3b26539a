"""An image encoder in the words of `timm`, and the standard classifier that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.core.errors import ModelError
from labelsieve.vlm.pretrained import first_line, quiet_loading

Weights = Mapping[str, Tensor]
Renamed = Iterator[tuple[str, Tensor]]

_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class TimmEncoder:
    """What is passed to `timm`, so that it gives the very feature that a vision-language model compares with texts.

    Attributes:
        architecture: Name of the `timm` model.
        options: What else is passed to it; nothing but JSON, since it is saved.
        weights: Its weights under its own names, all but those of the head. Others are an error.
        feature: What the vision-language model itself does: pixels (B, 3, S, S) to its image feature before the
            projection (B, D).
        size: Side of the images in pixels.
        processor: A standard image processor of `transformers` that makes such images.
    """

    architecture: str
    options: Mapping[str, Any]
    weights: Weights
    feature: Callable[[Tensor], Tensor]
    size: int
    processor: Any


def pair(new: str, old: str, weights: Weights) -> Renamed:
    """Yields weight and bias of a layer under its new name."""
    for part in ("weight", "bias"):
        yield f"{new}.{part}", weights[f"{old}.{part}"]


def unlike(name: str, why: str) -> ModelError:
    """Returns the error of an image encoder that is none of `timm`."""
    return ModelError(f"the image encoder of {name} {why} and cannot be made a classifier; choose another --backbone")


def as_classifier(encoder: TimmEncoder, class_names: Mapping[int, str], name: str) -> Any:
    """Builds the classifier, whose head is still to be set, and makes sure that it reads the feature of the model.

    Raises:
        ModelError: `timm` has no such image encoder, or it computes something else.
    """
    import transformers

    settings = transformers.TimmWrapperConfig(
        architecture=encoder.architecture,
        model_args=dict(encoder.options),
        id2label=dict(class_names),
        label2id={label: index for index, label in class_names.items()},
    )
    try:
        with quiet_loading(), torch.random.fork_rng(devices=[]):  # whatever it is filled with at first
            model = transformers.TimmWrapperForImageClassification(settings).eval()
        _fill(model.timm_model, encoder.weights)
    except Exception as error:  # each architecture has its own, and transformers one for a timm that is too old
        raise unlike(name, f"is not quite timm's {encoder.architecture} ({first_line(error)})") from error
    _check_same(encoder, model.timm_model, name)
    return model


def _fill(timm_model: Any, weights: Weights) -> None:
    head = {id(value) for value in timm_model.get_classifier().parameters()}
    new = {key: value for key, value in timm_model.state_dict(keep_vars=True).items() if id(value) in head}
    timm_model.load_state_dict({**weights, **new})


def _check_same(encoder: TimmEncoder, timm_model: nn.Module, name: str) -> None:
    image = torch.rand(1, 3, encoder.size, encoder.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = encoder.feature(image)
        found = pooled(timm_model, image)
    same = expected.shape == found.shape
    off = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)) if same else float("inf")
    if not off < _TOLERANCE:
        raise unlike(name, f"computes something else than timm's {encoder.architecture} (off by {off:.1g})")


def pooled(timm_model: Any, pixels: Tensor) -> Tensor:
    """Runs a model of `timm` up to its head."""
    return timm_model.forward_head(timm_model.forward_features(pixels), pre_logits=True)  # type: ignore[no-any-return]
