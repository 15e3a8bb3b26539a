"""Long work is never silent: every stage that grows with the data or the classes says how far it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from labelsieve.core.engine import make_engine
from labelsieve.core.progress import Progress
from labelsieve.data.features import LabelledFeatures, load_features
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.data.noise import inject
from labelsieve.data.noise_files import write_noise
from labelsieve.demo import MINI_CLIP
from labelsieve.detect.deft.detector import DeFT
from labelsieve.detect.inputs import detector_inputs
from labelsieve.detect.registry import detector_class
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.detect.training.autoconfig import prepare
from labelsieve.finetune.run import adapt
from labelsieve.finetune.settings import Adaptation
from labelsieve.pipeline import scan
from labelsieve.report.exports.export import export
from labelsieve.report.label_report import write_report


class Recorded(Progress):
    """Keeps what each task counted: its total, and what it was told in all."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def task(self, label: str, *, total: int, unit: str, brief: bool = False) -> Iterator[Callable[[int], None]]:
        """Counts."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count

        yield advance
        self.tasks.setdefault(label, []).append((total, done))

    def check(self, *labels: str) -> None:
        """Checks that these tasks were shown, and that each came to its end."""
        assert set(labels) <= set(self.tasks), f"silent: {set(labels) - set(self.tasks)}"
        assert all(total == done for found in self.tasks.values() for total, done in found), self.tasks


@pytest.fixture(scope="module")
def images(drawn_folder: Path) -> LabelledImages:
    return load_images(drawn_folder)


@pytest.fixture(scope="module")
def features() -> LabelledFeatures:
    rng = np.random.default_rng(0)
    values, text = rng.normal(size=(60, 8)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    return load_features(values, labels=np.arange(60) % 3, class_names=["a", "b", "c"], text=text, logit_scale=10.0)


STAGES = {
    "joint": ["fitting discriminants", "scoring", "weighing the evidence"],
    "label-match": ["scoring"],
    "clip-margin": ["scoring"],
    "knn": ["comparing images"],
    "lemon": ["comparing images", "scoring"],
    "aum": ["training probe 1 of 2", "training probe 2 of 2"],
    "confident-learning": ["fitting a probe", "pruning with cleanlab"],
    "prototype-gmm": ["comparing with prototypes", "comparing images"],
    "clip-cleaner": ["fitting a classifier", "scoring"],
    "simifeat": ["comparing images", "estimating the noise"],
    "fine": ["finding directions", "scoring"],
}


def test_what_a_detector_does_with_features_is_shown(features: LabelledFeatures, subtests: pytest.Subtests) -> None:
    for detector, stages in STAGES.items():
        with subtests.test(detector=detector):
            progress = Recorded()
            scan(features, detector=detector_class(detector)(), device="cpu", progress=progress)
            progress.check(*stages)


def test_what_the_default_does_with_images_is_shown(images: LabelledImages, mini_clip: Any) -> None:
    progress = Recorded()
    detector = DeFT(epochs=1, min_steps=0)
    scan(images, mini_clip, detector=detector, test=images, device="cpu", precision="fp32", progress=progress)
    progress.check(
        "encoding class names",
        "training",
        "encoding prompts",
        "fitting discriminants",
        "weighing the evidence",
        "scoring",
    )
    assert (4, 4) in progress.tasks["encoding class names"] and (8, 8) in progress.tasks["encoding prompts"]


@pytest.mark.slow
def test_what_comes_before_and_after_a_scan_is_shown(drawn_folder: Path, mini_clip: Any, tmp_path: Path) -> None:
    progress = Recorded()
    images = load_images(drawn_folder, progress=progress)
    progress.check("looking for the images")
    noisy = inject(images, kind="instance", rate=0.3, progress=progress)
    progress.check("reading images")
    write_noise(noisy, tmp_path / "noisy.parquet", progress=progress)
    verdicts = scan(images, mini_clip, detector=DeFT(epochs=0), device="cpu", precision="fp32")
    write_report(verdicts, images, tmp_path / "report.html", progress=progress)
    export(verdicts, images, format="imagefolder", out=tmp_path / "kept", progress=progress)
    progress.check("making thumbnails", "writing images")
    assert len(progress.tasks["writing images"]) == 2
    settings = Adaptation(epochs=1, min_steps=0)
    adapt(images, verdicts, backbone=MINI_CLIP, settings=settings, test=images, device="cpu", progress=progress)
    progress.check("fitting discriminants", "evaluating", "training")
    assert len(progress.tasks["evaluating"]) == 3  # at the start, after the epoch, and for the metrics


def test_class_names_in_parts_are_those_at_once(
    images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(device="cpu", precision="fp32")
    found = []
    for names in (512, 3):
        monkeypatch.setattr("labelsieve.detect.zero_shot.NAMES", names)
        monkeypatch.setattr("labelsieve.detect.training.learner.NAMES", names)
        inputs = detector_inputs(images, mini_clip, engine=engine)
        ready = prepare(SmallLoss(peft="none"), inputs)
        found.append([inputs.text, *ready.batches.learner.final_text()])
    for whole, parts, plain in zip(*found, [found[0][0], *ready.batches.learner.text()], strict=True):
        np.testing.assert_allclose(whole.numpy(), parts.numpy(), atol=1e-5)
        np.testing.assert_allclose(whole.numpy(), plain.detach().numpy(), atol=1e-5)


def lines_of(console: Console) -> list[str]:
    return [line for line in console.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]


def test_a_long_task_says_how_far_it_is_where_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr("labelsieve.core.progress.time.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=100)
    with Progress(console).task("training", total=3, unit="steps") as advance:
        advance(0)
        advance(2)
        advance(1)
    lines = lines_of(console)
    assert "training: 2 of 3 steps" in lines and lines[-1].startswith("training") and "3/3" in lines[-1]


def test_a_finished_task_has_the_speed_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("labelsieve.core.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    console = Console(file=io.StringIO(), width=100)
    with Progress(console).task("training", total=30, unit="steps") as advance:
        advance(20)
        now[0] = 50.0
        advance(10)
        now[0] = 60.0
    assert "0.5 steps/s" in lines_of(console)[-1]


def test_a_brief_task_leaves_a_line_only_if_it_took_long(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=100)
    for name, seconds in (("quick", 10.0), ("slow", 0.0)):
        monkeypatch.setattr("labelsieve.core.progress._BRIEF", seconds)
        with Progress(console).task(name, total=1, unit="steps", brief=True) as advance:
            advance(1)
    assert [line.split()[0] for line in lines_of(console)] == ["slow"]
    assert console.file.getvalue().startswith("slow")  # type: ignore[attr-defined]


def test_a_task_within_another_is_shown_while_it_runs() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, force_interactive=True)
    progress = Progress(console)
    with progress.task("outer", total=1, unit="steps") as advance:
        with progress.task("inner", total=2, unit="images") as advance_inner:
            advance_inner(1)
            assert progress._bars is not None
            assert [task.description for task in progress._bars.tasks] == ["outer", "inner"]
        assert [task.description for task in progress._bars.tasks] == ["outer"]
        advance(1)
    assert progress._bars is None
