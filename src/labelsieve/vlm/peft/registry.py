"""The table of parameter-efficient modules: phase 1, phase 2, `--help` and `labelsieve list` derive from it.

Nothing here loads torch. A new module is one file with a function `build`, and one line in `PEFT`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labelsieve.core.registry import Entry, Registry


@dataclass(frozen=True)
class PeftEntry(Entry):
    """One kind of module.

    Attributes:
        parameters: How many are trained with CLIP ViT-B/16 and the defaults.
        phase_2: What becomes of it there: `merged` into the weights at the end by its `merge(encoder)`, or still
            `attached`, so that the model cannot be saved as a standard one. `unused` there are those that `--tune` has
            a function of its own for, as the weights of a backbone are trained in place.
        is_prompted: Whether it trains visual prompts, which need blocks with one sequence of tokens.
        is_full: Whether it trains whole weights, at a far lower learning rate than the others.
    """

    parameters: int = 0
    phase_2: Literal["merged", "attached", "unused"] = "unused"
    is_prompted: bool = False
    is_full: bool = False


_PEFT = "labelsieve.vlm.peft."
PEFT: Registry[Callable[..., Any], PeftEntry] = Registry(
    "--peft",
    PeftEntry(
        "none",
        _PEFT + "base:no_module",
        "the image encoder stays frozen: prompts are trained on cached features, fast on a CPU",
    ),
    PeftEntry(
        "vpt-deep",
        _PEFT + "vpt:build_deep",
        "learned tokens beside the patches, new ones in each block: the paper's choice",
        parameters=184_320,
        phase_2="attached",
        is_prompted=True,
    ),
    PeftEntry(
        "vpt-shallow",
        _PEFT + "vpt:build_shallow",
        "learned tokens beside the patches, in the first block only",
        parameters=15_360,
        phase_2="attached",
        is_prompted=True,
    ),
    PeftEntry("lora", _PEFT + "lora:build", "a low-rank change of the query and value projections", parameters=294_912),
    PeftEntry(
        "adapter",
        _PEFT + "adapter:build",
        "a small bottleneck behind the MLP of each block",
        parameters=175_200,
        phase_2="attached",
    ),
    PeftEntry(
        "ssf",
        _PEFT + "ssf:build",
        "a scale and a shift behind each linear layer of the blocks",
        parameters=165_888,
        phase_2="merged",
    ),
    PeftEntry("bitfit", _PEFT + "bitfit:build", "all biases of the image encoder", parameters=102_912),
    PeftEntry(
        "full",
        _PEFT + "full:build",
        "the whole image encoder, at a low --learning-rate",
        parameters=85_799_424,
        is_full=True,
    ),
    PeftEntry(
        "full-paper",
        _PEFT + "full:build_paper",
        "the transformer blocks alone, without embeddings and outer layer norms, as in the paper's code",
        parameters=85_054_464,
        is_full=True,
    ),
)

if TYPE_CHECKING:
    PeftKind = str
else:
    PeftKind = Literal[("auto", *PEFT)]
