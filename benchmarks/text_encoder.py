"""Measures the text features of dual prompts, forward and backward, against encoding each prompt alone.

Alone means what the published code does: 2K prompts of 77 tokens through the encoder, in fp32. The encoder has the
sizes of CLIP ViT-B/16's (12 blocks of width 512) with random weights; names have one to three words. Each measurement
runs in a process of its own, whose peak memory is that above the idle one. More than `--most` classes do not fit the
memory plainly: they are encoded in parts of so many, whose times add up, and their memory is the line through the two
largest that fit.

Example::

    python benchmarks/text_encoder.py --out text-encoder.csv
"""

from __future__ import annotations

import csv
import dataclasses
import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, CLIPConfig, CLIPModel

from labelsieve.core.engine import make_engine
from labelsieve.core.memory import reuse_allocations
from labelsieve.demo import MINI_CLIP
from labelsieve.vlm.families.clip import HuggingFaceCLIP

WORDS = ("cat", "cup", "tree", "boat", "house", "fish", "star", "sun", "leaf", "key")
LENGTH = 77


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """What to measure.

    Attributes:
        out: CSV file to write; a Markdown table is printed.
        classes: K, in ascending order.
        most: The largest K that is encoded plainly at once.
        tokens: M.
        rounds: Passes of each kind where they take less than half a minute; the quickest counts.
        precision: Of ours; `auto` is what a scan takes. Plainly is fp32 always.
        one: Measure one kind only, in this process, and print it as JSON.
    """

    out: Path | None = None
    classes: tuple[int, ...] = (10, 100, 1000)
    most: int = 100
    tokens: int = 16
    rounds: int = 3
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    one: Literal["plain", "ours", "idle"] | None = None


def small_model() -> HuggingFaceCLIP:
    """Returns a CLIP whose text encoder has the sizes of ViT-B/16's, and random weights."""
    config: Any = CLIPConfig.from_pretrained(MINI_CLIP)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.num_attention_heads = 512, 2048, 12, 8
    text.max_position_embeddings, config.projection_dim = LENGTH, 512
    torch.manual_seed(0)
    tokenizer, processor = AutoTokenizer.from_pretrained(MINI_CLIP), AutoImageProcessor.from_pretrained(MINI_CLIP)
    return HuggingFaceCLIP(CLIPModel(config), tokenizer, processor, name="ViT-B/16-sized")


def names(count: int) -> list[str]:
    """Returns class names of one to three words."""
    return [" ".join(WORDS[(k // 10**place) % 10] for place in range(1 + k % 3)) for k in range(count)]


def measure(settings: TextEncoder, classes: int) -> dict[str, float]:
    """Returns seconds and peak memory in bytes of one kind, in this process."""
    vlm, engine = small_model(), make_engine(device="cpu", precision=settings.precision)
    ids, _ = vlm.tokenize_names(names(classes), context_tokens=settings.tokens)
    contexts = [torch.randn(settings.tokens, 512).mul(0.02).requires_grad_() for _ in range(2)]
    if settings.one == "plain":
        ids = torch.nn.functional.pad(ids, (0, LENGTH - ids.shape[1]), value=vlm.pad)

    def step(part: Tensor) -> None:
        if settings.one == "plain":
            features = [vlm._encode_unshared(context, part) for context in contexts]
        else:
            with engine.autocast():
                features = [vlm.encode_prompts(context, part) for context in contexts]
        torch.stack(features).float().square().sum().backward()

    best = float("inf")
    with reuse_allocations() if settings.one == "ours" else nullcontext():  # as training does
        for _ in range(settings.rounds if settings.one != "idle" else 0):
            started = time.perf_counter()
            for part in ids.split(settings.most if settings.one == "plain" else len(ids)):
                step(part)
            best = min(best, time.perf_counter() - started)
            if best > 30:
                break
    return {"seconds": best, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}


def apart(settings: TextEncoder, kind: str, classes: int) -> dict[str, float]:
    """Measures one kind in a process of its own."""
    options = ["--classes", classes, "--one", kind, "--most", settings.most, "--tokens", settings.tokens]
    options += ["--rounds", settings.rounds, "--precision", settings.precision]
    done = subprocess.run([sys.executable, __file__, *map(str, options)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def run(settings: TextEncoder) -> None:
    """Measures everything, prints a Markdown table, writes the CSV."""
    idle, rows = apart(settings, "idle", 10)["peak"], []
    memory = {k: apart(settings, "plain", k)["peak"] - idle for k in (settings.most // 2, settings.most)}
    slope = (memory[settings.most] - memory[settings.most // 2]) / (settings.most - settings.most // 2)
    print("| K | plain, s | ours, s | ratio | plain, GiB | ours, GiB | ratio |\n|---:|---:|---:|---:|---:|---:|---:|")
    for classes in settings.classes:
        plain, ours = (apart(settings, kind, classes) for kind in ("plain", "ours"))
        extrapolated = classes > settings.most
        peak = memory[settings.most] + slope * (classes - settings.most) if extrapolated else plain["peak"] - idle
        row: dict[str, Any] = {
            "classes": classes,
            "tokens": settings.tokens,
            "precision": settings.precision,
            "plain_seconds": round(plain["seconds"], 3),
            "ours_seconds": round(ours["seconds"], 4),
            "ratio": round(plain["seconds"] / ours["seconds"], 1),
            "plain_gib": round(peak / 2**30, 3),
            "plain_gib_extrapolated": extrapolated,
            "ours_gib": round((ours["peak"] - idle) / 2**30, 3),
        }
        rows.append(row)
        ratio = f"{row['plain_gib'] / max(row['ours_gib'], 1e-3):.1f}"
        cells = [row[key] for key in ("classes", "plain_seconds", "ours_seconds", "ratio", "plain_gib", "ours_gib")]
        print("| " + " | ".join(map(str, [*cells, ratio])) + " |", flush=True)
    if settings.out is not None:
        with settings.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    chosen = tyro.cli(TextEncoder, description=__doc__)
    if chosen.one is None:
        run(chosen)
    else:
        print(json.dumps(measure(chosen, chosen.classes[0])))
