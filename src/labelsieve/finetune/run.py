"""The second half of the job: select, train, measure, and keep the result with where it came from."""

from __future__ import annotations

import dataclasses
import platform
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.core.engine import Engine, Precision, make_engine
from labelsieve.core.errors import RunError, SettingsError, shown
from labelsieve.core.folders import alone_in, check_no_mount, foreign
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint, read_json, versions
from labelsieve.core.seeds import Purpose
from labelsieve.data.images import LabelledImages
from labelsieve.data.test_sets import described, overlap_note, with_class_names
from labelsieve.detect.evidence.discriminants import fit_linear
from labelsieve.detect.training.loop import belonging, seconds_before
from labelsieve.finetune import tuning
from labelsieve.finetune.backbones import Backbone, load_backbone
from labelsieve.finetune.conversion import converted_rows
from labelsieve.finetune.evaluation import predict
from labelsieve.finetune.job import Job, hold_out
from labelsieve.finetune.loop import Trained, train
from labelsieve.finetune.result import RECORD, Adapted
from labelsieve.finetune.selection import Selection, choose
from labelsieve.finetune.settings import RECIPES, Adaptation, check_saves
from labelsieve.metrics import accuracy, measure
from labelsieve.pipeline import check_run_folder
from labelsieve.report.common import findings, require_same_images
from labelsieve.review.rows import ReviewFiles, read_reviews
from labelsieve.verdicts import CHECKPOINT_FOLDER, Verdicts
from labelsieve.vlm.features import image_features
from labelsieve.vlm.names import located

BEST_IS_NO_RESULT = (
    "test_accuracy_best is the best epoch by the test set itself, for comparison with papers that report it; the model "
    "that is saved was not chosen by it"
)


