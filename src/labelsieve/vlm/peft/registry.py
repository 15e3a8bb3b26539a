"""The table of parameter-efficient modules: phase 1, phase 2, `--help` and `labelsieve list` derive from it.

Nothing here loads torch. A new module is one file with a function `build`, and one line in `PEFT`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry


@dataclass(frozen=True)
class Module(Entry):
    """One kind of module.

    Attributes:
        values: Number of trainable parameters with CLIP ViT-B/16 and the defaults.
        backbone: Its use in phase 2: none, merged into the weights at the end by its `merge(encoder)`, or attached to
            the model, which then cannot be saved as a standard one.
    """

    values: int = 0
    backbone: Literal["no", "merges", "stays"] = "no"


_PEFT = "labelsieve.vlm.peft."
PEFT: Registry[Callable[..., Any], Module] = Registry(
    "--peft",
    Module(
        "none",
        _PEFT + "base:no_module",
        "the image encoder stays frozen: prompts are trained on cached features, fast on a CPU",
    ),
    Module(
        "vpt-deep",
        _PEFT + "vpt:build_deep",
        "learned tokens beside the patches, new ones in each block: the paper's choice",
        values=184_320,
        backbone="stays",
    ),
    Module(
        "vpt-shallow",
        _PEFT + "vpt:build_shallow",
        "learned tokens beside the patches, in the first block only",
        values=15_360,
        backbone="stays",
    ),
    Module("lora", _PEFT + "lora:build", "a low-rank change of the query and value projections", values=294_912),
    Module(
        "adapter",
        _PEFT + "adapter:build",
        "a small bottleneck behind the MLP of each block",
        values=175_200,
        backbone="stays",
    ),
    Module(
        "ssf",
        _PEFT + "ssf:build",
        "a scale and a shift behind each linear layer of the blocks",
        values=165_888,
        backbone="merges",
    ),
    Module("bitfit", _PEFT + "bitfit:build", "all biases of the image encoder", values=102_912),
    Module("full", _PEFT + "full:build", "the whole image encoder, at a low --learning-rate", values=85_799_424),
    Module(
        "full-paper",
        _PEFT + "full:build_paper",
        "the transformer blocks alone, without embeddings and outer layer norms, as in the paper's code",
        values=85_054_464,
    ),
)

if TYPE_CHECKING:
    PeftKind = str
else:
    PeftKind = Literal[("auto", *PEFT)]
