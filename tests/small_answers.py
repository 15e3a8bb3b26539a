"""Runs without a model, and answers of reviewers on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelsieve.data.images import LabelledImages
from labelsieve.data.labelled import Labelled
from labelsieve.data.sources import load_images
from labelsieve.detect.scores import Scores
from labelsieve.review import Answer, AnswerLog, key_of
from labelsieve.verdicts import decide


def run_of(out: Path, source: object, **options: Any) -> LabelledImages:
    """Saves a run of a source in which the second half of the images is flagged, and returns the images."""
    images = load_images(str(source), **options)
    quality = np.linspace(0.9, 0.1, len(images)).astype(np.float32)
    predicted = (images.labels + (quality <= 0.5)) % len(images.class_names)
    scores = Scores(label_quality=quality, predicted=predicted, confidence=quality)
    record = {
        "data": {"fingerprint": images.fingerprint},
        "origin": dict(images.origin),
        **scores.rule.to_record(),
        "out": str(out),
    }
    decide(images, scores, record=record).save(out)
    return images


def answer(
    run: Path, images: Labelled, said: Mapping[str, Sequence[str]], *, reviewer: str = "ann", **more: Any
) -> None:
    """Appends answers on images by their ids: a class, several classes, or a kind in angle brackets."""
    log = AnswerLog(run)
    for name, what in said.items():
        row = images.ids.index(name)
        labels = (str(what),) if isinstance(what, str) else tuple(what)
        labels = () if str(what).startswith("<") else labels
        kind = "several" if len(labels) > 1 else "label" if labels else str(what).strip("<>")
        log.append(
            Answer(
                token=f"{reviewer} {len(log.answers())}",
                key=key_of(images.contents[row]),
                given_label=images.class_names[images.labels[row]],
                kind=kind,
                labels=labels,
                reviewer=reviewer,
                time="2026-11-28T10:00:00+00:00",
                **{"id": name, "mode": "review", "seconds": 2.0, **more},
            )
        )


def labels_of(source: object, **options: Any) -> dict[str, str]:
    """Returns the label of each image of a source by its id."""
    images = load_images(str(source), **options)
    return {name: images.class_names[label] for name, label in zip(images.ids, images.labels, strict=True)}
