"""Resolves `auto` once, before training, from the settings, the data, the model and the type of device.

It never depends on timings, free memory or the number of cores: the same command gives the same verdicts, however busy
the machine is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray

from labelsieve.core.checkpoints import stored_settings
from labelsieve.core.engine import Engine
from labelsieve.core.errors import SettingsError, setting, shown
from labelsieve.core.memory import max_chunk_size
from labelsieve.core.validation import field_names
from labelsieve.detect.inputs import DetectorInputs
from labelsieve.detect.training.compiling import compiled
from labelsieve.detect.training.learner import BatchSource, Learner
from labelsieve.detect.training.loop import Schedule, make_schedule
from labelsieve.detect.training.settings import PromptTraining, Training
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.peft.base import is_compatible
from labelsieve.vlm.peft.registry import PEFT

SettingsT = TypeVar("SettingsT", bound=Training)

# Batch size of the paper; maximum batch size with cached features; minimum number of steps with a larger batch.
_BATCH, _LARGEST, _STEPS = 64, 2048, 300
# Maximum learning rate for full fine-tuning without a warning: the paper uses at most 1e-2.
_MAX_FULL_RATE = 1e-2
# Number of images for testing whether `torch.compile` works.
_PROBE_IMAGES = 16
# Minimum number of images, over all epochs, for which `auto` compiles on a GPU: compiling takes about a minute.
_MIN_IMAGES_TO_COMPILE = 200_000
# Modules that `auto` tries, in this order.
_MODULES = {"vpt-deep": "visual prompts", "bitfit": "all biases of the image encoder"}
# Cost of a forward and a backward pass together, in forward passes.
_FORWARD_AND_BACKWARD = 3


def resolve(settings: SettingsT, vlm: VisionLanguageModel, *, readable: int, engine: Engine) -> SettingsT:
    """Replaces `auto` in `peft` and `batch_size` of a detector, with the same values in all processes.

    A resumed run keeps its `peft`, even on another device.

    Args:
        settings: The settings.
        vlm: The model.
        readable: Number of images that can be read.
        engine: Device and checkpoint; it also reports the choice.
    """
    if settings.peft != "auto":
        return _with(settings, peft=settings.peft, images=readable)
    if settings.epochs == 0 or not readable:
        return _with(settings, peft="none", images=readable)
    peft = stored_settings(engine).get("peft")
    return _with(settings, peft=peft or _choose_peft(settings, vlm, readable=readable, engine=engine), images=readable)


def _with(settings: SettingsT, *, peft: Any, images: int) -> SettingsT:
    """Returns settings without `auto`."""
    size = settings.batch_size
    if size == "auto":
        size = _BATCH if peft != "none" else frozen_batch(settings, images)
    return dataclasses.replace(settings, peft=peft, batch_size=size)


def frozen_batch(settings: PromptTraining, images: int) -> int:
    """Returns `auto` for a frozen encoder: the largest power of two from 64 to 2048 that leaves enough steps."""
    maximum = images * settings.epochs // max(_STEPS, settings.min_steps)
    return min(_LARGEST, max(_BATCH, 1 << max(0, maximum.bit_length() - 1)))


def _choose_peft(settings: Training, vlm: VisionLanguageModel, *, readable: int, engine: Engine) -> str:
    def say(what: str) -> None:
        engine.progress.say(f"peft auto: {what}")

    if not settings.visual_prompts:
        say("the image encoder stays frozen, without visual prompts: there are none")
        return "none"
    peft = next((kind for kind in _MODULES if is_compatible(kind, vlm)), "none")
    if peft == "none":
        say(f"the image encoder of {shown(vlm.name)} stays frozen: it takes no visual prompts and has no biases")
        return "none"
    module = _MODULES[peft]
    if peft != "vpt-deep":
        module += f", as the image encoder of {shown(vlm.name)} takes no visual prompts"
    if not settings.trains_something(peft="none"):
        say(f"{module}; nothing else is left to train")
        return peft
    times = _forward_passes(settings, images=readable)
    if engine.device.type == "cpu":
        say(
            f"the image encoder stays frozen, as always on a CPU; --peft {peft} ({module}) would take about {times} "
            "times as long as reading the images once"
        )
        return "none"
    say(
        f"{module}, since there is an accelerator ({engine.device.type}): about {times} times as long as reading the "
        "images once, which is enough for a frozen image encoder (--peft none)"
    )
    return peft


def _forward_passes(settings: Training, *, images: int) -> int:
    """Returns the estimated cost of training a module on the encoder, in forward passes over the images."""
    schedule = make_schedule(_with(settings, peft="vpt-deep", images=images), images=images)
    evaluations = 1 + (schedule.epochs - schedule.warmup if settings.evaluates_before_epochs else 0)
    return _FORWARD_AND_BACKWARD * schedule.epochs + evaluations


def _at_once(learner: Learner, *, maximum: int) -> int:
    """Returns the number of images per pass: `maximum`, or what fits into memory if the encoder is adapted.

    All processes get the same value, because their later decisions depend on it.
    """
    if learner.peft is None:
        return maximum
    side = learner.vlm.image_size
    with learner.attached():
        fits = max_chunk_size(
            learner.pool, torch.zeros(1, 3, side, side, device=learner.engine.device), maximum=maximum
        )
    of_all: list[int] = gather_object([fits])
    return min(of_all)


def _compiles(requested: str, learner: Learner, *, at_once: int, images: int) -> bool:
    """Returns whether to compile the image encoder with `torch.compile`, the same in all processes.

    A resumed run keeps its choice.

    Args:
        requested: `auto`, `on` or `off`; `auto` is `on` if many images pass through the encoder on a CUDA device.
        learner: The learner.
        at_once: Number of images per pass.
        images: Total number of images over all epochs.
    """
    engine = learner.engine
    goes_on = requested == "auto" and "compile" in stored_settings(engine)
    if goes_on:
        requested = str(stored_settings(engine)["compile"])
    if requested == "off" or learner.peft is None or not len(learner.vlm.vision_layers):
        return False
    if requested == "auto" and (engine.device.type != "cuda" or images < _MIN_IMAGES_TO_COMPILE):
        return False
    works = [False]
    if engine.accelerator.is_main_process:
        advice = (
            f"start it again without {setting('resume')}, with {setting('overwrite')}"
            if goes_on
            else f"leave {setting('compile')} on out"
        )
        works = [_compiling_works(requested, learner, tried=min(_PROBE_IMAGES, at_once), advice=advice)]
    broadcast_object_list(works)
    return works[0]


def _compiling_works(requested: str, learner: Learner, *, tried: int, advice: str) -> bool:
    """Returns whether a forward and a backward pass through the compiled encoder work; see :func:`_compiles`."""
    side, say = learner.vlm.image_size, learner.engine.progress.say
    pixels = torch.rand(tried, 3, side, side, generator=torch.Generator()).to(learner.engine.device)
    try:
        with learner.attached(), compiled(learner.vlm.vision_layers, batch=tried):
            learner.pool(pixels).sum().backward()
    except Exception as error:  # for example a missing compiler; torch.compile fails in many ways
        why = f"torch.compile does not work here ({type(error).__name__})"
        if requested == "on":
            raise SettingsError(f"{why}, and this run needs it; {advice}") from error
        say(f"note: {why}; training goes on without it")
        return False
    say("the image encoder is compiled" + ("" if requested == "on" else "; --compile off leaves it as it is"))
    return True


@dataclass(frozen=True, eq=False)
class Prepared(Generic[SettingsT]):
    """Everything that training needs.

    Attributes:
        batches: The batches, with the learner and the engine.
        labels: Given labels, (N,).
        schedule: The epochs and their steps.
        settings: Settings without `auto`.
        resolved: Resolved value of each `auto` by the name of its setting.
    """

    batches: BatchSource
    labels: NDArray[np.int64]
    schedule: Schedule
    settings: SettingsT
    resolved: Mapping[str, Any]


def prepare(settings: SettingsT, inputs: DetectorInputs) -> Prepared[SettingsT]:
    """Resolves `auto`, and prepares the learner, the batches and the schedule.

    Args:
        settings: The settings of a detector.
        inputs: Images, model and engine.

    Raises:
        SettingsError: The model does not support the module, or `compile` is `on` and does not work here.
    """
    images, vlm = inputs.images_and_model()
    engine, readable = inputs.engine, len(inputs.rows)
    requested, settings = settings, resolve(settings, vlm, readable=readable, engine=engine)
    if PEFT.entries[settings.peft].is_full and settings.learning_rate > _MAX_FULL_RATE:
        engine.progress.say(
            f"note: a learning rate of {settings.learning_rate:g} is made for small modules and tears a whole encoder "
            f"apart; --peft {settings.peft} wants a far lower one, such as --learning-rate 5e-4"
        )
    learner = Learner(vlm, images.class_names, settings=settings, engine=engine)
    size = int(settings.batch_size)
    processes, schedule = engine.accelerator.num_processes, make_schedule(settings, images=readable)
    at_once = _at_once(learner, maximum=math.ceil(size / processes))
    compiles = _compiles(settings.compile, learner, at_once=at_once, images=schedule.epochs * readable // processes)
    settings = dataclasses.replace(settings, compile="on" if compiles else "off")
    batches = BatchSource(images, inputs.features, learner, engine, size, at_once, compiles=compiles)
    resolved = {
        name: getattr(settings, name) for name in field_names(type(requested)) if getattr(requested, name) == "auto"
    }
    return Prepared(batches, inputs.labels, schedule, settings, resolved)
