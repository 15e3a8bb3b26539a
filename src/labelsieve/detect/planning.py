"""What `auto` stands for: settled once, before training, by what the machine and the data are."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from labelsieve.data.images import LabelledImages
from labelsieve.detect.compiling import compiled
from labelsieve.detect.learner import Feed, Learner
from labelsieve.detect.settings import Training
from labelsieve.detect.training import Schedule, make_schedule, stored_settings
from labelsieve.detect.view import FeatureView, view_of
from labelsieve.engine import Engine
from labelsieve.errors import SettingsError
from labelsieve.memory import fitting
from labelsieve.progress import about
from labelsieve.validation import field_names
from labelsieve.vlm.base import VisionLanguageModel

SettingsT = TypeVar("SettingsT", bound=Training)

# Seconds that training may take on a CPU with visual prompts.
PATIENCE = 20 * 60.0
# Batch size of the paper, and what it may grow to where the features are at hand, as long as so many steps are left.
_BATCH, _LARGEST, _STEPS = 64, 2048, 300
# No pre-trained transformer is fully fine-tuned with a rate above this one: the paper takes 1e-2 at most.
_TEARS = 1e-2
# Pictures that are tried.
_TRIED = 8
# Seconds of work from which on compiling is tried, which takes some itself, and what share of them it has to leave.
_LONG, _PAYS = 120.0, 0.95
# Less than so many times the pictures that are tried are not worth a trial.
_MANY = 100


def settle(
    settings: SettingsT, images: LabelledImages, vlm: VisionLanguageModel, *, readable: int, engine: Engine
) -> SettingsT:
    """Replaces each `auto` in the settings of a detector by a choice, the same in all processes.

    A run that is resumed goes on with what it began with.

    Args:
        settings: The settings.
        images: The data.
        vlm: The model, on its device.
        readable: How many of the images can be read.
        engine: Device, processes, checkpoint; shows what was chosen.
    """
    if settings.epochs == 0 or not readable:
        return _with(settings, peft="none" if settings.peft == "auto" else settings.peft, images=readable)
    chosen: list[str] = [settings.peft]
    if settings.peft == "auto" and engine.accelerator.is_main_process:
        before = stored_settings(engine).get("peft")
        chosen = [before or _choose_peft(settings, images, vlm, readable=readable, engine=engine)]
    broadcast_object_list(chosen)
    return _with(settings, peft=chosen[0], images=readable)


def _with(settings: SettingsT, *, peft: Any, images: int) -> SettingsT:
    """Returns settings without `auto`."""
    size = settings.batch_size
    if size == "auto":
        size = _BATCH if peft != "none" else _frozen_batch(settings, images)
    return dataclasses.replace(settings, peft=peft, batch_size=size)


def _frozen_batch(settings: Training, images: int) -> int:
    """Returns the largest power of two that leaves enough steps, within the bounds."""
    most = images * settings.epochs // max(_STEPS, settings.min_steps)
    return min(_LARGEST, max(_BATCH, 1 << max(0, most.bit_length() - 1)))


def _choose_peft(
    settings: Training, images: LabelledImages, vlm: VisionLanguageModel, *, readable: int, engine: Engine
) -> str:
    say = engine.progress.say
    if not len(vlm.vision_layers) or not settings.visual_prompts:
        why = "there are none" if len(vlm.vision_layers) else f"the image tower of {vlm.name} is no vision transformer"
        say(f"peft auto: the tower stays frozen, without visual prompts: {why}")
        return "none"
    if not settings.trains_something(peft="none"):
        say("peft auto: visual prompts, since nothing else is left to train")
        return "vpt-deep"
    if engine.device.type != "cpu":
        say(f"peft auto: visual prompts, since there is an accelerator ({engine.device.type})")
        return "vpt-deep"
    with engine.progress.task("trying how fast this machine is", total=1, unit="trials") as advance:
        frozen, prompted = _estimate(settings, images, vlm, readable=readable, engine=engine)
        advance(1)
    if prompted < PATIENCE:
        say(f"peft auto: visual prompts, {about(prompted)}; a frozen tower (--peft none): {about(frozen)}")
        return "vpt-deep"
    say(f"peft auto: the tower stays frozen, {about(frozen)}; visual prompts (--peft vpt-deep): {about(prompted)}")
    return "none"


def _estimate(
    settings: Training, images: LabelledImages, vlm: VisionLanguageModel, *, readable: int, engine: Engine
) -> tuple[float, float]:
    """Returns about how many seconds training takes, with a frozen tower and with visual prompts."""
    frozen, prompted = (_with(settings, peft=peft, images=readable) for peft in ("none", "vpt-deep"))
    learner = Learner(vlm, images.class_names, settings=prompted, engine=engine)

    def text() -> Tensor:
        positive, negative = learner.text()
        return positive.sum() if negative is None else positive.sum() + negative.sum()

    a_text = _seconds(text)
    with learner.attached():
        a_picture = _seconds(_tower(learner, _TRIED)) / _TRIED
    cached, seen = (make_schedule(each, images=readable) for each in (frozen, prompted))
    # the prompted tower sees each picture in each epoch, and without gradients at the end and where a selection is made
    looks = 1 + (seen.epochs - seen.warmup if settings.looks_before_epochs else 0)
    passes = (seen.epochs + looks / 3) * readable
    return cached.steps * a_text, seen.steps * a_text + passes * a_picture / engine.accelerator.num_processes


def _seconds(work: Callable[[], Tensor]) -> float:
    """Returns how long some work takes forward and backward, once it is warm."""
    made = work()
    made.backward()
    _wait_for(made.device)
    started = time.perf_counter()
    work().backward()
    _wait_for(made.device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    """Waits until a GPU has done what it was asked for, which it is told far ahead of time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _tower(learner: Learner, pictures: int) -> Callable[[], Tensor]:
    """Returns what passes some pictures through the vision tower."""
    side = learner.vlm.image_size
    pixels = torch.rand(pictures, 3, side, side, generator=torch.Generator()).to(learner.engine.device)
    return lambda: learner.pool(pixels).sum()


