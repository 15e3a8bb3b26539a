"""Image encoders as models of `timm`, and standard classifiers made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labelsieve.core.errors import ModelError
from labelsieve.vlm.pretrained import error_summary, quiet_loading

Weights = Mapping[str, Tensor]
RenamedWeights = Iterator[tuple[str, Tensor]]

_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class TimmEncoder:
    """The `timm` model that computes the same feature as the image encoder of a vision-language model.

    Attributes:
        architecture: Name of the `timm` model.
        options: Other arguments of the model; JSON values only, since they are saved.
        weights: Its weights with the names of `timm`; the head is not read.
        feature: The original encoder: pixels (B, 3, S, S) to the image feature before the projection (B, D).
        size: Side of the images in pixels.
        processor: A standard image processor of `transformers` with this output.
    """

    architecture: str
    options: Mapping[str, Any]
    weights: Weights
    feature: Callable[[Tensor], Tensor]
    size: int
    processor: Any


def rename_layer(new: str, old: str, weights: Weights) -> RenamedWeights:
    """Yields weight and bias of a layer with its new name.

    Args:
        new: The new name of the layer.
        old: Its name in `weights`.
        weights: Weights with the names of the original encoder.
    """
    for part in ("weight", "bias"):
        yield f"{new}.{part}", weights[f"{old}.{part}"]


def unsupported_encoder(name: str, why: str) -> ModelError:
    """Returns the error for an image encoder that `timm` does not have."""
    return ModelError(f"the image encoder of {name} {why} and cannot be made a classifier; choose another backbone")


def make_classifier(encoder: TimmEncoder, class_names: Sequence[str], name: str) -> Any:
    """Builds the classifier with an uninitialised head, and checks that it computes the feature of the model.

    Args:
        encoder: The image encoder.
        class_names: The K names.
        name: Name of the model, for messages.

    Raises:
        ModelError: `timm` has no such image encoder, or it computes something else.
    """
    import transformers

    settings = transformers.TimmWrapperConfig(
        architecture=encoder.architecture,
        model_args=dict(encoder.options),
        id2label=dict(enumerate(class_names)),
        label2id={label: index for index, label in enumerate(class_names)},
    )
    try:
        with quiet_loading(), torch.random.fork_rng(devices=[]):  # for its random initial weights
            model = transformers.TimmWrapperForImageClassification(settings).eval()
        _load_weights(model.timm_model, encoder.weights)
    except Exception as error:  # each architecture has its own, and transformers one for a timm that is too old
        raise unsupported_encoder(
            name, f"is not quite timm's {encoder.architecture} ({error_summary(error)})"
        ) from error
    _check_same(encoder, model.timm_model, name)
    return model


def _load_weights(timm_model: Any, weights: Weights) -> None:
    head_ids = {id(value) for value in timm_model.get_classifier().parameters()}
    head_weights = {key: value for key, value in timm_model.state_dict(keep_vars=True).items() if id(value) in head_ids}
    timm_model.load_state_dict({**weights, **head_weights})


def _check_same(encoder: TimmEncoder, timm_model: nn.Module, name: str) -> None:
    image = torch.rand(1, 3, encoder.size, encoder.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = encoder.feature(image)
        actual = pooled(timm_model, image)
    same_shape = expected.shape == actual.shape
    error = (
        float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-6)) if same_shape else float("inf")
    )
    if not error < _TOLERANCE:
        raise unsupported_encoder(
            name, f"computes something else than timm's {encoder.architecture} (off by {error:.1g})"
        )


def pooled(timm_model: Any, pixels: Tensor) -> Tensor:
    """Runs a model of `timm` up to its head."""
    return timm_model.forward_head(timm_model.forward_features(pixels), pre_logits=True)  # type: ignore[no-any-return]
