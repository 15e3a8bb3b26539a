"""What `auto` becomes, and batches that are larger than memory."""

from __future__ import annotations

import io
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from interrupting import break_off
from labelsieve.core import memory
from labelsieve.core.engine import Engine, make_engine
from labelsieve.core.errors import SettingsError
from labelsieve.core.progress import Progress
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.detect.deft.detector import RECIPES, DeFT
from labelsieve.detect.gmm import GMM
from labelsieve.detect.label_match import LabelMatch
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.detect.training import autoconfig
from labelsieve.detect.training.autoconfig import resolve
from labelsieve.detect.training.compiling import compiled
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.settings import Training
from labelsieve.finetune.run import adapt
from labelsieve.finetune.settings import Adaptation
from labelsieve.pipeline import scan
from labelsieve.verdicts import Verdicts
from slow_cases import mostly_slow

QUICK: dict[str, Any] = {"epochs": 2, "min_steps": 0, "visual_prompts": 2}


@pytest.fixture(scope="module")
def images(drawn_folder: Path) -> LabelledImages:
    return load_images(drawn_folder)


def said(images: LabelledImages, vlm: Any, detector: Any, **options: Any) -> tuple[str, Verdicts]:
    """Scans and returns what was printed, too."""
    out = io.StringIO()
    progress = Progress(Console(file=out, width=500))
    named = {"device": "cpu", "precision": "fp32", "progress": progress, **options}
    verdicts = scan(images, vlm, detector=detector, **named)
    return out.getvalue(), verdicts


@pytest.fixture(scope="module")
def verdicts(images: LabelledImages, mini_clip: Any) -> Verdicts:
    return scan(images, mini_clip, detector=LabelMatch(), device="cpu")


@given(images=st.integers(1, 10**7), epochs=st.integers(1, 50), min_steps=st.sampled_from([0, 300, 1000]))
def test_a_batch_of_frozen_features_leaves_enough_steps(images: int, epochs: int, min_steps: int) -> None:
    settings = SmallLoss(epochs=epochs, min_steps=min_steps)
    size = autoconfig._with(settings, peft="none", images=images).batch_size
    assert isinstance(size, int) and 64 <= size <= 2048 and size & (size - 1) == 0
    enough = max(300, min_steps)
    assert size == 64 or images * epochs / size >= enough
    assert size == 2048 or images * epochs / (2 * size) < enough


def test_a_batch_for_an_adapted_encoder_is_that_of_the_paper() -> None:
    assert autoconfig._with(SmallLoss(), peft="vpt-deep", images=10**6).batch_size == 64
    assert autoconfig._with(SmallLoss(batch_size=7), peft="none", images=10**6).batch_size == 7
    assert {recipe.batch_size for name, recipe in RECIPES.items() if name != "default"} == {64}


@pytest.mark.parametrize("wrong", ["many", 0, 2.5, True])
def test_a_wrong_batch_size_is_told(wrong: Any) -> None:
    with pytest.raises(
        SettingsError, match=r"expected batch_size (from 1 to 1,048,576|to be of type int or 'auto'), got"
    ):
        SmallLoss(batch_size=wrong)


def engine_on(device: str, out: io.StringIO | None = None) -> Engine:
    """An engine of which the choices need the kind of its device only."""
    progress = Progress(None if out is None else Console(file=out, width=500))
    engine = make_engine(device="cpu", precision="fp32", progress=progress)
    return replace(engine, accelerator=SimpleNamespace(device=torch.device(device)))


def busy(monkeypatch: pytest.MonkeyPatch, *, slow: float, free: int) -> None:
    """Lets clocks, free memory and cores be those of a busy machine."""
    clock = count(0.0, slow)
    for name in ("time", "perf_counter", "monotonic", "process_time"):
        monkeypatch.setattr(time, name, lambda: next(clock))
    memory = psutil.virtual_memory()._replace(available=free, free=free, percent=99.0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(os, "cpu_count", lambda: 1 + free % 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(1 + free % 7)), raising=False)


@given(
    slow=st.sampled_from([1e-9, 1e-3, 1e4]),
    free=st.integers(1, 2**40),
    peft=st.sampled_from(["auto", "none", "vpt-deep"]),
    device=st.sampled_from(["cpu", "cuda", "mps"]),
    readable=st.integers(0, 10**6),
    epochs=st.integers(0, 20),
)
def test_what_auto_becomes_does_not_depend_on_how_busy_the_machine_is(
    slow: float, free: int, peft: Any, device: str, readable: int, epochs: int, mini_clip: Any
) -> None:
    settings = DeFT(peft=peft, epochs=epochs)
    calm = resolve(settings, mini_clip, readable=readable, engine=engine_on(device))
    with pytest.MonkeyPatch.context() as patch:
        busy(patch, slow=slow, free=free)
        assert resolve(settings, mini_clip, readable=readable, engine=engine_on(device)) == calm
    if peft == "auto":
        assert calm.peft == ("vpt-deep" if device != "cpu" and epochs and readable else "none")