def _at_once(learner: Learner, *, most: int) -> int:
    """Returns how many pictures may pass the tower together: `most`, or as many as fit into memory if it is adapted.

    It is the same in all processes, which decide by it together what to try.
    """
    if learner.peft is None:
        return most
    side = learner.vlm.image_size
    with learner.attached():
        fits = fitting(learner.pool, torch.zeros(1, 3, side, side, device=learner.engine.device), most=most)
    of_all: list[int] = gather_object([fits])
    return min(of_all)


def _compiles(asked: str, learner: Learner, *, at_once: int, pictures: int) -> bool:
    """Tells, in all processes alike, whether `torch.compile` is wanted and works, or is found to pay.

    A run that is resumed goes on as it began.

    Args:
        asked: `auto`, `on` or `off`.
        learner: What is trained.
        at_once: Pictures that pass the tower at a time.
        pictures: How many pass it in all.
    """
    engine = learner.engine
    if asked == "auto":
        asked = str(stored_settings(engine).get("compile", "auto"))
    if asked == "off" or learner.peft is None or not len(learner.vlm.vision_layers):
        return False
    tried = min(2 * _TRIED, at_once)
    if asked == "auto" and pictures < _MANY * tried:
        return False
    found = [False]
    if engine.accelerator.is_main_process:
        found = [_try_to_compile(asked, learner, tried=tried, pictures=pictures)]
    broadcast_object_list(found)
    return found[0]


def _try_to_compile(asked: str, learner: Learner, *, tried: int, pictures: int) -> bool:
    """Measures some pictures with `torch.compile` and without; see :func:`_compiles`."""
    engine, blocks = learner.engine, learner.vlm.vision_layers
    work = _tower(learner, tried)
    with learner.attached():
        plain = _seconds(work)
        if asked == "auto" and pictures * plain / tried < _LONG:
            return False
        try:
            with compiled(blocks, batch=tried):
                fast = _seconds(work)
        except Exception as error:  # a compiler is missing, or anything else in a large library
            why = f"torch.compile does not work here ({type(error).__name__})"
            if asked == "on":
                raise SettingsError(f"{why}; leave --compile on out") from error
            engine.progress.say(f"note: {why}; training goes on without it")
            return False
    if asked == "auto" and fast > _PAYS * plain:
        return False
    engine.progress.say(f"the vision tower is compiled: {plain / fast:.1f} times as fast")
    return True


@dataclass(frozen=True, eq=False)
class Prepared(Generic[SettingsT]):
    """All that training takes.

    Attributes:
        view: The first look at the images.
        feed: Batches, and through it the learner and the engine.
        schedule: The epochs.
        settings: Without `auto`.
        settled: What each `auto` became, by its name.
    """

    view: FeatureView
    feed: Feed
    schedule: Schedule
    settings: SettingsT
    settled: Mapping[str, Any]


def prepare(
    settings: SettingsT, images: LabelledImages, vlm: VisionLanguageModel, *, engine: Engine
) -> Prepared[SettingsT]:
    """Takes the first look at the images, settles what is `auto`, and sets up what is trained, batches and epochs.

    Args:
        settings: The settings of a detector.
        images: N images.
        vlm: The model.
        engine: Device, processes, precision, seed, checkpoint and progress.

    Raises:
        DataError: Not a single image can be read.
        SettingsError: `compile` is `on`, and does not work here.
    """
    view = view_of(images, vlm, engine=engine)
    asked, settings = settings, settle(settings, images, vlm, readable=len(view.rows), engine=engine)
    if settings.peft.startswith("full") and settings.learning_rate > _TEARS:
        engine.progress.say(
            f"note: a learning rate of {settings.learning_rate:g} is made for small modules and tears a whole tower "
            f"apart; --peft {settings.peft} wants a far lower one, such as --learning-rate 5e-4"
        )
    learner = Learner(vlm, images.class_names, settings=settings, engine=engine)
    size = int(settings.batch_size)
    processes, schedule = engine.accelerator.num_processes, make_schedule(settings, images=len(view.rows))
    at_once = _at_once(learner, most=math.ceil(size / processes))
    compiles = _compiles(
        settings.compile, learner, at_once=at_once, pictures=schedule.epochs * len(view.rows) // processes
    )
    settings = dataclasses.replace(settings, compile="on" if compiles else "off")
    feed = Feed(images, view.features, learner, engine, size, at_once, compiles=compiles)
    settled = {name: getattr(settings, name) for name in field_names(type(asked)) if getattr(asked, name) == "auto"}
    return Prepared(view, feed, schedule, settings, settled)
