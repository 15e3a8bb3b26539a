"""What `auto` becomes, and batches that are larger than memory."""

from __future__ import annotations

import io
import platform
import shutil
from dataclasses import replace
from pathlib import Path
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
from labelsieve import memory
from labelsieve.adapt.run import adapt
from labelsieve.adapt.settings import Adaptation
from labelsieve.data.images import LabelledImages
from labelsieve.data.sources import load_images
from labelsieve.demo import MINI_CLIP
from labelsieve.detect import planning
from labelsieve.detect.compiling import compiled
from labelsieve.detect.deft import RECIPES, DeFT
from labelsieve.detect.gmm import GMM
from labelsieve.detect.learner import Feed, Learner
from labelsieve.detect.planning import settle
from labelsieve.detect.settings import Training
from labelsieve.detect.small_loss import SmallLoss
from labelsieve.engine import make_engine
from labelsieve.errors import SettingsError
from labelsieve.progress import Progress
from labelsieve.scan import scan
from labelsieve.verdicts import Verdicts

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


@given(images=st.integers(1, 10**7), epochs=st.integers(1, 50), min_steps=st.sampled_from([0, 300, 1000]))
def test_a_batch_of_frozen_features_leaves_enough_steps(images: int, epochs: int, min_steps: int) -> None:
    settings = Training(epochs=epochs, min_steps=min_steps)
    size = planning._with(settings, peft="none", images=images).batch_size
    assert isinstance(size, int) and 64 <= size <= 2048 and size & (size - 1) == 0
    enough = max(300, min_steps)
    assert size == 64 or images * epochs / size >= enough
    assert size == 2048 or images * epochs / (2 * size) < enough


def test_a_batch_for_an_adapted_tower_is_that_of_the_paper() -> None:
    assert planning._with(Training(), peft="vpt-deep", images=10**6).batch_size == 64
    assert planning._with(Training(batch_size=7), peft="none", images=10**6).batch_size == 7
    assert {recipe.batch_size for name, recipe in RECIPES.items() if name != "default"} == {64}


@pytest.mark.parametrize("wrong", ["many", 0, 2.5, True])
def test_a_wrong_batch_size_is_told(wrong: Any) -> None:
    with pytest.raises(
        SettingsError, match=r"expected batch_size (from 1 to 1,048,576|to be of type int or 'auto'), got"
    ):
        Training(batch_size=wrong)


@pytest.mark.parametrize(
    ("patience", "chosen", "line"),
    [
        (1e9, "vpt-deep", "peft auto: visual prompts, about 1 s; a frozen tower (--peft none): about 1 s"),
        (0.0, "none", "peft auto: the tower stays frozen, about 1 s; visual prompts (--peft vpt-deep): about 1 s"),
    ],
)
def test_peft_is_chosen_by_a_trial(
    patience: float, chosen: Any, line: str, images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "PATIENCE", patience)
    monkeypatch.setattr(planning, "_seconds", lambda work: (work().backward(), 1e-3)[1])
    before = torch.get_rng_state()
    printed, verdicts = said(images, mini_clip, DeFT(peft="auto", **QUICK))
    assert torch.equal(torch.get_rng_state(), before), "the generator of the user was drawn from"
    assert line in printed.splitlines()
    assert verdicts.record["detector"]["settled"] == {"batch_size": 64, "peft": chosen, "compile": "off"}
    assert verdicts.record["detector"]["settings"]["peft"] == "auto"
    _, asked = said(images, mini_clip, DeFT(peft=chosen, **QUICK))
    assert asked.table.equals(verdicts.table)  # the trial leaves no trace


