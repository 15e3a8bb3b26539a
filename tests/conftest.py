"""Fixtures for all tests. Nothing here reaches the network, and the cache of the user is left alone."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from small_browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from labelsieve.vlm.base import VisionLanguageModel

# Read when the libraries are imported, so they are set before any test module is.
_cache = tempfile.TemporaryDirectory(prefix="labelsieve-tests-")
os.environ["HF_DATASETS_CACHE"] = _cache.name
os.environ["LABELSIEVE_CACHE"] = str(Path(_cache.name) / "labelsieve")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest share the cores already
# as the command line has it, which sets it too late for libraries that are imported already
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("quick", max_examples=30, deadline=None)
settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports what the tests need without looking for garbage in it, neither now nor later: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that makes a folder of class folders with small, different pictures.

    `photo_folder({"cat": 3, "dog": 2}, name="photos")` makes `photos/cat/0.png` to `photos/dog/1.png`.
    """

    def make(sizes: Mapping[str, int], *, name: str = "photos") -> Path:
        rng = np.random.default_rng(0)
        for folder, count in sizes.items():
            (tmp_path / name / folder).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / folder / f"{index}.png")
        return tmp_path / name

    return make


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Returns a function that runs one command and returns its exit code, stdout and stderr."""
    from labelsieve.cli import main

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # of tyro: help, or a wrong command line
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets settings hold numbers that no user may give, to break a training on purpose."""
    from labelsieve.core.validation import Range

    monkeypatch.setattr(Range, "__contains__", lambda _self, _value: True)


@pytest.fixture(scope="session", autouse=True)
def bundled_model_is_loaded_once() -> Iterator[None]:
    """Gives all commands the same bundled model: a scan leaves it as it was, and loading it takes most of its time."""
    from labelsieve.demo import MINI_CLIP
    from labelsieve.vlm import loading

    load = loading.load_vlm
    kept = cache(load)

    @wraps(load)
    def loaded(name: str | Path) -> VisionLanguageModel:
        return kept(MINI_CLIP) if str(name) == str(MINI_CLIP) else load(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_vlm", loaded)
        yield


@pytest.fixture(scope="session")
def mini_clip() -> VisionLanguageModel:
    """Returns the bundled model, loaded once."""
    from labelsieve.demo import MINI_CLIP
    from labelsieve.vlm import loading

    return loading.load_vlm(MINI_CLIP)


@pytest.fixture(scope="session")
def tiny_clip() -> VisionLanguageModel:
    """Returns a model with random weights, quicker than the bundled one, for what no trained weights are needed for."""
    from labelsieve.vlm.loading import load_vlm
    from small_models import tiny_folder

    return load_vlm(tiny_folder())


@pytest.fixture(scope="module")  # not longer: other tests cannot run beside its event loop
def browser() -> Iterator[Browser]:
    """A real browser."""
    with chromium() as started:
        yield started


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a transition matrix be fitted less well, which is enough to compare two outcomes."""
    from labelsieve.detect import transition

    monkeypatch.setattr(transition, "STEPS", 40)


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of four class folders with eight drawings each, one of them wrong. Copy it to change it.

    The file names tell the truth: `cat/boat-0.png` is a boat.
    """
    from labelsieve.demo.sketches import DEMO_STYLE, draw

    folder, rng = tmp_path_factory.mktemp("drawn") / "photos", np.random.default_rng(0)
    classes = ("boat", "cat", "cup", "tree")
    for position, name in enumerate(classes):
        for number in range(8):
            given = classes[(position + (number == 0)) % len(classes)]
            (folder / given).mkdir(parents=True, exist_ok=True)
            draw(name, rng=rng, style=DEMO_STYLE).save(folder / given / f"{name}-{number}.png")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function that gives the folder of a tiny backbone, made once. Copy it to change it."""
    from small_backbones import backbone_folder

    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = backbone_folder(tmp_path_factory.mktemp("models") / kind, kind)
        return made[kind]

    return folder
