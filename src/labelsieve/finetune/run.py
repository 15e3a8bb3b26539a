"""The second half of the job: select, train, measure, and keep the result with where it came from."""

from __future__ import annotations

import dataclasses
import platform
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.core.checkpoints import run_identity, seconds_before
from labelsieve.core.engine import Engine, Precision
from labelsieve.core.errors import RunError, SettingsError, shown
from labelsieve.core.output_folders import check_no_mount, unknown_files
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint, read_json, versions
from labelsieve.core.seeds import Purpose
from labelsieve.data.test_sets import described, overlap_note
from labelsieve.finetune import tuning
from labelsieve.finetune.backbones import Backbone, load_backbone
from labelsieve.finetune.conversion import converted_rows
from labelsieve.finetune.evaluation import predict
from labelsieve.finetune.job import Job, hold_out
from labelsieve.finetune.kinds import AnyImages, AnyVerdicts, kind_of
from labelsieve.finetune.loop import Trained, train
from labelsieve.finetune.result import RECORD, Adapted
from labelsieve.finetune.selection import Selection
from labelsieve.finetune.settings import RECIPES, Adaptation, check_saves
from labelsieve.report.common import findings
from labelsieve.review.rows import ReviewFiles
from labelsieve.run_folder import check_run_folder, open_run
from labelsieve.verdicts import CHECKPOINT_FOLDER
from labelsieve.vlm.features import image_features
from labelsieve.vlm.names import absolute_name

BEST_IS_NO_RESULT = (
    "test_{score}_best is the best epoch by the test set itself, for comparison with papers that report it; the model "
    "that is saved was not chosen by it"
)


