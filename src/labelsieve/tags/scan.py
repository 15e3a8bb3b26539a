"""`scan_tags()`, for any number of labels per image: scores pairs of image and class, and records provenance."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

from labelsieve.core.checkpoints import seconds_before
from labelsieve.core.engine import Engine, Precision
from labelsieve.core.progress import Progress
from labelsieve.data.tags.records import TaggedImages
from labelsieve.detect.inputs import inputs_of_images
from labelsieve.detect.tags.base import TagDetector
from labelsieve.detect.tags.inputs import TagInputs
from labelsieve.detect.tags.registry import DEFAULT, TAG_DETECTORS, check_tag_input, tag_detector_class
from labelsieve.detect.tags.scores import TagScores
from labelsieve.detect.zero_shot import class_text_notes, template_notes
from labelsieve.run_folder import check_run_folder, open_run, remove_checkpoint, run_record
from labelsieve.tags.verdicts import TAG_FILES, TagVerdicts, decide_tags
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.names import absolute_name


def scan_tags(
    images: TaggedImages,
    vlm: VisionLanguageModel | None = None,
    *,
    detector: TagDetector | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TagVerdicts:
    """Finds wrong and missing tags in a data set.

    Args:
        images: N images with tags; true tags, if there are any, are used for the metrics only.
        vlm: The model, from :func:`labelsieve.load_vlm`.
        detector: How to score the pairs of image and class; `joint` if None.
        seed: Seed of all random choices.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32` or `bf16`.
        out: A run folder for the verdicts; None writes nothing to disk.
        resume: Whether to resume a stopped run in `out`; starts again if there is none.
        overwrite: Whether to replace a finished run in `out`, once the new one is complete.
        progress: Receives progress and messages.

    Returns:
        The verdicts, saved if there is an `out`.

    Raises:
        LabelsieveError: See the classes in `labelsieve.core.errors`; the message contains the advice.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(64, seed=0)
        >>> tags = [[] if row == 3 else [CLASS_NAMES[label]] for row, label in enumerate(labels)]
        >>> images = ls.load_tags(drawn, tags=tags, class_names=CLASS_NAMES)
        >>> verdicts = ls.scan_tags(images, ls.load_vlm(MINI_CLIP))
        >>> verdicts.table["kind"][0].as_py(), verdicts.table["id"][0].as_py()
        ('missing', '0000003')
    """
    detector = tag_detector_class(DEFAULT)() if detector is None else detector
    vlm = check_tag_input(detector, images, vlm)
    with open_run(
        out,
        check=partial(check_run_folder, files=TAG_FILES),
        seed=seed,
        device=device,
        precision=precision,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    ) as (folder, engine):
        verdicts = _scan(images, vlm, detector, engine, out=out)
        if folder is not None and engine.accelerator.is_main_process:
            verdicts.save(folder)
            remove_checkpoint(folder)
    return verdicts


def _scan(
    images: TaggedImages,
    vlm: VisionLanguageModel,
    detector: TagDetector,
    engine: Engine,
    *,
    out: str | Path | None,
) -> TagVerdicts:
    started = time.perf_counter() - seconds_before(engine)  # a resumed run started earlier
    inputs = inputs_of_images(images, vlm, class_names=images.class_names, engine=engine)
    scores = detector.score(TagInputs(inputs, images.tags, images))
    notes = (*class_text_notes(vlm, images.class_names), *template_notes(vlm, images.class_names), *scores.notes)
    scores = dataclasses.replace(scores, notes=notes)
    engine.progress.say_notes(scores.notes)
    record = _record(images, vlm, detector, engine, scores, seconds=time.perf_counter() - started)
    return decide_tags(images, scores, record={**record, "out": None if out is None else str(out)})


def _record(
    images: TaggedImages,
    vlm: VisionLanguageModel,
    detector: TagDetector,
    engine: Engine,
    scores: TagScores,
    *,
    seconds: float,
) -> dict[str, Any]:
    run = run_record(images, engine, detector, name=TAG_DETECTORS.label_of(detector), seconds=seconds)
    run["data"]["tags"], run["detector"]["resolved"] = int(images.tags.sum()), dict(scores.resolved)
    return {
        **run,
        "model": {"name": absolute_name(vlm.name), "fingerprint": vlm.fingerprint},
        "thresholds": scores.thresholds and dict(zip(("wrong", "missing"), scores.thresholds, strict=True)),
        "history": list(scores.history),
        "notes": [*images.notes, *scores.notes],
    }
