"""The synthetic sketches and the bundled CLIP model."""

import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, PreTrainedTokenizerBase

from labelsieve.demo import MINI_CLIP
from labelsieve.demo.sketches import (
    CLASS_NAMES,
    DEMO_STYLE,
    PRETRAINING_STYLE,
    SIMILAR,
    Style,
    draw,
    render,
    sketches,
)

STYLES = pytest.mark.parametrize("style", [DEMO_STYLE, PRETRAINING_STYLE], ids=["demo", "pretraining"])


def _bytes(pictures: list[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


@STYLES
def test_same_seed_gives_the_same_drawings(style: Style) -> None:
    first, first_labels = sketches(32, seed=5, style=style)
    second, second_labels = sketches(32, seed=5, style=style)
    assert _bytes(first) == _bytes(second)
    assert np.array_equal(first_labels, second_labels)


def test_other_seed_gives_other_drawings() -> None:
    first, _ = sketches(32, seed=5)
    second, _ = sketches(32, seed=6)
    assert not set(_bytes(first)) & set(_bytes(second))


def test_a_larger_set_is_balanced_and_shuffled() -> None:
    pictures, labels = sketches(160, seed=0)
    assert len(pictures) == 160
    assert np.bincount(labels).tolist() == [10] * len(CLASS_NAMES)
    assert labels[:16].tolist() != sorted(labels[:16].tolist())


def test_no_drawings() -> None:
    pictures, labels = sketches(0, seed=0)
    assert pictures == []
    assert labels.shape == (0,)


@STYLES
def test_every_class_draws(style: Style, subtests: pytest.Subtests) -> None:
    for name in CLASS_NAMES:
        with subtests.test(name):
            picture = draw(name, rng=np.random.default_rng(3), style=style)
            assert picture.size == (64, 64)
            assert picture.mode == "RGB"
            assert np.asarray(picture).std() > 5


@STYLES
def test_classes_differ_in_the_same_pose_and_colours(style: Style) -> None:
    pictures = [draw(name, rng=np.random.default_rng(3), style=style) for name in CLASS_NAMES]
    assert len(set(_bytes(pictures))) == len(CLASS_NAMES)


def test_unknown_class_is_refused() -> None:
    with pytest.raises(KeyError, match="zebra"):
        draw("zebra", rng=np.random.default_rng(0), style=DEMO_STYLE)


def test_styles_share_no_colours() -> None:
    for options in ("palette", "grounds"):
        assert not set(dict(getattr(DEMO_STYLE, options))) & set(dict(getattr(PRETRAINING_STYLE, options)))


def test_description_names_colours_of_the_style() -> None:
    drawing = render("cat", rng=np.random.default_rng(0), style=PRETRAINING_STYLE)
    assert drawing.colour in dict(PRETRAINING_STYLE.palette)
    assert drawing.ground in dict(PRETRAINING_STYLE.grounds)
    assert drawing.background in dict(PRETRAINING_STYLE.backgrounds)


def test_every_class_has_a_similar_other_class() -> None:
    assert tuple(SIMILAR) == CLASS_NAMES == tuple(sorted(CLASS_NAMES))
    assert all(other in CLASS_NAMES and other != name for name, other in SIMILAR.items())


def test_drawing_needs_no_torch() -> None:
    code = "import sys, labelsieve.demo.sketches; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bundled_model_is_small() -> None:
    assert sum(file.stat().st_size for file in MINI_CLIP.iterdir()) <= 8_000_000


@cache
def _load() -> tuple[CLIPModel, PreTrainedTokenizerBase, Any]:
    return (
        CLIPModel.from_pretrained(MINI_CLIP, dtype=torch.float32, local_files_only=True).eval(),
        AutoTokenizer.from_pretrained(MINI_CLIP, local_files_only=True),
        AutoImageProcessor.from_pretrained(MINI_CLIP, local_files_only=True),
    )


@torch.no_grad()
def test_bundled_model_is_good_but_not_perfect_on_the_demonstration() -> None:
    model, tokenizer, processor = _load()
    pictures, labels = sketches(160, seed=11)
    prompts = tokenizer([f"a photo of a {name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
    scores = model(**prompts, **processor(images=pictures, return_tensors="pt")).logits_per_image
    accuracy = float((scores.argmax(dim=1).numpy() == labels).mean())
    assert 0.6 <= accuracy <= 0.9


@pytest.mark.parametrize("text", ["a photo of a zebra, 42 %", "¿qué? œuvre 日本 🙂", "", "xq qx zq"])
def test_tokenizer_knows_every_text(text: str) -> None:
    _, tokenizer, _ = _load()
    tokens = tokenizer(text)["input_ids"]
    assert tokens[0] == tokenizer.bos_token_id
    # The token for the end is also that for the unknown, and must appear only once.
    assert tokens.index(tokenizer.eos_token_id) == len(tokens) - 1
