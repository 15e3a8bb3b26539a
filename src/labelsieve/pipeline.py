"""The path from images to verdicts: score, decide, diagnose, and save the result with its provenance."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from labelsieve.core.checkpoints import seconds_before
from labelsieve.core.engine import Engine, Precision
from labelsieve.core.errors import SettingsError
from labelsieve.core.progress import Progress
from labelsieve.curation.defects import check_defects
from labelsieve.curation.search import Search, comparison_inputs, find_in_images
from labelsieve.data.features import LabelledFeatures
from labelsieve.data.images import LabelledImages
from labelsieve.data.origin import source_record
from labelsieve.data.test_sets import overlap_note, with_class_names
from labelsieve.detect.base import Detector
from labelsieve.detect.compatibility import check_input
from labelsieve.detect.deft.detector import RECIPES
from labelsieve.detect.inputs import detector_inputs
from labelsieve.detect.registry import DEFAULT, DETECTORS, detector_class
from labelsieve.detect.scores import Scores
from labelsieve.detect.zero_shot import class_text_notes, template_notes
from labelsieve.diagnosis.annotators import annotator_records, annotator_table, consensus_record, consensus_table
from labelsieve.diagnosis.checks import diagnose
from labelsieve.metrics import CLASSIFICATION, measure
from labelsieve.review.earlier_audit import EarlierAudit, earlier_audit, read_audit
from labelsieve.review.earlier_review import EarlierReview, earlier_review_of, read_earlier_review
from labelsieve.review.log import AnswerLog
from labelsieve.run_folder import check_run_folder, open_run, remove_checkpoint, run_record
from labelsieve.verdicts import Verdicts, decide
from labelsieve.vlm.base import VisionLanguageModel
from labelsieve.vlm.names import absolute_name


def scan(
    images: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None = None,
    *,
    detector: Detector | None = None,
    test: LabelledImages | None = None,
    reviewed: str | Path | None = None,
    false_flags: float | None = None,
    against: LabelledImages | LabelledFeatures | None = None,
    image_defects: bool = False,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Verdicts:
    """Finds the wrong labels of a data set.

    Args:
        images: N images with given labels, or features from :func:`labelsieve.load_features`; true labels, where there
            are any, serve the metrics alone.
        vlm: The model, from :func:`labelsieve.load_vlm`; not used with features.
        detector: How to score the labels; the default detector if None.
        test: Images with correct labels, to evaluate the model that the detector has trained, or the zero-shot model if
            it trains nothing: the accuracy of s+. They select nothing, and the verdicts are the same without. Classes
            are matched by name. A detector without a model says so.
        reviewed: Folder of an earlier run whose reviews apply to the same images, matched by content: a label that a
            reviewer found right is not flagged, a wrong one is, and the detector learns from the right ones. They are
            copied to the log of `out`.
        false_flags: Flag labels such that at most this share of the flags is false, above 0 and below 1, on average
            over audits, according to the audit of the run `reviewed`; None: the labels that the detector flags. The
            detector then learns from the labels as they were before the answers.
        against: Images of another split (features for features): copies of them among `images` are findings. The
            verdicts are the same without.
        image_defects: Look for dark, blurred and other defective images with `cleanvision`, an extra. The verdicts are
            the same without.
        seed: All random numbers derive from it.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32` or `bf16`.
        out: A run folder for verdicts and, while running, checkpoints; None writes nothing to disk.
        resume: Resume from the checkpoint in `out`; start from scratch if there is none.
        overwrite: Replace a finished run in `out` when the new one is complete; with `resume` a checkpoint is kept.
        progress: Where to show progress.

    Returns:
        The verdicts, saved if there is an `out`. With test images `record["test"]` has their `accuracy`,
        `balanced_accuracy` and how many were `unreadable`, which do not count. `image_findings` has copies, leaks,
        images of no class and, on request, defects.

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
        >>> verdicts.metrics["auroc"] > 0.9
        True
        >>> first = verdicts.is_issue.nonzero()[0][0]
        >>> verdicts.table["given_label"][first].as_py(), verdicts.table["predicted_label"][first].as_py()
        ('boat', 'bird')
    """
    detector = detector_class(DEFAULT)() if detector is None else detector
    check_input(detector, images, vlm, test=test)
    if test is not None:
        test = with_class_names(test, images.class_names)
        test = test.read_like(images) if isinstance(images, LabelledImages) else test
    if reviewed is not None and images.annotations is not None:
        raise SettingsError(
            "reviews of an earlier run go with one label column, found those of several annotators; leave the reviews "
            "out"
        )
    if image_defects:
        check_defects(images)
    prior_reviews, audit = _earlier_reviews(images, reviewed, false_flags, progress)
    if isinstance(against, LabelledImages) and isinstance(images, LabelledImages):
        against = against.read_like(images)
    with open_run(
        out,
        check=check_run_folder,
        seed=seed,
        device=device,
        precision=precision,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
    ) as (folder, engine):
        verdicts = _scan(
            images,
            vlm,
            detector,
            test,
            against,
            engine,
            prior_reviews=prior_reviews,
            audit=audit,
            defects=image_defects,
            out=out,
        )
        if folder is not None and engine.accelerator.is_main_process:
            if prior_reviews is not None:
                AnswerLog(folder).append_all(prior_reviews.answers)  # so that their images are not asked again
            verdicts.save(folder)
            remove_checkpoint(folder)
    return verdicts


def _earlier_reviews(
    images: LabelledImages | LabelledFeatures,
    reviewed: str | Path | None,
    false_flags: float | None,
    progress: Progress | None,
) -> tuple[EarlierReview | None, EarlierAudit | None]:
    """Returns the reviews of an earlier run, and its audit if `false_flags` needs one."""
    if reviewed is None:
        if false_flags is not None:
            raise SettingsError(
                "expected reviewed with false_flags, the folder of an audited run; add it or leave both out"
            )
        return None, None
    if false_flags is None:
        return read_earlier_review(reviewed, images, progress=progress), None
    verdicts, reviews = read_audit(reviewed, false_flags=false_flags, progress=progress)
    prior_reviews = earlier_review_of(reviews, images, run_folder=Path(reviewed))
    return prior_reviews, earlier_audit(prior_reviews, images, verdicts, reviews, false_flags=false_flags)


def _scan(
    images: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None,
    detector: Detector,
    test: LabelledImages | None,
    against: LabelledImages | LabelledFeatures | None,
    engine: Engine,
    *,
    prior_reviews: EarlierReview | None,
    audit: EarlierAudit | None,
    defects: bool,
    out: str | Path | None,
) -> Verdicts:
    started = time.perf_counter() - seconds_before(engine)  # includes the time before a resumed checkpoint
    labels = prior_reviews if audit is None else audit
    training_images = images if labels is None else images.with_labels(labels.labels)
    inputs = detector_inputs(training_images, vlm, engine=engine, test=test)
    if prior_reviews is not None and audit is None:
        inputs = dataclasses.replace(inputs, unreviewed_labels=prior_reviews.unreviewed_labels)
    comparison = None if against is None else (against, comparison_inputs(against, inputs))
    scores = detector.score(inputs)
    scores = scores if audit is None else audit.flag(scores)
    scores = scores if prior_reviews is None else prior_reviews.on(scores, images.labels)
    scores = dataclasses.replace(scores, notes=_notes(images, vlm, detector, scores, test))
    engine.progress.say_notes(scores.notes)
    seconds = time.perf_counter() - started
    verdicts = decide(images, scores)
    record = {
        **_record(images, vlm, detector, engine, scores, seconds=seconds),
        "findings": diagnose(images, scores, verdicts),
        "test": None if test is None else _test_record(test, scores),
        "reviewed": None if prior_reviews is None else prior_reviews.to_record(),
        "against": None if against is None else source_record(against),
        "image_defects": defects,
        "annotators": None,
        "consensus": None,
        "out": None if out is None else str(out),
    }
    search = Search(data=images, inputs=inputs, flagged=verdicts.is_issue, against=comparison, defects=defects)
    verdicts = dataclasses.replace(verdicts, record=record, image_findings=find_in_images(search))
    if images.annotations is None or scores.crowd is None:
        return verdicts
    records = annotator_records(images, images.annotations, scores.crowd)
    record |= {"annotators": records, "consensus": consensus_record(images, scores.crowd)}
    table = consensus_table(images, images.annotations, scores.crowd)
    return dataclasses.replace(verdicts, record=record, annotators=annotator_table(records), consensus=table)


def _notes(
    images: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None,
    detector: Detector,
    scores: Scores,
    test: LabelledImages | None,
) -> tuple[str, ...]:
    """Returns the notes on class names, those of the detector, and one on test images among the images."""
    notes = (*scores.notes, *(() if test is None else overlap_note(test, images.contents)))
    if vlm is None or isinstance(images, LabelledFeatures):
        return notes
    # detectors that train prompts report names that are too long themselves
    templates = () if "images" in detector.requires else template_notes(vlm, images.class_names)
    return (*class_text_notes(vlm, images.class_names), *templates, *notes)


def _record(
    images: LabelledImages | LabelledFeatures,
    vlm: VisionLanguageModel | None,
    detector: Detector,
    engine: Engine,
    scores: Scores,
    *,
    seconds: float,
) -> dict[str, Any]:
    recipe = next((name for name, settings in RECIPES.items() if settings == detector), None)
    record = run_record(images, engine, detector, name=DETECTORS.label_of(detector), recipe=recipe, seconds=seconds)
    record["detector"]["resolved"] = dict(scores.resolved)
    return {
        **record,
        "model": _model_record(images, vlm),
        **scores.rule.to_record(),
        "zero_shot_agreement": scores.zero_shot_agreement,
        "zero_shot_balanced_agreement": scores.balanced_agreement,
        "estimate": _estimate_record(scores),
        "history": list(scores.history),
        "notes": [*images.notes, *scores.notes],
    }


def _estimate_record(scores: Scores) -> dict[str, dict[str, float] | None] | None:
    """Returns the estimated wrong labels, share of right flags and missed labels, each with its interval."""
    if scores.estimate is None:
        return None
    return {name: each and each._asdict() for name, each in scores.estimate._asdict().items()}


def _test_record(test: LabelledImages, scores: Scores) -> dict[str, Any]:
    """Returns the description of the test images and the metrics on them."""
    if scores.test_predicted is None:
        raise SettingsError("the detector was given test images and predicted none; leave them out")
    metrics = measure(scores.test_predicted, test.labels, test.class_names)
    return {**source_record(test), **{name: metrics[name] for name in ("unreadable", *CLASSIFICATION)}}


def _model_record(images: LabelledImages | LabelledFeatures, vlm: VisionLanguageModel | None) -> dict[str, Any]:
    if isinstance(images, LabelledFeatures):
        return {"name": None, "fingerprint": images.text_fingerprint}
    return {} if vlm is None else {"name": absolute_name(vlm.name), "fingerprint": vlm.fingerprint}
