"""Windows of images, and evidence that a class is in one of them."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image

import labelsieve as ls
from labelsieve.core.engine import Engine
from labelsieve.core.errors import SettingsError
from labelsieve.data.images import Images
from labelsieve.data.tags.noise import inject_tags
from labelsieve.detect.folds import random_folds
from labelsieve.detect.inputs import inputs_of_images
from labelsieve.detect.tags import joining, windows
from labelsieve.detect.tags.evidence import discriminant_kinds
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.joint import TagJoint
from labelsieve.detect.tags.label_match import TagLabelMatch
from labelsieve.detect.tags.windows import Views, discriminant_of_views, in_windows, views_of
from labelsieve.tag_metrics import evaluate_pairs
from labelsieve.vlm.base import VisionLanguageModel

CLASSES, VIEWS, WIDTH = 5, 4, 10


def engine() -> Engine:
    return Engine(accelerator=Accelerator(cpu=True), seed=0)


def scattered(count: int = 400, *, seed: int = 0) -> tuple[Views, NDArray[np.bool_]]:
    """Returns views of which each shows one class at most and the whole nothing, and what is there, (n, K)."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(-1, CLASSES, (count, VIEWS - 1))
    truth = (shown[:, :, None] == np.arange(CLASSES)).any(axis=1)
    directions = np.concatenate([np.eye(CLASSES, WIDTH), np.zeros((1, WIDTH))])  # the last is of -1, nothing
    parts = directions[shown] + rng.normal(scale=0.25, size=(count, VIEWS - 1, WIDTH))
    whole = rng.normal(size=(count, WIDTH))
    return views(whole, parts, inject_tags(truth, omit=0.2, add=0.1, seed=seed)), truth


def views(whole: NDArray[np.floating], parts: NDArray[np.floating], tags: NDArray[np.bool_]) -> Views:
    pairs = TagInputs.of_features(
        whole.astype(np.float32),
        tags,
        class_names=[f"class {number}" for number in range(tags.shape[1])],
        engine=engine(),
        text=np.eye(tags.shape[1], whole.shape[1], dtype=np.float32),
        logit_scale=10.0,
    )
    return Views(pairs, parts.astype(np.float32), np.zeros(parts.shape[:2], dtype=bool))


def test_windows_are_parts_of_their_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 60, 90, 3), dtype=np.uint8)
    images = ls.load_tags(pixels, tags=[["cat", "dog"], []])
    found = in_windows(images, 3)
    assert len(found) == 2 * (4 + 9) and type(found) is Images
    assert np.array_equal(np.asarray(found.open(0)), pixels[0, :30, :45])
    assert np.array_equal(np.asarray(found.open(8)), pixels[0, 20:40, 30:60])
    assert np.array_equal(np.asarray(found.open(13 + 12)), pixels[1, 40:, 60:])
    covered = np.zeros((60, 90), dtype=int)
    for row in range(4):
        left, top, right, bottom = found.boxes.area(row, size=(90, 60))  # type: ignore[union-attr]
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all(), "all of the image is looked at"
    assert found.pixels_fingerprint != in_windows(images, 2).pixels_fingerprint != images.pixels_fingerprint


def test_an_image_is_decoded_once_for_all_of_its_windows(tiny_clip: VisionLanguageModel) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (3, 40, 40, 3), dtype=np.uint8)
    images, opened = ls.load_tags(pixels, tags=[["a"], ["b"], []]), list[int]()
    decode = Images._decode

    def counted(self: Images, index: int) -> Image.Image:
        opened.append(int(index))
        return decode(self, index)

    inputs = inputs_of_images(images, tiny_clip, class_names=images.class_names, engine=engine())
    with patch.object(Images, "_decode", counted):
        found = views_of(TagInputs(inputs, images.tags, images), 2)
    assert found is not None and found.count == 5 and len(opened) == 3
    assert not found.zero_shot.requires_grad, "it is kept, and no graph with it"
    window = ls.load_tags(pixels[1:, 20:, 20:], tags=[["a", "b"], []])
    alone = inputs_of_images(window, tiny_clip, class_names=images.class_names, engine=engine())
    np.testing.assert_allclose(found.parts[1, 3], alone.features.pooled[0], atol=1e-5)