def adapt(
    images: AnyImages,
    verdicts: AnyVerdicts,
    *,
    backbone: str | Path | None = None,
    settings: Adaptation | None = None,
    marks: ReviewFiles | None = None,
    test: AnyImages | None = None,
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
        images: N images with given labels, or with tags: those that the verdicts were made from.
        verdicts: From :func:`labelsieve.scan` or :meth:`labelsieve.Verdicts.load`; of tags from
            :func:`labelsieve.scan_tags` or :meth:`labelsieve.TagVerdicts.load`.
        backbone: Hub id or folder of any model that `AutoModelForImageClassification` loads, or a name that
            :func:`labelsieve.load_vlm` takes; by default the model of the scan.
        settings: How to train; `Adaptation()` if None, with tags `Adaptation(labels="relabel")`. What trains visual
            prompts or adapters goes without an `out`.
        marks: What people said of the images, which counts more than the verdicts: run folders with a log of answers,
            and CSV files of marks, downloaded from the report; one or several, see
            :func:`labelsieve.review.rows.read_reviews`, and with tags :func:`labelsieve.tags.marks.after_marks`.
        test: Images with right labels, or right tags, to measure the classifier with, as
            `pipeline("image-classification")` sees them. Nothing is chosen by them.
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
    kind = kind_of(images)
    settings = kind.defaults if settings is None else settings
    if out is not None:
        check_saves(settings.tune)
    kind.check(images, verdicts, settings)
    check = partial(check_model_folder, overwrite=overwrite, resume=resume)
    options: dict[str, Any] = {"seed": seed, "device": device, "precision": precision, "resume": resume}
    with open_run(out, check=check, **options, progress=progress) as (folder, engine):
        selection = kind.choose(images, verdicts, settings, marks, progress)
        tested = None if test is None else _seen_by_pipeline(kind.matched(test, verdicts.class_names), images)
        started = time.perf_counter() - seconds_before(engine)  # a run that is resumed began earlier
        name = _backbone_name(backbone, verdicts)
        loaded = load_backbone(name, verdicts.class_names, problem_type=kind.problem_type)
        loaded.model.to(engine.device)
        job = _job(loaded, images, selection, tested, settings, engine)
        overlap = () if tested is None else overlap_note(tested, images.contents[selection.rows])
        notes = (*_problems(verdicts), *selection.notes, *overlap)
        for note in notes:
            engine.progress.say(f"note: {note}")
        adapted = _train_and_measure(job, verdicts, notes, started)
        if folder is not None and engine.accelerator.is_main_process:
            adapted.save(folder)
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
        others = unknown_files(folder, {CHECKPOINT_FOLDER, *_written(folder)})
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


def _seen_by_pipeline(test: AnyImages, images: AnyImages) -> AnyImages:
    """Returns test images as those who use the model see them, where that makes a difference."""
    test = dataclasses.replace(test, ranges={**test.ranges, **images.ranges})
    return test.seen_by_pipeline() if len(converted_rows(test, np.arange(len(test)))) else test


def _backbone_name(backbone: str | Path | None, verdicts: AnyVerdicts) -> str:
    name = verdicts.run.model.name if backbone is None else backbone
    if not name:
        raise SettingsError("the verdicts do not say which model they were made with; name a backbone (--backbone)")
    return str(name)


def _job(
    backbone: Backbone,
    images: AnyImages,
    selection: Selection,
    test: AnyImages | None,
    settings: Adaptation,
    engine: Engine,
) -> Job:
    identity = run_identity(
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
        identity=identity,
    )


def _problems(verdicts: AnyVerdicts) -> tuple[str, ...]:
    """Returns what the scan said of itself that makes its selection doubtful."""
    return tuple(
        f"the scan warned: {finding['figure']}. {finding['message']}"
        for finding in findings(verdicts.run)
        if finding["level"] == "problem"
    )


def _train_and_measure(job: Job, verdicts: AnyVerdicts, notes: tuple[str, ...], started: float) -> Adapted:
    settings, backbone, engine = job.settings, job.backbone, job.engine
    threshold = _start_head(job)
    tuning.prepare(backbone, settings, generator=engine.generator(Purpose.INITIAL_MODULES))
    parameters = list(backbone.model.parameters())
    changed = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    trained = train(job)
    tuning.merge(backbone)
    backbone.model.eval().requires_grad_(False)
    metrics = _metrics(job, trained, threshold)
    record = _record(job, verdicts, trained, notes, parameters=changed, seconds=time.perf_counter() - started)
    return Adapted(backbone=backbone, class_names=job.images.class_names, record=record, metrics=metrics)


def _start_head(job: Job) -> float | None:
    """Sets the head, and computes all features that training on cached ones will ask for.

    Returns:
        The threshold of tags, chosen out of fold; None with one label an image.
    """
    engine, backbone, starts = job.engine, job.backbone, job.settings.head_init == "probe"
    if job.on_features and job.test is not None:
        image_features(job.test, backbone, engine=engine)
    if not (job.on_features or starts or job.kind.has_threshold):
        return None
    features = image_features(job.images, backbone, engine=engine)
    rows = np.intersect1d(job.rows, features.readable)
    if not ((starts or job.kind.has_threshold) and len(rows)):
        return None
    classes = len(job.images.class_names)
    head = job.kind.first_head(features.pooled, job.selection.labels, rows, classes, engine)
    if starts:
        with torch.no_grad():
            backbone.head.weight.copy_(head.weights)
            backbone.head.bias.copy_(head.biases)
    return head.threshold


def _metrics(job: Job, trained: Trained, threshold: float | None) -> dict[str, Any]:
    every, kind = [trained.start, *trained.history], job.kind
    metrics: dict[str, Any] = {
        "saved_epoch": trained.saved_epoch,
        f"validation_{kind.score_name}": every[trained.saved_epoch].get(f"validation_{kind.score_name}"),
        "test": None,
        "test_converted": 0,
    }
    if kind.has_threshold:
        if len(job.held_out):  # which the classifier itself was not trained on
            answers = predict(job, job.images, job.held_out)[job.held_out]
            threshold = kind.threshold(answers, job.selection.labels[job.held_out])
        metrics["threshold"] = threshold
    if job.test is not None:
        predicted, test = predict(job, job.test, np.arange(len(job.test))), f"test_{kind.score_name}"
        reached = [record[test] for record in every]
        metrics |= {
            "test": kind.measure(predicted, kind.targets(job.test), job.images.class_names, threshold),
            f"{test}_start": reached[0],
            f"{test}_last": reached[-1],
            f"{test}_best": max(reached),
            "test_best_epoch": reached.index(max(reached)),
            "note": BEST_IS_NO_RESULT.format(score=kind.score_name),
            **_as_trained(job, predicted),
        }
    return metrics


def _as_trained(job: Job, predicted: NDArray[Any]) -> dict[str, Any]:
    """Returns how many test images training would see with other pixels, and how good it is on the test set if so."""
    test, score = job.test, f"test_{job.kind.score_name}_converted"
    if test is None or not test.as_pipeline:
        return {score: None}
    ours = dataclasses.replace(test, as_pipeline=False)
    rows = converted_rows(ours, np.arange(len(test)))
    predicted = predicted.copy()
    predicted[rows] = predict(job, ours.take(rows), np.arange(len(rows)))
    return {"test_converted": len(rows), score: job.kind.score(predicted, job.kind.targets(test))}


def _record(
    job: Job,
    verdicts: AnyVerdicts,
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
        **job.kind.record,
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
            "name": absolute_name(backbone.name),
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
