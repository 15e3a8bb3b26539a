"""Features of the frozen image encoder, computed once for a data set and a model and cached on disk."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from torch import Tensor

from labelsieve.core.cache import reserve_disk_space
from labelsieve.core.engine import Engine
from labelsieve.core.errors import RunError, TrainingError, setting
from labelsieve.core.files import new_temporary, remove_leftovers, write_json
from labelsieve.core.memory import reuse_allocations
from labelsieve.data.images import Images
from labelsieve.data.input.batches import Batch, batches, unit
from labelsieve.data.input.image_cache import CachedImages
from labelsieve.data.input.preprocessed import ImagePreprocessor, shortened
from labelsieve.vlm.feature_cache import ImageFeatures, feature_stem, read_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image


TEMPORARY_PREFIX = "labelsieve-"
"""Prefix of the folders of temporary features."""


class ImageEncoder(ImagePreprocessor, Protocol):
    """A model that turns images into features: the interface that caching features requires."""

    @property
    def name(self) -> str:
        """Hub id or folder that the model was loaded from."""
        ...

    @property
    def vision_width(self) -> int:
        """Width of the features."""
        ...

    def pool(self, pixels: Tensor) -> Tensor:
        """Computes the features: (B, 3, S, S) to (B, vision_width)."""
        ...


def image_features(
    images: Images,
    vlm: ImageEncoder,
    *,
    engine: Engine,
    batch_size: int = 64,
) -> ImageFeatures:
    """Returns the pooled features of all images, from the cache if this model has encoded them before.

    Every image is read once, so that unreadable ones are known before training starts.

    Args:
        images: N images.
        vlm: The model, on its device.
        engine: Its processes share the rows; it has the precision and the progress.
        batch_size: Images at a time.
    """
    stem = feature_stem(images, vlm.fingerprint, engine.precision)
    cached = read_features(stem, images)
    # the same decision in all processes, to avoid a deadlock: another run may finish the cache between two checks
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
    pixels: CachedImages | None = None,
) -> ImageFeatures:
    """Returns the pooled features of all images from a trained model, without caching them.

    The pass is deterministic: no augmentation, and frozen weights. All processes call this together.

    Args:
        images: N images.
        encoder: The model, on its device.
        engine: Its processes share the rows.
        batch_size: Images at a time.
        pixels: The preprocessed images, if they are cached.

    Raises:
        RunError: The disk is full.
        TrainingError: The features are no longer finite.
    """
    folder = [_temporary_folder(engine)] if engine.accelerator.is_main_process else [""]
    broadcast_object_list(folder)
    stem = Path(folder[0]) / "adapted"
    try:
        extract(images, encoder, stem, engine, batch_size, pixels=pixels)
        engine.accelerator.wait_for_everyone()
        features = read_features(stem, images)
        if features is None:
            raise RunError(f"the features of the adapted model could not be kept in {folder[0]}; is the disk full?")
        if not np.isfinite([features.pooled.min(), features.pooled.max()]).all():
            raise TrainingError(
                "the adapted image encoder no longer gives finite numbers; use a lower "
                f"{setting('learning_rate')} or {setting('precision')} fp32"
            )
        engine.accelerator.wait_for_everyone()  # until all have opened it; not in `finally`, which errors reach, too
        return features
    finally:
        if engine.accelerator.is_main_process:
            shutil.rmtree(folder[0], ignore_errors=True)  # the memory map stays valid until it is closed


def _temporary_folder(engine: Engine) -> str:
    """Creates a temporary folder next to the checkpoint, which processes on all machines can access.

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
    pixels: CachedImages | None = None,
) -> None:
    """Writes the pooled features of all images to `stem`.npy and the errors of unreadable ones to `stem`.json.

    Each process writes its share of the rows to one file, which is renamed when it is complete; the record is written
    last and makes the file valid. Concurrent runs of the same extraction do not interfere.

    Args:
        images: N images.
        vlm: The model.
        stem: Of the files.
        engine: Its processes share the rows.
        batch_size: Images at a time.
        pixels: The preprocessed images, if they are cached.

    Raises:
        RunError: The folder is not writable or its disk is full.
    """
    accelerator = engine.accelerator
    with ExitStack() as stack:
        part = _new_part(stem, (len(images), vlm.vision_width), engine, stack)
        errors, flat = _extract_rows(part, pixels or images, vlm, engine, batch_size)
        all_errors, flat = dict(gather_object(list(errors.items()))), sorted(gather_object(flat))
        if accelerator.is_main_process:
            part.replace(stem.with_suffix(".npy"))
            reasons = {str(row): why.removeprefix(f"{images.ids[row]}: ") for row, why in sorted(all_errors.items())}
            record = {"model": vlm.name, "shape": [len(images), vlm.vision_width], "errors": reasons, "flat": flat}
            write_json(stem.with_suffix(".json"), record)


def _new_part(stem: Path, shape: tuple[int, int], engine: Engine, stack: ExitStack) -> Path:
    """Creates a file with reserved disk space that all processes write to, until the stack unwinds."""
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
    broadcast_object_list(name)  # the file exists for all processes from here on
    return stem.with_name(name[0])


def _extract_rows(
    part: Path, source: Images | CachedImages, vlm: ImageEncoder, engine: Engine, batch_size: int
) -> tuple[dict[int, str], list[int]]:
    """Writes the rows of this process; returns the errors of unreadable images, and the rows of flat ones."""
    accelerator, pooled = engine.accelerator, np.lib.format.open_memmap(part, mode="r+")
    errors: dict[int, str] = {}
    flat: list[int] = []
    images = source.images if isinstance(source, CachedImages) else source
    rows_are = "images" if images.boxes is None else "boxes"
    process_rows = np.array_split(images.by_image(np.arange(len(pooled))), accelerator.num_processes)[
        accelerator.process_index
    ]
    rows = images.in_batches(process_rows, batch_size)
    with (
        torch.inference_mode(),
        reuse_allocations(),
        engine.progress.task("reading images", total=len(process_rows), unit=rows_are) as advance,
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
    source: Images | CachedImages, rows: Sequence[NDArray[np.int64]], model: ImagePreprocessor, *, device: torch.device
) -> Iterable[Batch]:
    """Yields batches of preprocessed images, from the cache or from the processor of the model.

    Args:
        source: The images, or their preprocessed versions.
        rows: The row numbers of each batch.
        model: The model, for :func:`pixels_of`.
        device: Device of the batches.
    """
    if isinstance(source, CachedImages):
        return batches(source, rows, transform=lambda image, _row: image, device=device)

    def pixels(image: Image.Image, _row: int) -> Tensor:
        return model.pixels([shortened(image, model)])[0]

    return batches(source, rows, transform=pixels, device=device)


def pixels_of(batch: Batch, model: ImagePreprocessor, device: torch.device) -> Tensor:
    """Returns the normalised pixels of a batch, (B, 3, S, S).

    Args:
        batch: A batch of :func:`prepared`.
        model: The model that it was prepared for.
        device: Device of the result.
    """
    inputs = batch.inputs.to(device)
    return model.normalise(unit(inputs)) if inputs.dtype == torch.uint8 else inputs
