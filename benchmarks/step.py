"""Measures a whole step of phase 1 against the same step written plainly, with visual prompts, at ViT-B/16's sizes.

Ours is the step of a scan with `--peft vpt-deep`: real losses, real optimiser, the precision that a scan takes here.
Plainly means as the published code does it, in fp32: 2K prompts of 77 tokens through the text encoder, attention
without a fused kernel, one pass for the pictures and one for each set of prompts. The plain parts are timed one
after the other, the pictures `--part` at a time, because together they do not fit into 24 GiB; their times add up.

Example::

    python benchmarks/step.py
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import tyro
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig, CLIPModel

from labelsieve.core.engine import make_engine
from labelsieve.core.memory import reuse_allocations
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.deft.detector import RECIPES
from labelsieve.detect.deft.objective import DualObjective
from labelsieve.detect.training.compiling import compiled
from labelsieve.detect.training.learner import Learner
from labelsieve.detect.training.loop import Step
from labelsieve.vlm.families.clip import HuggingFaceCLIP
from text_encoder import LENGTH, names


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseOneStep:
    """What to measure.

    Attributes:
        batch: B.
        classes: K.
        part: Images at a time where it is done plainly.
        rounds: Steps of ours after the first; the quickest counts.
        compile: Whether ours is compiled, as a scan does where training takes minutes.
        device: Where.
    """

    batch: int = 64
    classes: int = 200
    part: int = 16
    rounds: int = 2
    compile: bool = True
    device: str = "auto"


def model(attention: str) -> HuggingFaceCLIP:
    """Returns a CLIP of ViT-B/16's sizes with random weights."""
    config: Any = CLIPConfig.from_pretrained(MINI_CLIP)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.num_attention_heads = 512, 2048, 12, 8
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers = 768, 3072, 12
    vision.num_attention_heads, vision.image_size, vision.patch_size = 12, 224, 16
    text.max_position_embeddings, config.projection_dim, config._attn_implementation = LENGTH, 512, attention
    torch.manual_seed(0)
    processor = AutoImageProcessor.from_pretrained(MINI_CLIP)
    return HuggingFaceCLIP(
        CLIPModel(config), AutoTokenizer.from_pretrained(MINI_CLIP), processor, name="ViT-B/16-sized"
    )


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Returns the seconds that some work takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def ours(options: PhaseOneStep, pixels: Tensor, labels: Tensor) -> tuple[float, str]:
    """Returns the seconds of a step after the first, and the precision."""
    engine = make_engine(device=options.device)
    settings = replace(RECIPES["paper-real"], peft="vpt-deep")
    vlm = model("sdpa").to(engine.device)
    learner = Learner(vlm, tuple(names(options.classes)), settings=settings, engine=engine)
    objective = DualObjective(settings, warmup=1, images=options.batch, classes=options.classes, engine=engine)
    optimizer = torch.optim.SGD(learner.parameters(), lr=3e-2, momentum=0.9)
    pixels, labels = pixels.to(engine.device), labels.to(engine.device)

    def step() -> None:
        with engine.autocast():
            pooled = vlm.pool(pixels).float()
        similarities = learner.similarities(pooled, learner.text(negative=False))
        seen = Step(*similarities, labels=labels, rows=torch.arange(options.batch), epoch=2)
        read = objective.required_negatives(seen)
        if read is not None:
            seen = replace(seen, negative=learner.negative_similarities(pooled, read.trained, others=read.others))
        loss, _ = objective(seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    blocks = vlm.vision_layers if options.compile else ()
    with learner.attached(), compiled(blocks, batch=options.batch), reuse_allocations():
        timed(step, engine.device)
        best = min(timed(step, engine.device) for _ in range(options.rounds))
    return best, engine.precision + (", compiled" if options.compile else "")


def plainly(options: PhaseOneStep, pixels: Tensor) -> dict[str, float]:
    """Returns the seconds of each part of a step."""
    engine = make_engine(device=options.device, precision="fp32")
    settings = replace(RECIPES["paper-real"], peft="vpt-deep")
    vlm = model("eager").to(engine.device)
    learner = Learner(vlm, tuple(names(options.classes)), settings=settings, engine=engine)
    ids = learner.prompts.token_ids
    ids = torch.nn.functional.pad(ids, (0, LENGTH - ids.shape[1]), value=vlm.pad).to(engine.device)

    def image() -> None:
        for part in pixels.split(options.part):
            vlm.project(vlm.pool(part.to(engine.device))).square().sum().backward()

    def text(context: Tensor) -> None:
        vlm._encode_unshared(context, ids).square().sum().backward()

    with learner.attached():
        timed(lambda: vlm.project(vlm.pool(pixels[: options.part].to(engine.device))).sum().backward(), engine.device)
        pictures = timed(image, engine.device)
    positive = timed(lambda: text(learner.prompts.positive), engine.device)
    return {"pictures": pictures, "V+": positive, "V-": timed(lambda: text(learner.prompts.negative), engine.device)}


def run(options: PhaseOneStep) -> None:
    """Prints both, and the ratio."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(options.batch, 3, 224, 224, generator=generator)
    labels = torch.randint(0, options.classes, (options.batch,), generator=generator)
    best, precision = ours(options, pixels, labels)
    print(f"ours ({precision}): {best:.2f} s", flush=True)
    parts = plainly(options, pixels)
    whole = sum(parts.values())
    told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    print(f"plainly (fp32): {whole:.2f} s ({told})\nratio: {whole / best:.1f}")


if __name__ == "__main__":
    run(tyro.cli(PhaseOneStep, description=__doc__))