@pytest.mark.parametrize(
    "detector",
    [DeFT(epochs=2, min_steps=0), DeFT(peft="vpt-deep", epochs=1, min_steps=0, batch_size=16, evidence="threshold")],
    ids=["default", "vpt-deep"],
)
def test_a_busy_machine_gives_the_same_verdicts(
    detector: DeFT, images: LabelledImages, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed, calm = said(images, tiny_clip, detector)
    busy(monkeypatch, slow=600.0, free=1)
    _, other = said(images, tiny_clip, detector)
    assert other.table.equals(calm.table)
    assert other.record["detector"]["resolved"] == calm.record["detector"]["resolved"]
    if detector.peft == "auto":
        assert calm.record["detector"]["resolved"] == {"batch_size": 64, "peft": "none", "compile": "off"}
        assert (
            "peft auto: the image encoder stays frozen, as always on a CPU; --peft vpt-deep (visual prompts) would "
            in printed
        )


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        (DeFT(epochs=10, min_steps=0), 3 * 10 + 1),
        (DeFT(epochs=10, min_steps=300), 3 * 60 + 1),  # 300 images are five steps of 64
        (GMM(epochs=10, min_steps=0, warmup_epochs=4, learns_from="selected"), 3 * 10 + 1 + 6),
        (GMM(epochs=10, min_steps=0, warmup_epochs=4, learns_from="all"), 3 * 10 + 1),
    ],
)
def test_the_other_choice_is_counted(settings: Training, times: int, mini_clip: Any) -> None:
    for device, line in (
        ("cpu", f"--peft vpt-deep (visual prompts) would take about {times} times as long as reading the images once"),
        ("cuda", f"since there is an accelerator (cuda): about {times} times as long as reading the images once"),
    ):
        out = io.StringIO()
        resolve(settings, mini_clip, readable=300, engine=engine_on(device, out))
        assert line in out.getvalue()


