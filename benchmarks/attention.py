"""Measures a training step of visual prompts with attention written out, against PyTorch's own, in bf16.

Both are measured in turn in this process, on a vision transformer with random weights: a forward and a backward pass of
one batch, the quickest of several. The ratio is above 1 where writing it out pays, as it should on a CPU.

Example::

    OMP_NUM_THREADS=1 python benchmarks/attention.py
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import nullcontext

import torch
import tyro
from transformers import CLIPVisionConfig, CLIPVisionModel

from labelsieve.core.attention import ExplicitAttention

# Side of the picture, side of a patch, width, heads, blocks.
IMAGE_ENCODERS = {
    "small 32/4": (32, 4, 256, 4, 6),
    "ViT-B/32": (224, 32, 768, 12, 12),
    "ViT-B/16": (224, 16, 768, 12, 12),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """What to measure.

    Attributes:
        batch: B.
        rounds: Passes of each kind.
    """

    batch: int = 32
    rounds: int = 5


def seconds(encoder: CLIPVisionModel, pixels: torch.Tensor, *, written_out: bool) -> float:
    """Returns the time of a forward and a backward pass down to the pixels, as prompts in the first block need it."""
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16), ExplicitAttention() if written_out else nullcontext():
        pooled = encoder(pixel_values=pixels).pooler_output
    pooled.float().sum().backward()
    return time.perf_counter() - started


def run(settings: Attention) -> None:
    """Prints a Markdown table."""
    print("| encoder | tokens | PyTorch's own, s | written out, s | ratio |\n|---|---:|---:|---:|---:|")
    for name, (side, patch, width, heads, blocks) in IMAGE_ENCODERS.items():
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            image_size=side,
            patch_size=patch,
        )
        encoder = CLIPVisionModel(config).eval().requires_grad_(False)
        pixels = torch.randn(settings.batch, 3, side, side).requires_grad_()
        times: dict[bool, list[float]] = {False: [], True: []}
        for number in range(settings.rounds + 1):
            for written_out in times:
                found = seconds(encoder, pixels, written_out=written_out)
                if number:  # the first pass warms up
                    times[written_out].append(found)
        own, mine = min(times[False]), min(times[True])
        tokens = (side // patch) ** 2 + 1
        print(f"| {name} | {tokens} | {own:.2f} | {mine:.2f} | {own / mine:.2f} |", flush=True)


if __name__ == "__main__":
    run(tyro.cli(Attention, description=__doc__))