def test_looks_between_epochs_are_part_of_the_estimate(
    images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_seconds", lambda _work: 8.0)  # a picture of the trial, which has eight, takes one
    engine = make_engine(device="cpu", precision="fp32")
    found = [
        planning._estimate(
            GMM(epochs=10, min_steps=0, warmup_epochs=4, learns_from=learns_from),
            images, mini_clip, readable=30, engine=engine,
        )
        for learns_from in ("selected", "all")
    ]  # fmt: skip
    assert found[0][0] == found[1][0], "cached features take no time"
    assert found[0][1] - found[1][1] == pytest.approx(6 * 30 / 3)


def test_all_processes_take_as_many_pictures_as_the_least_of_them(
    mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one would wait for the others to try what these find not worth trying."""
    engine = make_engine(device="cpu", precision="fp32")
    learner = Learner(mini_clip, ("cat", "dog"), settings=Training(peft="vpt-deep"), engine=engine)
    monkeypatch.setattr("labelsieve.detect.planning.gather_object", lambda own: [*own, 8])
    assert planning._at_once(learner, most=64) == 8


class OnGPU:
    """What some work made on a GPU, which may not have done it yet."""

    device = torch.device("cuda")

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def backward(self) -> None:
        self.log.append("asked")


def test_the_time_on_a_gpu_begins_and_ends_with_nothing_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def look() -> float:
        log.append("looked")
        return 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: log.append("done"))
    monkeypatch.setattr("time.perf_counter", look)
    assert planning._seconds(lambda: OnGPU(log)) == 0  # type: ignore[arg-type,return-value]
    assert log == ["asked", "done", "looked", "asked", "done", "looked"]


def test_the_estimate_is_of_the_right_size(images: LabelledImages, mini_clip: Any) -> None:
    """Counted in calls, of which each takes a second in this world."""
    engine = make_engine(device="cpu", precision="fp32")
    settings = Training(peft="auto", epochs=3, min_steps=0, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_seconds", lambda _work: 1.0)
        frozen, prompted = planning._estimate(settings, images, mini_clip, readable=80, engine=engine)
    steps = 3 * 10
    assert frozen == steps
    assert prompted == pytest.approx(steps + (steps * 8 + 80 / 3) / 8)


def test_nothing_is_tried_where_nothing_can_be_prompted(
    images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_estimate", None)  # calling it would fail
    engine = make_engine(device="cpu", precision="fp32")
    for changed in ({"epochs": 0}, {"visual_prompts": 0}):
        settings = Training(**{"peft": "auto", **changed})  # type: ignore[arg-type]
        assert settle(settings, images, mini_clip, readable=len(images), engine=engine).peft == "none"


def test_a_resumed_run_goes_on_with_what_was_chosen(
    images: LabelledImages, mini_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = SmallLoss(peft="auto", batch_size=8, **QUICK)
    monkeypatch.setattr(planning, "PATIENCE", 1e9)
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, Feed, "epoch", epoch=2)
        with pytest.raises(KeyboardInterrupt):
            said(images, mini_clip, detector, out=tmp_path / "run")
    monkeypatch.setattr(planning, "PATIENCE", 0.0)  # now it would be another choice
    printed, verdicts = said(images, mini_clip, detector, out=tmp_path / "run", resume=True)
    assert "resuming after epoch 1" in printed
    assert verdicts.record["detector"]["settled"]["peft"] == "vpt-deep"


class Counted:
    """Counts how often something is computed again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts = 0
        monkeypatch.setattr(memory, "checkpoint", self)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.parts += 1
        return checkpoint(*args, **options)


@pytest.mark.parametrize("kind", ["vpt-deep", "lora", "full"])
def test_a_batch_larger_than_memory_gives_the_same_run(
    kind: Any, images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = DeFT(peft=kind, learning_rate=1e-3, batch_size=32, **QUICK)
    _, whole = said(images, mini_clip, detector)
    counted = Counted(monkeypatch)
    monkeypatch.setattr(memory, "free_memory", lambda _device: 1)  # a single picture fits
    _, parts = said(images, mini_clip, detector)
    assert counted.parts == 2 * len(images)
    quality = [np.asarray(found.table.column("label_quality")) for found in (whole, parts)]
    np.testing.assert_allclose(quality[0], quality[1], atol=1e-3)  # a difference in rounding goes through a fit
    losses = [[epoch["loss"] for epoch in found.record["history"]] for found in (whole, parts)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_classifier_is_the_same_whatever_fits(
    images: LabelledImages, mini_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, verdicts = said(images, mini_clip, DeFT(epochs=0))
    settings = Adaptation(epochs=1, min_steps=0, batch_size=16)
    losses = []
    for free in (10**12, 1):
        monkeypatch.setattr(memory, "free_memory", lambda _device, free=free: free)
        counted = Counted(monkeypatch)
        model = adapt(images, verdicts, backbone=MINI_CLIP, settings=settings, device="cpu", precision="fp32")
        assert bool(counted.parts) == (free == 1)
        losses.append(model.record["history"][0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_is_kept_is_counted_without_the_weights() -> None:
    layer = nn.Sequential(nn.Linear(100, 50), nn.GELU(), nn.Linear(50, 1))
    kept = [memory._kept(layer, torch.ones(count, 100)) for count in (1, 2, 3)]
    assert kept[1] - kept[0] == kept[2] - kept[1] == 4 * (100 + 50 + 50)  # what each layer was given
    assert kept[0] == 4 * (100 + 50 + 50) + 4 * 50  # and the weights of the last, which gradients pass


@pytest.mark.parametrize(("free", "expected"), [(10**9, 48), (2 * 600 * 48, 48), (2 * 600 * 47, 32), (1, 1)])
def test_as_many_as_fit(free: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _device: free)
    layer = nn.Sequential(nn.Linear(100, 50), nn.GELU())
    assert memory.fitting(layer, torch.ones(1, 100), most=48) == expected


def test_memory_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, files = torch.device("cpu"), [tmp_path / "max", tmp_path / "current"]
    monkeypatch.setattr(memory, "_LIMITS", tuple(map(str, files)))
    without = memory.free_memory(device)
    assert without > 0
    for limit, used, expected in (("5000", "3000", 2000), ("3000", "5000", 0)):
        files[0].write_text(limit + "\n")
        files[1].write_text(used + "\n")
        assert memory.free_memory(device) == expected
    files[0].write_text("max\n")
    assert memory.free_memory(device) > 10**6
    files[0].write_text("5000\n")
    files[1].write_text("1000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.free_memory(device) == 2000


def test_dropout_is_the_same_when_computed_again() -> None:
    torch.manual_seed(0)
    layer, things = nn.Linear(4, 4), torch.randn(6, 4, requires_grad=True)

    def work(first: int, last: int) -> Tensor:
        return nn.functional.dropout(layer(things[first:last]), 0.5)

    made = memory.in_parts(work, count=6, at_once=2, device=torch.device("cpu"))
    (gradient,) = torch.autograd.grad(made.sum(), things)
    expected = torch.where(made.detach() != 0, 2.0, 0.0) @ layer.weight.detach()
    torch.testing.assert_close(gradient, expected)


# ------------------------------------------------------------------------------------------------------------ compiling

# which the compiler lets through where warnings are no errors
hidden = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs one")


@hidden
@compiler
def test_a_compiled_tower_learns_the_same_and_is_itself_again(images: LabelledImages, mini_clip: Any) -> None:
    before = [dict(vars(block)) for block in mini_clip.vision_layers]
    runs = {}
    for how in ("off", "on"):
        detector = DeFT(peft="vpt-deep", compile=how, batch_size=12, **QUICK)  # and a last batch of another size
        printed, runs[how] = said(images, mini_clip, detector)
        assert ("the vision tower is compiled" in printed) == (how == "on")
    assert [dict(vars(block)) for block in mini_clip.vision_layers] == before
    losses = [[epoch["loss"] for epoch in found.record["history"]] for found in runs.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@hidden
@compiler
@pytest.mark.parametrize("kind", ["lora", "ssf"])
def test_modules_inside_of_compiled_blocks_have_their_gradients(kind: Any, mini_clip: Any) -> None:
    engine = make_engine(device="cpu", precision="fp32")
    learner = Learner(mini_clip, ("cat", "dog"), settings=Training(peft=kind), engine=engine)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learner.peft.parameters():  # type: ignore[union-attr]
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    pixels = torch.rand(2, 3, mini_clip.image_size, mini_clip.image_size, generator=generator)
    found = []
    for blocks in ([], list(mini_clip.vision_layers)):
        with learner.attached(), compiled(blocks, batch=2):
            features = mini_clip.pool(pixels)
        gradients = torch.autograd.grad(features.square().sum(), list(learner.peft.parameters()))  # type: ignore[union-attr]
        found.append([features, *gradients])
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-6 + 1e-3 * float(plain.detach().abs().max()))


def broken(*_args: Any, **_options: Any) -> Any:
    def forward(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler\nwas found")

    return forward


def test_where_compiling_fails_it_goes_on_without(
    images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(planning, "_MANY", 0)
    monkeypatch.setattr(planning, "_LONG", 0.0)
    detector = DeFT(peft="vpt-deep", **QUICK)
    printed, verdicts = said(images, mini_clip, detector)
    assert "note: torch.compile does not work here (RuntimeError); training goes on without it" in printed
    assert verdicts.record["detector"]["settled"]["compile"] == "off"
    with pytest.raises(SettingsError, match=r"^torch.compile does not work here \(RuntimeError\); leave --compile on"):
        said(images, mini_clip, replace(detector, compile="on"))


@pytest.mark.parametrize(("slower", "chosen"), [(0.5, "on"), (0.96, "off"), (1.5, "off")])
def test_compiling_has_to_pay(
    slower: float, chosen: str, images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([1.0, slower])
    monkeypatch.setattr(planning, "_MANY", 0)
    monkeypatch.setattr(planning, "_LONG", 0.0)
    monkeypatch.setattr(planning, "_seconds", lambda _work: next(seconds))
    monkeypatch.setattr(torch, "compile", lambda forward, **_options: forward)
    _, verdicts = said(images, mini_clip, DeFT(peft="vpt-deep", **QUICK))
    assert verdicts.record["detector"]["settled"]["compile"] == chosen


def test_nothing_is_compiled_for_a_short_run(
    images: LabelledImages, mini_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", None)  # calling it would fail
    _, verdicts = said(images, mini_clip, DeFT(peft="vpt-deep", **QUICK))
    assert verdicts.record["detector"]["settled"]["compile"] == "off"


def test_room_is_given_back() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    with memory.keeping_room():
        torch.ones(64 * 2**20).sum()
        kept = process.memory_info().rss
    if platform.libc_ver()[0] == "glibc":
        assert kept - before > 200 * 2**20
    assert process.memory_info().rss - before < 100 * 2**20