def test_all_processes_take_as_many_pictures_as_the_least_of_them(
    mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one would wait for the others to try what these find not worth trying."""
    engine = make_engine(device="cpu", precision="fp32")
    learner = Learner(mini_clip, ("cat", "dog"), settings=SmallLoss(peft="vpt-deep"), engine=engine)
    monkeypatch.setattr("labelsieve.detect.training.autoconfig.gather_object", lambda own: [*own, 8])
    assert autoconfig._at_once(learner, maximum=64) == 8


def test_what_cannot_be_prompted_stays_frozen(mini_clip: Any) -> None:
    for changed in ({"epochs": 0}, {"visual_prompts": 0}):
        settings = SmallLoss(**{"peft": "auto", **changed})  # type: ignore[arg-type]
        assert resolve(settings, mini_clip, readable=30, engine=engine_on("cuda")).peft == "none"


def test_a_resumed_run_goes_on_with_what_was_chosen(images: LabelledImages, tiny_clip: Any, tmp_path: Path) -> None:
    detector = SmallLoss(peft="auto", batch_size=8, **QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoconfig, "_choose_peft", lambda *_, **__: "vpt-deep")  # as on an accelerator
        break_off(patch, BatchSource, "epoch", epoch=2)
        with pytest.raises(KeyboardInterrupt):
            said(images, tiny_clip, detector, out=tmp_path / "run")
    printed, verdicts = said(images, tiny_clip, detector, out=tmp_path / "run", resume=True)
    assert "resuming after epoch 1" in printed
    assert verdicts.record["detector"]["resolved"]["peft"] == "vpt-deep"


class Counted:
    """Counts how often something is computed again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts = 0
        monkeypatch.setattr(memory, "checkpoint", self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.parts += 1
        return checkpoint(*args, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", mostly_slow(["vpt-deep", "lora", "full"], quick={"lora"}))
def test_a_batch_larger_than_memory_gives_the_same_run(
    kind: Any, images: LabelledImages, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the learned threshold alone: what training left, with no fit after it that makes more of a difference in rounding
    detector = DeFT(peft=kind, learning_rate=1e-3, batch_size=32, evidence="threshold", **{**QUICK, "epochs": 1})
    _, whole = said(images, tiny_clip, detector)
    counted = Counted(monkeypatch)
    monkeypatch.setattr(memory, "memory_size", lambda _device: 1)  # a single picture fits
    _, parts = said(images, tiny_clip, detector)
    assert counted.parts == len(images)
    quality = [np.asarray(found.table.column("label_quality")) for found in (whole, parts)]
    np.testing.assert_allclose(quality[0], quality[1], atol=5e-6)  # less than a thousandth of how far they lie apart
    losses = [[epoch["loss"] for epoch in found.record["history"]] for found in (whole, parts)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.slow
def test_a_classifier_is_the_same_whatever_fits(
    images: LabelledImages, verdicts: Verdicts, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Adaptation(epochs=1, min_steps=0, batch_size=16)
    losses = []
    for free in (10**12, 1):
        monkeypatch.setattr(memory, "memory_size", lambda _device, free=free: free)
        counted = Counted(monkeypatch)
        model = adapt(images, verdicts, backbone=tiny_clip.name, settings=settings, device="cpu", precision="fp32")
        assert bool(counted.parts) == (free == 1)
        losses.append(model.record["history"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_classifier_that_draws_is_the_same_on_every_machine(
    images: LabelledImages, verdicts: Verdicts, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stochastic depth draws in each part anew, so that other parts would be another model."""
    settings = Adaptation(epochs=1, min_steps=0, batch_size=16)
    losses = []
    for size in (10**12, 1):
        monkeypatch.setattr(memory, "memory_size", lambda _device, size=size: size)
        found = adapt(images, verdicts, backbone=model("swin"), settings=settings, device="cpu", precision="fp32")
        losses.append(found.record["history"][0]["loss"])
    assert losses[0] == losses[1]


def test_what_is_kept_is_counted_without_the_weights() -> None:
    layer = nn.Sequential(nn.Linear(100, 50), nn.GELU(), nn.Linear(50, 1))
    kept = [memory._saved_bytes(layer, torch.ones(count, 100)) for count in (1, 2, 3)]
    assert kept[1] - kept[0] == kept[2] - kept[1] == 4 * (100 + 50 + 50)  # what each layer was given
    assert kept[0] == 4 * (100 + 50 + 50) + 4 * 50  # and the weights of the last, which gradients pass


@pytest.mark.parametrize(("free", "expected"), [(10**9, 48), (4 * 600 * 48, 48), (4 * 600 * 47, 32), (1, 1)])
def test_as_many_as_fit(free: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_size", lambda _device: free)
    layer = nn.Sequential(nn.Linear(100, 50), nn.GELU())
    assert memory.max_chunk_size(layer, torch.ones(1, 100), maximum=48) == expected


def test_a_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, file = torch.device("cpu"), tmp_path / "max"
    monkeypatch.setattr(memory, "_LIMIT", str(file))
    whole = psutil.virtual_memory().total
    assert memory.memory_size(device) == whole
    for text, expected in (("5000\n", 5000), ("max\n", whole)):
        file.write_text(text)
        assert memory.memory_size(device) == expected
    file.write_text("5000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.memory_size(device) == 2500


def test_dropout_is_the_same_when_computed_again() -> None:
    torch.manual_seed(0)
    layer, things = nn.Linear(4, 4), torch.randn(6, 4, requires_grad=True)

    def work(first: int, last: int) -> Tensor:
        return nn.functional.dropout(layer(things[first:last]), 0.5)

    made = memory.checkpointed_chunks(work, count=6, chunk_size=2, device=torch.device("cpu"))
    (gradient,) = torch.autograd.grad(made.sum(), things)
    expected = torch.where(made.detach() != 0, 2.0, 0.0) @ layer.weight.detach()
    torch.testing.assert_close(gradient, expected)


# ------------------------------------------------------------------------------------------------------------ compiling

# which the compiler lets through where warnings are no errors
hidden = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `torch.compile` trace, and run what it traced as it is: kernels of C++ take half a minute to build."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.slow
@hidden
@pytest.mark.usefixtures("no_kernels")
def test_a_compiled_encoder_learns_the_same_and_is_itself_again(images: LabelledImages, tiny_clip: Any) -> None:
    some = images.take(np.arange(20))
    before = [dict(vars(block)) for block in tiny_clip.vision_layers]
    runs = {}
    for how in ("off", "on"):
        detector = SmallLoss(
            peft="vpt-deep", compile=how, batch_size=12, learns_from="all", **{**QUICK, "epochs": 1}
        )  # and a last batch of another size
        printed, runs[how] = said(some, tiny_clip, detector)
        assert ("the image encoder is compiled" in printed) == (how == "on")
    assert [dict(vars(block)) for block in tiny_clip.vision_layers] == before
    losses = [[epoch["loss"] for epoch in found.record["history"]] for found in runs.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@hidden
@pytest.mark.usefixtures("no_kernels")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "ssf"])
def test_modules_inside_of_compiled_blocks_have_their_gradients(kind: Any, tiny_clip: Any) -> None:
    assert_the_same_compiled(tiny_clip, kind)


@hidden
@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs one")
def test_kernels_of_a_compiler_have_the_gradients_of_modules(tiny_clip: Any) -> None:
    assert_the_same_compiled(tiny_clip, "ssf")


def assert_the_same_compiled(vlm: Any, kind: Any) -> None:
    """Compares the features of the last block, and the gradients of what is attached, with those of no compiler."""
    engine = make_engine(device="cpu", precision="fp32")
    learner = Learner(vlm, ("cat", "dog"), settings=SmallLoss(peft=kind), engine=engine)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learner.peft.parameters():  # type: ignore[union-attr]
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    pixels = torch.rand(2, 3, vlm.image_size, vlm.image_size, generator=generator)
    found = []
    for blocks in ([], list(vlm.vision_layers)[-1:]):
        with learner.attached(), compiled(blocks, batch=2):
            features = vlm.pool(pixels)
        gradients = torch.autograd.grad(features.square().sum(), list(learner.peft.parameters()))  # type: ignore[union-attr]
        found.append([features, *gradients])
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-6 + 1e-3 * float(plain.detach().abs().max()))


def broken(*_args: Any, **_options: Any) -> Any:
    def forward(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler\nwas found")

    return forward


def test_where_compiling_fails_it_goes_on_without(
    images: LabelledImages, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    out = io.StringIO()
    learner = Learner(
        tiny_clip, ("cat", "dog"), settings=SmallLoss(peft="vpt-deep"), engine=replace(
            make_engine(device="cpu", precision="fp32"), progress=Progress(Console(file=out, width=500))
        )
    )  # fmt: skip
    assert not autoconfig._compiling_works("auto", learner, tried=2, advice="")
    assert "note: torch.compile does not work here (RuntimeError); training goes on without it" in out.getvalue()
    detector = DeFT(peft="vpt-deep", evidence="threshold", **QUICK)
    expected = r"^torch.compile does not work here \(RuntimeError\), and this run needs it; "
    with pytest.raises(SettingsError, match=expected + "leave compile on"):
        said(images, tiny_clip, replace(detector, compile="on"))
    # a run that began with a compiled encoder cannot go on without: its settings are part of its identity
    monkeypatch.setattr(autoconfig, "stored_settings", lambda _engine: {"compile": "on"})
    with pytest.raises(SettingsError, match=expected + "start it again without resume"):
        autoconfig._compiles("auto", learner, at_once=2, images=10)


@pytest.mark.parametrize(
    ("device", "images", "chosen"),
    [("cuda", 200_000, True), ("cuda", 199_999, False), ("cpu", 10**9, False), ("mps", 10**9, False)],
)
def test_compiling_is_for_many_images_on_a_gpu(
    device: str, images: int, chosen: bool, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(device="cpu", precision="fp32")
    learner = Learner(mini_clip, ("cat", "dog"), settings=SmallLoss(peft="vpt-deep"), engine=engine)
    accelerator = SimpleNamespace(device=torch.device(device), is_main_process=True)
    learner.engine = replace(engine, accelerator=accelerator)
    monkeypatch.setattr(autoconfig, "_compiling_works", lambda *_, **__: True)
    assert autoconfig._compiles("auto", learner, at_once=64, images=images) is chosen
    assert not autoconfig._compiles("off", learner, at_once=64, images=images)
    assert autoconfig._compiles("on", learner, at_once=64, images=1)


def test_nothing_is_compiled_for_a_short_run(
    images: LabelledImages, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", None)  # calling it would fail
    _, verdicts = said(images, tiny_clip, DeFT(peft="vpt-deep", evidence="threshold", **QUICK))
    assert verdicts.record["detector"]["resolved"]["compile"] == "off"


def test_room_is_given_back() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    with memory.reuse_allocations():
        with memory.reuse_allocations():  # of which the end of the outer one counts
            torch.ones(64 * 2**20).sum()
        kept = process.memory_info().rss
    if platform.libc_ver()[0] == "glibc":
        assert kept - before > 200 * 2**20
    assert process.memory_info().rss - before < 100 * 2**20
