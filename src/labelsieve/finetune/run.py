"""Phase 2: select, train, evaluate, and save the result with its provenance."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelsieve.core.checkpoints import run_identity, seconds_before
from labelsieve.core.engine import Engine, Precision
from labelsieve.core.errors import RunError, SettingsError, setting, shown
from labelsieve.core.files import read_json
from labelsieve.core.memory import move
from labelsieve.core.output_folders import check_no_mount, unknown_files
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.core.seeds import Purpose
from labelsieve.data.origin import source_record
from labelsieve.data.test_sets import overlap_note
from labelsieve.diagnosis.checks import CONFLICTING_COPIES
from labelsieve.finetune import tuning
from labelsieve.finetune.backbones import Backbone, load_backbone
from labelsieve.finetune.evaluation import predict
from labelsieve.finetune.job import Job, draw_validation_rows
from labelsieve.finetune.loop import Trained, train
from labelsieve.finetune.result import ADAPT_RECORD, Adapted
from labelsieve.finetune.rgb_conversion import converted_rows
from labelsieve.finetune.selection import Selection
from labelsieve.finetune.settings import RECIPES, Adaptation, check_saves
from labelsieve.finetune.target_kinds import AnyImages, AnyVerdicts, kind_of
from labelsieve.review.row_reviews import ReviewFiles
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
    """Trains a standard image classifier on the images whose labels a scan considers right.

    It starts from the pre-trained weights, not from those that the scan trained.

    Args:
        images: N images with given labels, or with tags: the scanned ones.
        verdicts: From :func:`labelsieve.scan` or :meth:`labelsieve.Verdicts.load`; for tags from
            :func:`labelsieve.scan_tags` or :meth:`labelsieve.TagVerdicts.load`.
        backbone: Hub id or folder of any model that `AutoModelForImageClassification` loads, or a name that
            :func:`labelsieve.load_vlm` takes; by default the model of the scan.
        settings: How to train; `Adaptation()` if None, with tags `Adaptation(labels="relabel")`. Visual prompts and
            adapters cannot be saved to `out`.
        marks: Reviews by people, which override the verdicts: run folders with a log of answers, and CSV files of
            marks, downloaded from the report; one or several, see
            :func:`labelsieve.review.row_reviews.read_reviews`, and with tags :func:`labelsieve.tags.marks.with_marks`.
        test: Images with correct labels, or tags, to evaluate the classifier with the preprocessing of
            `pipeline("image-classification")`. They select nothing.
        seed: All random numbers derive from it.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32` or `bf16`.
        out: A folder for the model and, while running, checkpoints; None writes nothing to disk.
        resume: Resume from the checkpoint in `out`; start from scratch if there is none.
        overwrite: Replace a model in `out` when the new one is complete; with `resume` a checkpoint is kept.
        progress: Receives progress.

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
    with open_run(
        out,
        check=check_model_folder,
        seed=seed,
        device=device,
        precision=precision,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    ) as (folder, engine):
        selection = kind.choose(images, verdicts, settings, marks, progress)
        test_images = None if test is None else _as_pipeline(kind.match_classes(test, verdicts.class_names), images)
        started = time.perf_counter() - seconds_before(engine)  # includes the time before a resumed checkpoint
        name = _backbone_name(backbone, verdicts)
        loaded = load_backbone(name, verdicts.class_names, problem_type=kind.problem_type)
        move(loaded.model, engine.device)
        job = _job(loaded, images, selection, test_images, settings, engine)
        overlap = () if test_images is None else overlap_note(test_images, images.contents[selection.rows])
        notes = (*_problems(verdicts, images, selection), *selection.notes, *overlap)
        engine.progress.say_notes(notes)
        adapted = _train_and_measure(job, verdicts, notes, started)
        if folder is not None and engine.accelerator.is_main_process:
            adapted.save(folder)
    return adapted


def check_model_folder(out: str | Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Checks that a model may be written to a folder, before anything expensive starts.

    Args:
        out: The folder; it is created if it does not exist.
        overwrite: See :func:`adapt`.
        resume: See :func:`adapt`.

    Raises:
        RunError: The folder contains other files than a model of labelsieve, there is nothing to resume, or it cannot
            be created.
    """
    folder = Path(out)
    check_no_mount(folder)
    if os.path.isdir(folder):  # it is replaced as a whole, so it must not have other files
        unknown = unknown_files(folder, {CHECKPOINT_FOLDER, *_recorded_files(folder)})
        if unknown:
            raise RunError(
                f"{folder} holds other files, such as {shown(unknown[0])}; choose another folder for the model"
            )
    return check_run_folder(folder, overwrite=overwrite, resume=resume, record=ADAPT_RECORD, what="model", files=())


def _recorded_files(folder: Path) -> list[str]:
    """Returns the names of the files that an adaptation wrote to a folder; empty if there was none."""
    try:
        names = read_json(folder / ADAPT_RECORD).get("files")
    except RunError:
        return []
    return [ADAPT_RECORD, *map(str, names)] if isinstance(names, list) else []


def _as_pipeline(test: AnyImages, images: AnyImages) -> AnyImages:
    """Returns test images with the conversion of the pipeline, if it makes a difference."""
    test = test.read_like(images)
    return test.seen_by_pipeline() if len(converted_rows(test, np.arange(len(test)))) else test


def _backbone_name(backbone: str | Path | None, verdicts: AnyVerdicts) -> str:
    name = verdicts.run.model.name if backbone is None else backbone
    if not name:
        raise SettingsError(
            f"the verdicts do not say which model they were made with; name a backbone ({setting('backbone')})"
        )
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
        held_out=draw_validation_rows(selection, settings.validation, engine=engine),
        test=test,
        settings=settings,
        engine=engine,
        identity=identity,
    )


def _problems(verdicts: AnyVerdicts, images: AnyImages, selection: Selection) -> tuple[str, ...]:
    """Returns the problems of the scan that make its selection doubtful, without those that the selection solved."""
    return tuple(
        f"the scan warned: {finding.figure or ''}. {finding.message or ''}"
        for finding in verdicts.run.findings
        if finding.level == "problem" and not (finding.code == CONFLICTING_COPIES and _copies_agree(images, selection))
    )


def _copies_agree(images: AnyImages, selection: Selection) -> bool:
    """Returns whether all copies of an image that are trained on have the same label, for instance after a review."""
    contents, labels = images.contents[selection.rows], selection.labels[selection.rows]
    _, first, group = np.unique(contents, return_index=True, return_inverse=True)
    return bool((labels == labels[first[group]]).all())


def _train_and_measure(job: Job, verdicts: AnyVerdicts, notes: tuple[str, ...], started: float) -> Adapted:
    settings, backbone, engine = job.settings, job.backbone, job.engine
    threshold = _initialise_head(job)
    tuning.prepare(backbone, settings, generator=engine.generator(Purpose.INITIAL_MODULES))
    parameters = list(backbone.model.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    trained = train(job)
    tuning.merge(backbone)
    backbone.model.eval().requires_grad_(False)
    metrics = _metrics(job, trained, threshold)
    record = _record(job, verdicts, trained, notes, parameters=trainable, seconds=time.perf_counter() - started)
    return Adapted(backbone=backbone, class_names=job.images.class_names, record=record, metrics=metrics)


def _initialise_head(job: Job) -> float | None:
    """Sets the initial head, and computes the features that training on cached features needs.

    Returns:
        The threshold of tags, chosen out of fold; None for single labels.
    """
    engine, backbone, sets_head = job.engine, job.backbone, job.settings.head_init == "probe"
    if job.uses_cached_features and job.test is not None:
        image_features(job.test, backbone, engine=engine)
    if not (job.uses_cached_features or sets_head or job.kind.has_threshold):
        return None
    features = image_features(job.images, backbone, engine=engine)
    rows = np.intersect1d(job.rows, features.readable)
    if not ((sets_head or job.kind.has_threshold) and len(rows)):
        return None
    classes = len(job.images.class_names)
    head = job.kind.initial_head(features.pooled, job.selection.labels, rows, classes, engine)
    if sets_head:
        with torch.no_grad():
            backbone.head.weight.copy_(head.weights)
            backbone.head.bias.copy_(head.biases)
    return head.threshold


def _metrics(job: Job, trained: Trained, threshold: float | None) -> dict[str, Any]:
    evaluations, kind = [trained.start, *trained.history], job.kind
    metrics: dict[str, Any] = {
        "saved_epoch": trained.saved_epoch,
        f"validation_{kind.score_name}": evaluations[trained.saved_epoch].get(f"validation_{kind.score_name}"),
        "test": None,
        "test_converted": 0,
    }
    if kind.has_threshold:
        if len(job.held_out):  # images that the classifier was not trained on
            answers = predict(job, job.images, job.held_out)[job.held_out]
            threshold = kind.threshold(answers, job.selection.labels[job.held_out])
        metrics["threshold"] = threshold
    if job.test is not None:
        predicted, test = predict(job, job.test, np.arange(len(job.test))), f"test_{kind.score_name}"
        values = [record[test] for record in evaluations]
        metrics |= {
            "test": kind.measure(predicted, kind.targets(job.test), job.images.class_names, threshold),
            f"{test}_start": values[0],
            f"{test}_last": values[-1],
            f"{test}_best": max(values),
            "test_best_epoch": values.index(max(values)),
            "note": BEST_IS_NO_RESULT.format(score=kind.score_name),
            **_with_training_conversion(job, predicted),
        }
    return metrics


def _with_training_conversion(job: Job, predicted: NDArray[Any]) -> dict[str, Any]:
    """Returns the number of test images that training converts differently, and the score with its conversion."""
    test, score = job.test, f"test_{job.kind.score_name}_converted"
    if test is None or not test.as_pipeline:
        return {score: None}
    converted = dataclasses.replace(test, as_pipeline=False)
    rows = converted_rows(converted, np.arange(len(test)))
    predicted = predicted.copy()
    predicted[rows] = predict(job, converted.take(rows), np.arange(len(rows)))
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
    engine, backbone, run = job.engine, job.backbone, verdicts.run
    source = str(run.source or job.images.origin.get("source", "data in memory"))
    return {
        **engine.circumstances(seconds=seconds),
        **job.kind.record,
        "data": {
            "source": source,
            "images": len(job.images),
            "classes": len(job.images.class_names),
            "fingerprint": job.images.fingerprint,
        },
        "verdicts": {
            "detector": run.detector.name,
            "detector_settings": run.detector.settings,
            "model": run.model.name,
            "created": run.created,
        },
        "selection": {**job.selection.counts, "trained_on": len(job.rows), "held_out": len(job.held_out)},
        "test": None if job.test is None else source_record(job.test),
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
        "recipe": next((name for name, recipe in RECIPES.items() if recipe == job.settings), None),
        "saved_epoch": trained.saved_epoch,
        "history": trained.history,
        "notes": list(notes),
        "class_names": list(job.images.class_names),
    }
