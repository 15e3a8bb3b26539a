"""Small CLIP models for tests, made on the spot; no network, no trained weights."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from labelsieve.demo import MINI_CLIP
from labelsieve.vlm.families.clip import HuggingFaceCLIP

PARITY = Path(__file__).parent / "data" / "parity"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
PROCESSOR = "preprocessor_config.json"


def random_clip(*, attention: str = "sdpa", seed: int = 0) -> Any:
    """Returns a randomly initialised `CLIPModel`: 64 pixels, patches of 16, width 32, 2 layers, words of mini_clip."""
    config: Any = transformers.CLIPConfig.from_pretrained(MINI_CLIP)
    for encoder in (config.text_config, config.vision_config):
        encoder.hidden_size, encoder.intermediate_size = 32, 48
        encoder.num_hidden_layers, encoder.num_attention_heads = 2, 2
    config.vision_config.patch_size = 16
    config.projection_dim = 24
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.CLIPModel(config)
        for name, value in model.named_parameters():
            if "norm" not in name and name != "logit_scale":
                torch.nn.init.normal_(value, std=0.2)  # so that features differ from text to text and image to image
    return model.eval()


def model_folder(folder: Path, *, model: Any = None) -> Path:
    """Saves a model, random by default, with the tokenizer and image processor of mini_clip."""
    (random_clip() if model is None else model).save_pretrained(folder)
    for name in (*TOKENIZER, PROCESSOR):
        shutil.copy(MINI_CLIP / name, folder)
    return folder


@cache
def tiny_folder() -> Path:
    """Returns the folder of a random model, for what no trained weights are needed for. It is removed at the end."""
    folder = tempfile.TemporaryDirectory(prefix="labelsieve-tests-")
    atexit.register(folder.cleanup)
    return model_folder(Path(folder.name) / "clip")


def edit_json(path: Path, **changes: Any) -> None:
    """Changes entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Any) -> None:
    """Lets a function change the state dictionary of a saved model in place."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


class StubTokenizer:
    """Knows the class names of the parity data and the full stop, by the ids of the truncated vocabulary."""

    bos_token_id, eos_token_id = 526, 527

    def __init__(self, names: Sequence[str], ids: torch.Tensor, lengths: Sequence[int]) -> None:
        first = 5  # after the start and 4 place holders
        self.words = {name: row[first : first + n].tolist() for name, row, n in zip(names, ids, lengths, strict=True)}
        self.words["."] = [int(ids[0, first + lengths[0]])]
        self.words["photo"] = [7]

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        before, rest = ("photo", text.removeprefix("photo").strip()) if text.startswith("photo") else ("", text)
        inner = [token for part in (before, rest) if part for token in self.words[part]]
        return {"input_ids": [self.bos_token_id, *inner, self.eos_token_id] if add_special_tokens else inner}


class StubProcessor:
    """The parity images are tensors already, so nothing processes them."""

    def to_json_string(self) -> str:
        return "{}"


def parity(name: str) -> dict[str, Any]:
    """Returns the arrays of one parity file as tensors; texts as lists."""
    with np.load(PARITY / f"{name}.npz", allow_pickle=False) as file:
        return {
            key: value.tolist() if value.dtype.kind == "U" else torch.from_numpy(value) for key, value in file.items()
        }


def parity_clip() -> HuggingFaceCLIP:
    """Returns the tiny CLIP that the parity tensors were made with."""
    init = parity("init")
    tokenizer = StubTokenizer(init["class_names"], init["pos_ids"], init["name_lengths"].tolist())
    model = transformers.CLIPModel.from_pretrained(PARITY / "tiny_clip", local_files_only=True)
    return HuggingFaceCLIP(model, tokenizer, StubProcessor(), name="tiny_clip")
