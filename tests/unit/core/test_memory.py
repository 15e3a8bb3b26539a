"""Where models lie in memory."""

from __future__ import annotations

import torch
from torch import nn

from labelsieve.core.memory import move


def test_only_convolutional_models_get_channels_last() -> None:
    """The one convolution of a transformer cuts the image into patches."""
    patches = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Linear(16, 2))
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    pixels = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    expected = layers(pixels)
    for model, is_last in ((patches, False), (layers, True)):
        move(model, torch.device("cpu"))
        weights = [weight for weight in model.parameters() if weight.ndim == 4]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights) == is_last
    torch.testing.assert_close(layers(pixels), expected)
