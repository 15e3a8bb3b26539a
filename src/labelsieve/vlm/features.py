"""Features of the frozen image encoder, computed once for a data set and a model and kept on disk."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.cache import reserve_disk_space
from labelsieve.core.engine import Engine
from labelsieve.core.errors import RunError, TrainingError
from labelsieve.core.memory import reuse_allocations
from labelsieve.core.provenance import new_temporary, remove_leftovers, write_json
from labelsieve.data.images import Images
from labelsieve.data.input.batches import Batch, batches, unit
from labelsieve.data.input.image_cache import Pictures
from labelsieve.data.input.preprocessed import Prepares, shortened
from labelsieve.vlm.base import ImageEncoder
from labelsieve.vlm.feature_cache import ImageFeatures, feature_stem, read_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image


TEMPORARY_PREFIX = "labelsieve-"
"""How the folders of features begin that nobody keeps."""


def image_features(
    images: Images,
    vlm: ImageEncoder,
    *,
    engine: Engine,
    batch_size: int = 64,
) -> ImageFeatures:
    """Returns the pooled features of all images, from the cache if this model has encoded them before.

    Every image is read here once, so that unreadable ones are known before any training starts.

    Args:
        images: N images.
        vlm: The model, on the device where it shall run.
        engine: Its processes share the rows; it sets the precision and shows how far it is.
        batch_size: Images at a time.
    """
    stem = feature_stem(images, vlm.fingerprint, engine.precision)
    cached = read_features(stem, images)
    # alike in all processes, who would wait for each other else: another run may finish these between two checks
    if int(engine.total(torch.tensor(int(cached is None), device=engine.device))):
        extract(images, vlm, stem, engine, batch_size)
        engine.accelerator.wait_for_everyone()
        cached = read_features(stem, images)
    if cached is None:
        raise RunError(f"the features could not be kept in {stem.parent}; set LABELSIEVE_CACHE to a writable folder")
    return cached


def temporary_features(
    images: Images,
    encoder: ImageEncoder,
    *,
    engine: Engine,
    batch_size: int = 64,
    pixels: Pictures | None = None,
) -> ImageFeatures:
    """Returns the pooled features of all images from a model that was trained, which are not kept.

    The pass is deterministic: no augmentation, and the weights stand still. All processes call this together.

    Args:
        images: N images.
        encoder: The model, on its device.
        engine: Its processes share the rows.
        batch_size: Images at a time.
        pixels: The images as the model prepares them, if they are kept.

    Raises:
        RunError: There is no room for them.
        TrainingError: The model no longer gives finite numbers.
    """
    folder = [_passing_folder(engine)] if engine.accelerator.is_main_process else [""]
    broadcast_object_list(folder)
    stem = Path(folder[0]) / "adapted"
    try:
        extract(images, encoder, stem, engine, batch_size, pixels=pixels)
        engine.accelerator.wait_for_everyone()
        found = read_features(stem, images)
        if found is None:
            raise RunError(f"the features of the adapted model could not be kept in {folder[0]}; is the disk full?")
        if not np.isfinite([found.pooled.min(), found.pooled.max()]).all():
            raise TrainingError(
                "the adapted image encoder no longer gives finite numbers; use a lower --learning-rate or --precision "
                "fp32"
            )
        engine.accelerator.wait_for_everyone()  # till all have opened it; after an error the others would not come
        return found
    finally:
        if engine.accelerator.is_main_process:
            shutil.rmtree(folder[0], ignore_errors=True)  # the memory map lives on until it is let go


def _passing_folder(engine: Engine) -> str:
    """Makes a folder for what is given up after use, beside the checkpoint, which processes on all machines see.

    Raises:
        RunError: It cannot be made.
    """
    try:
        if engine.checkpoint is not None:
            engine.checkpoint.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=engine.checkpoint)
    except OSError as error:
        where = engine.checkpoint or tempfile.gettempdir()
        raise RunError(f"could not make a folder in {where}: {error.strerror}; choose a writable place") from error


def extract(
    images: Images,
    vlm: ImageEncoder,
    stem: Path,
    engine: Engine,
    batch_size: int,
    *,
    pixels: Pictures | None = None,
) -> None:
    """Writes the pooled features of all images to `stem`.npy and the reasons of unreadable ones to `stem`.json.

    Each process fills its share of the rows of one file, which gets its name when it is whole; the record is written
    last and makes the file count. Runs that do the same at the same time do not get in each other's way.

    Args:
        images: N images.
        vlm: The model.
        stem: Of the files.
        engine: Its processes share the rows.
        batch_size: Images at a time.
        pixels: The images as the model prepares them, if they are kept.

    Raises:
        RunError: The folder is not writable or its disk is full.
    """
    accelerator = engine.accelerator
    with ExitStack() as stack:
        part = _new_part(stem, (len(images), vlm.vision_width), engine, stack)
        errors, flat = _fill(part, pixels or images, vlm, engine, batch_size)
        found, flat = dict(gather_object(list(errors.items()))), sorted(gather_object(flat))
        if accelerator.is_main_process:
            part.replace(stem.with_suffix(".npy"))
            reasons = {str(row): why.removeprefix(f"{images.ids[row]}: ") for row, why in sorted(found.items())}
            record = {"model": vlm.name, "shape": [len(images), vlm.vision_width], "errors": reasons, "flat": flat}
            write_json(stem.with_suffix(".json"), record)


def _new_part(stem: Path, shape: tuple[int, int], engine: Engine, stack: ExitStack) -> Path:
    """Makes an empty file for all processes to fill, with its room on the disk kept for it, until a stack unwinds."""
    name = [""]
    if engine.accelerator.is_main_process:
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(stem)
            part = stack.enter_context(new_temporary(stem))
            np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape).flush()
            reserve_disk_space(part)
            name = [part.name]
        except OSError as error:
            raise RunError(
                f"could not keep image features in {stem.parent}: {error.strerror or error}; free some space or set "
                "LABELSIEVE_CACHE to a writable folder"
            ) from error
    broadcast_object_list(name)  # which is there for all of them then
    return stem.with_name(name[0])


def _fill(
    part: Path, source: Images | Pictures, vlm: ImageEncoder, engine: Engine, batch_size: int
) -> tuple[dict[int, str], list[int]]:
    """Writes this process's share of the rows; returns the reasons of those that cannot be read, and the flat ones."""
    accelerator, pooled = engine.accelerator, np.lib.format.open_memmap(part, mode="r+")
    errors: dict[int, str] = {}
    flat: list[int] = []
    images = source.images if isinstance(source, Pictures) else source
    unit = "images" if images.boxes is None else "parts"
    own = np.array_split(images.by_image(np.arange(len(pooled))), accelerator.num_processes)[accelerator.process_index]
    rows = images.in_batches(own, batch_size)
    with (
        torch.inference_mode(),
        reuse_allocations(),
        engine.progress.task("reading images", total=len(own), unit=unit) as advance,
    ):
        for batch in prepared(source, rows, vlm, device=engine.device):
            errors.update(batch.errors)
            flat += batch.flat
            if len(batch.rows):
                with engine.autocast():
                    values = vlm.pool(pixels_of(batch, vlm, engine.device))
                pooled[batch.rows.numpy()] = values.float().cpu().numpy()
            advance(len(batch.rows) + len(batch.errors))
    pooled.flush()
    return errors, flat


def prepared(
    source: Images | Pictures, rows: Sequence[NDArray[np.int64]], model: Prepares, *, device: torch.device
) -> Iterable[Batch]:
    """Yields batches of preprocessed images, as they are kept or as the model's own processor prepares them.

    Args:
        source: The images, or their preprocessed versions.
        rows: The row numbers of each batch.
        model: Takes what :func:`pixels_of` makes of a batch.
        device: Where it runs.
    """
    if isinstance(source, Pictures):
        return batches(source, rows, transform=lambda image, _row: image, device=device)

    def pixels(image: Image.Image, _row: int) -> Tensor:
        return model.pixels([shortened(image, model)])[0]

    return batches(source, rows, transform=pixels, device=device)


def pixels_of(batch: Batch, model: Prepares, device: torch.device) -> Tensor:
    """Returns the pixels of a batch of :func:`prepared` as the model takes them, (B, 3, S, S)."""
    inputs = batch.inputs.to(device)
    return model.normalise(unit(inputs)) if inputs.dtype == torch.uint8 else inputs