def test_without_windows_images_or_texts_there_are_no_views(tiny_clip: VisionLanguageModel) -> None:
    pixels = np.zeros((2, 40, 40, 3), dtype=np.uint8)
    images = ls.load_tags(pixels, tags=[["a", "b"], []])
    inputs = inputs_of_images(images, tiny_clip, class_names=images.class_names, engine=engine())
    assert views_of(TagInputs(inputs, images.tags, images), 1) is None
    assert views_of(TagInputs(inputs, images.tags), 3) is None
    assert views_of(TagInputs(dataclasses.replace(inputs, text=None), images.tags, images), 3) is None
    with pytest.raises(SettingsError, match="expected windows from 1 to 10, got 0"):
        TagJoint(windows=0)


def test_rows_of_views_are_those_of_their_images() -> None:
    found, _ = scattered(20)
    everything = found.of(np.arange(20)).reshape(-1, WIDTH)
    rows = np.array([7, 3, 3, 79, 0])
    assert found.shape == everything.shape and np.array_equal(found[rows], everything[rows])


def test_what_a_view_shows_is_the_log_odds_of_its_softmax() -> None:
    found, _ = scattered(6)
    features = found.of(np.arange(6)).astype(np.float64)
    cosine = features[..., :CLASSES] / np.linalg.norm(features, axis=-1, keepdims=True)
    odds = np.exp(10 * cosine)
    odds /= odds.sum(axis=-1, keepdims=True) - odds
    np.testing.assert_allclose(found.logits(np.arange(6)).exp().numpy(), odds, rtol=2e-3)
    np.testing.assert_allclose(found.zero_shot.exp().numpy(), odds.sum(axis=1), rtol=2e-3)


def test_a_window_that_shows_nothing_counts_for_nothing() -> None:
    found, _ = scattered(30)
    found.blank[4, 1] = True
    fewer = views(found.pairs.images.features.pooled, np.delete(found.parts, 1, axis=1), found.pairs.tags)
    assert torch.equal(found.zero_shot[4], fewer.zero_shot[4]) and not torch.equal(found.zero_shot, fewer.zero_shot)
    deal, weights = np.arange(30) % 3, torch.from_numpy(found.pairs.given).float()
    assert torch.isfinite(discriminant_of_views(found, weights, deal, shrinkage=0.1)(np.arange(30))).all()


def test_the_discriminant_of_whole_images_alone_is_that_of_images() -> None:
    some, truth = scattered(90)
    found = views(some.parts[:, 0].astype(np.float64), some.parts[:, :0], some.pairs.tags)
    deal = random_folds(90, folds=3, generator=torch.Generator().manual_seed(0))
    weights, every = torch.from_numpy(truth).float(), np.arange(90)
    (expected, _) = discriminant_kinds(found.pairs, weights, deal, shrinkages=(0.0, 0.5))
    logits = expected(every) - expected(every).mean(dim=0)
    torch.testing.assert_close(discriminant_of_views(found, weights, deal, shrinkage=0.0)(every), logits)


def test_windows_show_what_the_whole_does_not() -> None:
    found, truth = scattered()
    reached = {}
    silent = patch.object(joining, "other_tags_kind", lambda given, _: lambda here: torch.zeros(len(here), CLASSES))
    for name, each in {"whole": None, "windows": found}.items():
        with silent, patch.object(joining, "views_of", return_value=each):
            scores = TagJoint().score(found.pairs)
        reached[name] = evaluate_pairs(truth=truth, tags=found.pairs.tags, quality=scores.quality, flagged=scores.issue)
    for kind in ("wrong_auroc", "missing_auroc"):
        assert reached["whole"][kind] < 0.65 and reached["windows"][kind] > 0.9  # type: ignore[operator]


@pytest.mark.parametrize("detector", [TagJoint(windows=2), TagLabelMatch(windows=2)], ids=["joint", "label-match"])
def test_a_scan_looks_at_windows(detector: TagJoint | TagLabelMatch, tiny_clip: VisionLanguageModel) -> None:
    pixels = np.random.default_rng(2).integers(0, 255, (12, 40, 40, 3), dtype=np.uint8)
    pixels[3] = pixels[3, :1, :1]
    images = ls.load_tags([*pixels, pixels[0, :3, :3]], tags=[["a"], ["b"], ["a", "b"], []] * 3 + [["a"]])
    whole = dataclasses.replace(detector, windows=1)
    with patch.object(windows, "in_windows", wraps=in_windows) as looked:
        found = [ls.scan_tags(images, tiny_clip, detector=each, device="cpu") for each in (detector, detector, whole)]
    assert looked.call_count == 2, "and not where whole images are asked for"
    assert found[0].table.equals(found[1].table)
    assert all(verdicts.is_readable.all() for verdicts in found), "windows of one pixel do not matter"
