"""Scenes: several sketches on one sheet, with boxes and tags, and the files of them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageChops

import labelsieve as ls
from labelsieve.bench.config import Data
from labelsieve.bench.synthetic import SYNTHETIC_SOURCES
from labelsieve.core.errors import SettingsError
from labelsieve.demo.scenes import MAX_OVERLAP, Scene, scenes, single_images, write_coco, write_tags
from labelsieve.demo.sketches import CLASS_NAMES, DEMO_STYLE

QUIET = replace(DEMO_STYLE, backgrounds=(("plain", 1.0),), clutter=0, noise=0.0)
"""Nothing but shapes on paper of one colour."""


@cache
def few() -> list[Scene]:
    return scenes(6, seed=3)


def test_same_seed_gives_the_same_scenes() -> None:
    for one, two in zip(few(), scenes(6, seed=3), strict=True):
        assert one.image.tobytes() == two.image.tobytes()
        assert np.array_equal(one.labels, two.labels) and np.array_equal(one.boxes, two.boxes)
    assert few()[0].image.tobytes() != scenes(1, seed=4)[0].image.tobytes()


def test_a_scene_has_as_many_shapes_as_asked_for_on_one_sheet() -> None:
    for scene in few():
        count = len(scene.labels)
        assert 3 <= count <= 8
        assert scene.labels.dtype == np.int64
        assert scene.boxes.shape == (count, 4) and scene.boxes.dtype == np.float64
        assert (scene.image.size, scene.image.mode) == ((256, 256), "RGB")
        assert scene.tags == sorted({CLASS_NAMES[label] for label in scene.labels})


def test_classes_are_balanced() -> None:
    counts = np.bincount(np.concatenate([scene.labels for scene in few()]), minlength=len(CLASS_NAMES))
    assert np.ptp(counts) <= 1


def test_shapes_hardly_overlap_and_lie_on_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [*few()]
    monkeypatch.setattr("labelsieve.demo.scenes._SHAPES", (12, 12))
    for scene in [*drawn, *scenes(1, seed=0)]:
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, :2] + scene.boxes[:, 2:] <= 256).all()
        for (left, top, width, height), other in combinations(scene.boxes, 2):
            across = min(left + width, other[0] + other[2]) - max(left, other[0])
            down = min(top + height, other[1] + other[3]) - max(top, other[1])
            shared = max(0.0, across) * max(0.0, down)
            # a row of pixels that are too pale to be seen may be missing of the boxes that were placed
            assert shared <= 1.1 * MAX_OVERLAP * min(width * height, other[2] * other[3])


def test_a_box_is_tight_around_all_that_differs_from_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelsieve.demo.scenes._STYLE", QUIET)
    monkeypatch.setattr("labelsieve.demo.scenes._SHAPES", (1, 1))
    for scene in scenes(24, seed=1):
        paper = Image.new("RGB", scene.image.size, scene.ground)
        left, top, right, bottom = ImageChops.difference(scene.image, paper).getbbox() or (0, 0, 0, 0)
        measured = [left, top, right - left, bottom - top]
        # a pixel that the shape covers by a hundredth may have the colour of the paper all the same
        assert np.abs(scene.boxes[0] - measured).max() <= 1
        assert 48 <= scene.boxes[0, 2:].max() <= 112


def test_boxes_of_several_shapes_hold_all_that_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelsieve.demo.scenes._STYLE", QUIET)
    for scene in scenes(3, seed=2):
        paper = Image.new("RGB", scene.image.size, scene.ground)
        drawn = np.asarray(ImageChops.difference(scene.image, paper)).max(axis=2) > 0
        inside = np.zeros_like(drawn)
        for left, top, width, height in scene.boxes.astype(int):
            inside[top : top + height, left : left + width] = True
            assert drawn[top : top + height, left : left + width].mean() > 0.1
        assert not (drawn & ~inside).any()


def test_a_shape_alone_is_that_of_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelsieve.demo.scenes._STYLE", QUIET)
    monkeypatch.setattr("labelsieve.demo.scenes._SHAPES", (1, 1))
    scene = scenes(1, seed=5)[0]
    (alone,) = single_images(scene)
    assert (alone.size, alone.mode) == ((64, 64), "RGB")
    left, top, right, bottom = ImageChops.difference(alone, Image.new("RGB", (64, 64), scene.ground)).getbbox()  # type: ignore[misc]
    x, y, width, height = scene.boxes[0]
    cut = scene.image.crop((int(x), int(y), int(x + width), int(y + height)))
    first, second = (
        np.asarray(each.resize((32, 32)), dtype=np.float64) for each in (cut, alone.crop((left, top, right, bottom)))
    )
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


def test_shapes_alone_come_in_the_order_of_the_labels() -> None:
    images = single_images(few()[0])
    assert len(images) == len(few()[0].labels)
    assert [each.tobytes() for each in images] == [each.tobytes() for each in single_images(few()[0])]


def test_a_coco_file_says_what_is_where(tmp_path: Path) -> None:
    path = write_coco(tmp_path, few())
    found = json.loads(path.read_text())

    assert [each["name"] for each in found["categories"]] == list(CLASS_NAMES)
    assert [each["id"] for each in found["categories"]] == list(range(1, len(CLASS_NAMES) + 1))
    assert [each["id"] for each in found["annotations"]] == list(range(sum(len(scene.labels) for scene in few())))
    for about, scene in zip(found["images"], few(), strict=True):
        with Image.open(tmp_path / "images" / about["file_name"]) as image:
            assert image.tobytes() == scene.image.tobytes()
        assert (about["width"], about["height"]) == scene.image.size
        own = [each for each in found["annotations"] if each["image_id"] == about["id"]]
        assert [each["category_id"] - 1 for each in own] == scene.labels.tolist()
        assert [each["bbox"] for each in own] == scene.boxes.tolist()
        assert all(each["area"] == each["bbox"][2] * each["bbox"][3] and each["iscrowd"] == 0 for each in own)
    before = path.read_bytes()
    assert write_coco(tmp_path, scenes(6, seed=3)).read_bytes() == before


@pytest.mark.slow
def test_boxes_and_single_shapes_are_the_same_data(tmp_path: Path) -> None:
    boxes = ls.load_images(write_coco(tmp_path, scenes(2, seed=0)))
    drawn, shapes = (SYNTHETIC_SOURCES[name].draw(tmp_path, 2, 0) for name in ("scenes", "scene-shapes"))
    assert isinstance(shapes, ls.LabelledImages)
    assert boxes.fingerprint == drawn.fingerprint
    assert boxes.class_names == shapes.class_names == CLASS_NAMES
    assert boxes.labels.tolist() == shapes.labels.tolist()
    assert shapes.open(0).size == (64, 64)


def test_tags_are_lists_of_names_beside_the_images(tmp_path: Path) -> None:
    table = pq.read_table(write_tags(tmp_path / "tags.parquet", few()))
    assert table.column("tags").to_pylist() == [scene.tags for scene in few()]
    assert b'"_type": "Image"' in table.schema.metadata[b"huggingface"]
    for value, scene in zip(table.column("image").to_pylist(), few(), strict=True):
        with Image.open(io.BytesIO(value["bytes"])) as image:
            assert image.tobytes() == scene.image.tobytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 0}, "expected count from 1 to 5,000, got 0"),
        ({"seed": -1}, r"expected seed from 0 to below 2\^63, got -1"),
    ],
)
def test_a_wrong_argument_gives_one_line(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"count": 1, "seed": 0} | changed
    with pytest.raises(SettingsError, match=f"^{message}$"):
        scenes(arguments.pop("count"), **arguments)


@pytest.mark.parametrize("source", ["scenes", "scene-shapes"])
def test_an_experiment_draws_so_many_scenes(source: str) -> None:
    assert Data(source=source, limit=5000, test=source).test_source == source
    with pytest.raises(SettingsError, match=r"^expected limit from 1 to 5,000, got 6000$"):
        Data(source=source, limit=6000)
    with pytest.raises(SettingsError, match=f"^`{source}` have no splits; leave test_split out$"):
        Data(source=source, test_split="test")