def adapt(
    images: LabelledImages,
    verdicts: Verdicts,
    *,
    backbone: str | Path | None = None,
    settings: Adaptation | None = None,
    marks: ReviewFiles | None = None,
    test: LabelledImages | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Adapted:
    """Trains a standard image classifier on the part of a data set whose labels a scan took for right.

    It starts from the pre-trained weights again, not from what the scan trained.

    Args:
        images: N images with given labels: those that the verdicts were made from.
        verdicts: From :func:`labelsieve.scan` or :meth:`labelsieve.Verdicts.load`.
        backbone: Hub id or folder of any model that `AutoModelForImageClassification` loads, or a name that
            :func:`labelsieve.load_vlm` takes; by default the model of the scan.
        settings: How to train; `Adaptation()` if None. What trains visual prompts or adapters goes without an `out`.
        marks: What people said of the images, which counts more than the verdicts: run folders with a log of answers,
            and CSV files of marks, downloaded from the report; one or several, see
            :func:`labelsieve.review.rows.read_reviews`.
        test: Images with right labels, to measure accuracy with, as `pipeline("image-classification")` sees them.
            Nothing is chosen by them.
        seed: Every random choice is drawn from it.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32` or `bf16`.
        out: A folder for the model and, while running, checkpoints; None keeps nothing on disk.
        resume: Go on from the checkpoint in `out`; start again if there is none.
        overwrite: Replace a model in `out`, once the new one is whole; with `resume` a checkpoint is kept.
        progress: Where to show how far it is.

    Returns:
        The classifier, saved if there is an `out`.

    Raises:
        LabelsieveError: See the classes in `labelsieve.core.errors`; the message says what to do.

    Example:
        >>> import labelsieve as ls
        >>> from labelsieve.demo import MINI_CLIP
        >>> from labelsieve.demo.sketches import CLASS_NAMES, sketches
        >>> drawn, labels = sketches(64, seed=0)
        >>> images = ls.load_images(drawn, labels=labels, class_names=CLASS_NAMES)
        >>> images = ls.inject(images, kind="symmetric", rate=0.25)
        >>> verdicts = ls.scan(images, ls.load_vlm(MINI_CLIP), detector=ls.Joint())
        >>> drawn, labels = sketches(32, seed=1)
        >>> checked = ls.load_images(drawn, labels=labels, class_names=CLASS_NAMES)
        >>> settings = ls.Adaptation(tune="linear", epochs=1, min_steps=0)
        >>> adapted = ls.adapt(images, verdicts, backbone=MINI_CLIP, settings=settings, test=checked)
        >>> adapted.metrics["test"]["accuracy"] > 0.5
        True
    """
    settings = Adaptation() if settings is None else settings
    if out is not None:
        check_saves(settings.tune)
    _check_same_data(images, verdicts)
    with nullcontext() if out is None else alone_in(Path(out)):
        folder = None if out is None else check_model_folder(out, overwrite=overwrite, resume=resume)
        reviews = None if marks is None else read_reviews(marks, verdicts, images=images, progress=progress)
        selection = choose(verdicts, settings, reviews=reviews)
        tested = None if test is None else _seen_by_pipeline(with_class_names(test, verdicts.class_names), images)
        engine = make_engine(
            device=device,
            precision=precision,
            seed=seed,
            checkpoint=None if folder is None else folder / CHECKPOINT_FOLDER,
            resume=resume,
            progress=progress,
        )
        started = time.perf_counter() - seconds_before(engine)  # a run that is resumed began earlier
        loaded = load_backbone(_backbone_name(backbone, verdicts), verdicts.class_names)
        loaded.model.to(engine.device)
        job = _job(loaded, images, selection, tested, settings, engine)
        overlap = () if tested is None else overlap_note(tested, images.contents[selection.rows])
        notes = (*_problems(verdicts), *selection.notes, *overlap)
        for note in notes:
            engine.progress.say(f"note: {note}")
        adapted = _train_and_measure(job, verdicts, notes, started)
        if folder is not None and engine.accelerator.is_main_process:
            adapted.save(folder)
        engine.accelerator.wait_for_everyone()
    return adapted


def check_model_folder(out: str | Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Checks that a model may be written to a folder, before anything expensive starts.

    Raises:
        RunError: There is something in the way that is no model of ours, nothing to resume, or the folder cannot be
            made.
    """
    folder = Path(out)
    check_no_mount(folder)
    if folder.is_dir():  # which is replaced as a whole, so it must be our own
        others = foreign(folder, {CHECKPOINT_FOLDER, *_written(folder)})
        if others:
            raise RunError(
                f"{folder} holds other files, such as {shown(others[0])}; choose another folder for the model"
            )
    return check_run_folder(folder, overwrite=overwrite, resume=resume, record=RECORD, what="model", files=())


def _written(folder: Path) -> list[str]:
    """Returns the names of what an adaptation wrote to a folder; empty where it is no model of ours."""
    try:
        names = read_json(folder / RECORD).get("files")
    except RunError:
        return []
    return [RECORD, *map(str, names)] if isinstance(names, list) else []


def _check_same_data(images: LabelledImages, verdicts: Verdicts) -> None:
    require_same_images(verdicts, images)
    scanned = verdicts.run.data.fingerprint or images.fingerprint
    labels_differ = images.class_names != verdicts.class_names or not np.array_equal(images.labels, verdicts.given)
    if scanned != images.fingerprint or labels_differ:
        raise RunError("the images or their labels are not those that the verdicts were made from; scan them again")


def _seen_by_pipeline(test: LabelledImages, images: LabelledImages) -> LabelledImages:
    """Returns test images as those who use the model see them, where that makes a difference."""
    test = dataclasses.replace(test, ranges={**test.ranges, **images.ranges})
    return test.seen_by_pipeline() if len(converted_rows(test, np.arange(len(test)))) else test


def _backbone_name(backbone: str | Path | None, verdicts: Verdicts) -> str:
    name = verdicts.run.model.name if backbone is None else backbone
    if not name:
        raise SettingsError("the verdicts do not say which model they were made with; name a backbone (--backbone)")
    return str(name)


def _job(
    backbone: Backbone,
    images: LabelledImages,
    selection: Selection,
    test: LabelledImages | None,
    settings: Adaptation,
    engine: Engine,
) -> Job:
    owner = belonging(
        settings,
        engine,
        data=images.fingerprint,
        selection=fingerprint(selection.rows, selection.labels, selection.weights),
        test_images="" if test is None else test.fingerprint,
        backbone=backbone.fingerprint,
    )
    return Job(
        backbone=backbone,
        images=images,
        selection=selection,
        held_out=hold_out(selection, settings.validation, engine=engine),
        test=test,
        settings=settings,
        engine=engine,
        owner=owner,
    )


def _problems(verdicts: Verdicts) -> tuple[str, ...]:
    """Returns what the scan said of itself that makes its selection doubtful."""
    return tuple(
        f"the scan warned: {finding['figure']}. {finding['message']}"
        for finding in findings(verdicts.run)
        if finding["level"] == "problem"
    )


def _train_and_measure(job: Job, verdicts: Verdicts, notes: tuple[str, ...], started: float) -> Adapted:
    settings, backbone, engine = job.settings, job.backbone, job.engine
    _start_head(job)
    tuning.prepare(backbone, settings, generator=engine.generator(Purpose.INITIAL_MODULES))
    parameters = list(backbone.model.parameters())
    changed = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    trained = train(job)
    tuning.merge(backbone)
    backbone.model.eval().requires_grad_(False)
    metrics = _metrics(job, trained)
    record = _record(job, verdicts, trained, notes, parameters=changed, seconds=time.perf_counter() - started)
    return Adapted(backbone=backbone, class_names=job.images.class_names, record=record, metrics=metrics)


def _start_head(job: Job) -> None:
    """Sets the head, and computes all features that training on cached ones will ask for."""
    engine, backbone = job.engine, job.backbone
    if job.on_features and job.test is not None:
        image_features(job.test, backbone, engine=engine)
    if not (job.on_features or job.settings.head_init == "probe"):
        return
    features = image_features(job.images, backbone, engine=engine)
    rows = np.intersect1d(job.rows, features.readable)
    if job.settings.head_init == "probe" and len(rows):
        classes = len(job.images.class_names)
        weights, biases = fit_linear(
            features.pooled,
            job.selection.labels,
            rows=rows,
            classes=classes,
            generator=engine.generator(Purpose.HEAD_FOLDS),
            progress=engine.progress,
        )
        with torch.no_grad():
            backbone.head.weight.copy_(weights)
            backbone.head.bias.copy_(biases)


def _metrics(job: Job, trained: Trained) -> dict[str, Any]:
    every = [trained.start, *trained.history]
    metrics: dict[str, Any] = {
        "saved_epoch": trained.saved_epoch,
        "validation_accuracy": every[trained.saved_epoch].get("validation_accuracy"),
        "test": None,
        "test_converted": 0,
    }
    if job.test is not None:
        predicted = predict(job, job.test, np.arange(len(job.test)))
        scores = [record["test_accuracy"] for record in every]
        metrics |= {
            "test": measure(predicted, job.test.labels, job.images.class_names),
            "test_accuracy_start": scores[0],
            "test_accuracy_last": scores[-1],
            "test_accuracy_best": max(scores),
            "test_best_epoch": scores.index(max(scores)),
            "note": BEST_IS_NO_RESULT,
            **_as_trained(job, predicted),
        }
    return metrics


def _as_trained(job: Job, predicted: NDArray[np.int64]) -> dict[str, Any]:
    """Returns how many test images training would see with other pixels, and the accuracy on the test set if it did."""
    test = job.test
    if test is None or not test.as_pipeline:
        return {"test_accuracy_converted": None}
    ours = dataclasses.replace(test, as_pipeline=False)
    rows = converted_rows(ours, np.arange(len(test)))
    predicted = predicted.copy()
    predicted[rows] = predict(job, ours.take(rows), np.arange(len(rows)))
    return {"test_converted": len(rows), "test_accuracy_converted": accuracy(predicted, test.labels)}


def _record(
    job: Job,
    verdicts: Verdicts,
    trained: Trained,
    notes: tuple[str, ...],
    *,
    parameters: int,
    seconds: float,
) -> dict[str, Any]:
    engine, backbone, scanned = job.engine, job.backbone, verdicts.run
    installed = versions()
    source = str(scanned.source or job.images.origin.get("source", "data in memory"))
    return {
        "labelsieve": installed.get("labelsieve", "unknown"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "source": source,
            "images": len(job.images),
            "classes": len(job.images.class_names),
            "fingerprint": job.images.fingerprint,
        },
        "verdicts": {
            "detector": scanned.detector.name,
            "detector_settings": scanned.detector.settings,
            "model": scanned.model.name,
            "created": scanned.created,
        },
        "selection": {**job.selection.counts, "trained_on": len(job.rows), "held_out": len(job.held_out)},
        "test": None if job.test is None else described(job.test),
        "converted": {
            "images": len(converted_rows(job.images, job.rows)),
            "ranges": {kind: list(ends) for kind, ends in job.images.ranges.items()},
        },
        "backbone": {
            "name": located(backbone.name),
            "kind": backbone.kind,
            "fingerprint": backbone.fingerprint,
            "image_size": backbone.image_size,
            "parameters": sum(parameter.numel() for parameter in backbone.model.parameters()),
            "trained": parameters,
        },
        "settings": dataclasses.asdict(job.settings),
        "recipe": next((name for name, known in RECIPES.items() if known == job.settings), None),
        "saved_epoch": trained.saved_epoch,
        "history": trained.history,
        "notes": list(notes),
        "class_names": list(job.images.class_names),
        "seed": engine.seed,
        "precision": engine.precision,
        "processes": engine.accelerator.num_processes,
        "hardware": f"{engine.device.type}, {platform.machine()}",
        "seconds": round(seconds, 2),
        "versions": installed,
    }
