"""Synthetic data of experiments: sketches, scenes of them with boxes or with tags, and the shapes of scenes.

All labels of scenes and their shapes are right; 30 % of those of the sketches are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.core.validation import SceneCount, SketchCount

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.tags.records import TaggedImages

SCENE_TAGS = "scene-tags"
TEST_SEED = 1_000_000
"""Seed of synthetic test images."""


@dataclass(frozen=True, kw_only=True)
class SyntheticSource:
    """A source of synthetic data.

    Attributes:
        draw: Draws and loads them, given a folder for files, their number and a seed.
        limits: Type and range of their number.
        count: Default number.
        test_count: Default number of test data.
        images: Mean number of images, or boxes, of each.
        has_tags: Whether images have tags.
    """

    draw: Callable[[Path, int, int], LabelledImages | TaggedImages]
    limits: Any
    count: int
    test_count: int
    images: float = 1.0
    has_tags: bool = False

    def count_for(self, images: float) -> int:
        """Returns the number that has a given mean number of images."""
        return math.ceil(images / self.images)


def _sketches(folder: Path, count: int, seed: int) -> LabelledImages:
    from labelsieve.demo.run import write_sketches

    return write_sketches(folder / f"drawings-{count}-{seed}.parquet", count=count, seed=seed)


def _scenes(folder: Path, count: int, seed: int) -> LabelledImages:
    from labelsieve.data.loading import load_images
    from labelsieve.demo.scenes import scenes, write_coco

    return load_images(write_coco(folder / f"scenes-{count}-{seed}", scenes(count, seed=seed)))


def _scene_shapes(_folder: Path, count: int, seed: int) -> LabelledImages:
    from labelsieve.data.loading import load_images
    from labelsieve.demo.scenes import scenes, single_images
    from labelsieve.demo.sketches import CLASS_NAMES

    drawn = scenes(count, seed=seed)
    images = [image for scene in drawn for image in single_images(scene)]
    labels = [CLASS_NAMES[label] for scene in drawn for label in scene.labels]
    return load_images(images, labels=labels, class_names=CLASS_NAMES)


def _scene_tags(folder: Path, count: int, seed: int) -> TaggedImages:
    from labelsieve.data.tags.loading import load_tags
    from labelsieve.demo.scenes import scenes, write_tags
    from labelsieve.demo.sketches import CLASS_NAMES

    path = folder / f"scene-tags-{count}-{seed}.parquet"
    return load_tags(write_tags(path, scenes(count, seed=seed)), class_names=CLASS_NAMES)


SYNTHETIC_SOURCES: Mapping[str | None, SyntheticSource] = {
    "drawings": SyntheticSource(draw=_sketches, limits=SketchCount, count=2000, test_count=1000),
    "scenes": SyntheticSource(draw=_scenes, limits=SceneCount, count=400, test_count=200, images=5.5),
    "scene-shapes": SyntheticSource(draw=_scene_shapes, limits=SceneCount, count=400, test_count=200, images=5.5),
    SCENE_TAGS: SyntheticSource(draw=_scene_tags, limits=SceneCount, count=400, test_count=200, has_tags=True),
}
"""Synthetic sources by name."""
