"""Features as the data of cells: from a file with columns of labels, or from images and a model.

Each has a text regime, which selects the class text features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from labelsieve.bench.config import NO_TEXT, Data, Noise
from labelsieve.core.engine import Engine
from labelsieve.core.errors import DataError, SettingsError, did_you_mean, listed, look_up
from labelsieve.core.files import expand_home
from labelsieve.data.features import LabelledFeatures, load_features
from labelsieve.data.images import LabelledImages
from labelsieve.data.noise_kinds import kinds_for_features
from labelsieve.data.sources.feature_files import read_text_file, stored_names
from labelsieve.data.test_sets import with_class_names
from labelsieve.detect.inputs import detector_inputs
from labelsieve.vlm.base import VisionLanguageModel

TEXT_ENCODER = "text"
IMAGE_CLASS_MEANS = "text_of_images"
"""The text regimes of images: the text encoder of the model, and class means of test images."""
_TRUTH = "truth"
_IMAGE_ONLY_SETTINGS = ("image_column", "split", "test", "test_split", "test_label_column", "test_limit")


def load_rows(data: Data, noise: Noise, *, seed: int, texts: Sequence[str]) -> LabelledFeatures:
    """Loads a file of features with the labels that a noise starts from, and the truth.

    Args:
        data: Its source is the file.
        noise: With kind `column`, the labels are those of its column; with kind `given`, the given ones; else the true
            ones if they are known.
        seed: Seed of the cell, which selects columns and the subset.
        texts: The text regimes; if empty, the text features of the file are loaded.

    Raises:
        DataError: A column or an array is missing or has another length or width, or the truth is unknown.
        SettingsError: A setting of data or noise is for images only.
    """
    _check(data, noise)
    path = expand_home(data.source)
    names = stored_names(path)
    truth = data.truth_column or (_TRUTH if _TRUTH in names else None)
    if truth is None and not noise.injects_noise:
        raise DataError(
            f"expected the true labels in {path}, to measure against, found {listed(names, quoted=True) or 'none'}; "
            'add them as "truth" or name them: truth_column = "..."'
        )
    text_name = next((text for text in texts if text != NO_TEXT), None)
    return load_features(
        path,
        label_column=_label_column(data, noise, seed, names, truth=truth),
        truth_column=truth,
        class_names=data.class_names,
        text=None if text_name is None else _text(path, text_name, names),
        limit=data.limit,
        seed=seed,
    )


def _check(data: Data, noise: Noise) -> None:
    for name in _IMAGE_ONLY_SETTINGS:
        if getattr(data, name) is not None:
            raise SettingsError(f"{name} goes with images, and {data.source} holds features; leave it out")
    if noise.kind == "file" or (noise.injects_noise and noise.kind not in kinds_for_features()):
        raise SettingsError(
            f"noise of kind {noise.kind} goes with images, and {data.source} holds features; use "
            f'{", ".join(kinds_for_features())}, or a column of the file: kind = "column"'
        )


def _label_column(data: Data, noise: Noise, seed: int, names: Sequence[str], *, truth: str | None) -> str | None:
    column = noise.column_of(seed)
    if column is None:
        return data.label_column if noise.kind == "given" else truth or data.label_column
    if column not in names:
        raise DataError(
            f'expected a column "{column}" in {data.source}, found {listed(names, quoted=True) or "none"}'
            f'{did_you_mean(column, names)}; name another, or say which data sets have this noise: data = ["..."]'
        )
    return column


def _text(path: Path, name: str, names: Sequence[str]) -> NDArray[Any]:
    """Reads an array of class text features."""
    if path.suffix.lower() != ".npz":
        raise DataError(f'text "{name}" is an array of a .npz file, which {path} is not; use text = ["{NO_TEXT}"]')
    if name not in names:
        raise DataError(
            f'expected an array "{name}" of class text features in {path}, found {listed(names, quoted=True)}'
            f'{did_you_mean(name, names)}; name another in text, or "{NO_TEXT}"'
        )
    return read_text_file(path, name=name)


def features_of_file(rows: LabelledFeatures, data: Data, texts: Sequence[str]) -> dict[str, LabelledFeatures]:
    """Returns the rows of a file in each text regime; without regimes, with the text features of the file.

    Args:
        rows: From :func:`load_rows`, with or without injected noise.
        data: Its source is the file.
        texts: The text regimes: names of arrays in the file, or `NO_TEXT`. Without any, the only key is "".

    Raises:
        DataError: The file has no such array, or it does not match the features.
    """
    if not texts:
        return {"": rows}
    path = expand_home(data.source)
    names, features_by_text = stored_names(path), dict[str, LabelledFeatures]()
    for text in texts:
        values = None if text == NO_TEXT else _text(path, text, names)
        try:
            features_by_text[text] = rows.with_text(values, logit_scale=None if values is None else rows.logit_scale)
        except DataError as error:
            raise DataError(f'"{text}" of {path}: {error}') from error
    return features_by_text


def features_of_images(
    images: LabelledImages,
    vlm: VisionLanguageModel,
    texts: Sequence[str],
    *,
    test: LabelledImages | None,
    engine: Engine,
) -> dict[str, LabelledFeatures]:
    """Returns the features of images in each text regime. Unreadable images are left out.

    Args:
        images: N images with noise.
        vlm: The model.
        texts: The text regimes.
        test: Test images of the same classes, for the class means.
        engine: Device and progress.

    Raises:
        SettingsError: A regime is unknown, or needs test images.
        DataError: A class has no test image.
    """
    check_texts(texts, has_test=test is not None)
    rows, text = _features(images, vlm, engine=engine)
    text_features: dict[str, NDArray[np.float32] | None] = {NO_TEXT: None, TEXT_ENCODER: text}
    if test is not None and IMAGE_CLASS_MEANS in texts:
        text_features[IMAGE_CLASS_MEANS] = _class_means(
            _features(with_class_names(test, images.class_names), vlm, engine=engine)[0]
        )
    scale = float(vlm.logit_scale)
    return {
        each: rows.with_text(text_features[each], logit_scale=None if text_features[each] is None else scale)
        for each in texts
    }


def check_texts(texts: Sequence[str], *, has_test: bool) -> None:
    """Checks the text regimes of images.

    Raises:
        SettingsError: A regime is unknown, or needs test images.
    """
    for text in texts:
        look_up(dict.fromkeys((TEXT_ENCODER, IMAGE_CLASS_MEANS, NO_TEXT)), text, what="text of images")
    if IMAGE_CLASS_MEANS in texts and not has_test:
        raise SettingsError(f"{IMAGE_CLASS_MEANS} are class means of test images, found none; name them: test = ...")


def _features(
    images: LabelledImages, vlm: VisionLanguageModel, *, engine: Engine
) -> tuple[LabelledFeatures, NDArray[np.float32]]:
    """Returns the features of the readable images in the joint space, and the text features of the classes."""
    inputs = detector_inputs(images, vlm, engine=engine)
    readable = images.take(inputs.rows)
    rows = LabelledFeatures(
        features=_array(inputs.all_joint()),
        ids=readable.ids,
        labels=readable.labels,
        class_names=readable.class_names,
        contents=readable.contents,
        truth=readable.truth,
        notes=readable.notes,
    )
    return rows, _array(inputs.texts)


def _array(values: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)


def _class_means(test: LabelledFeatures) -> NDArray[np.float32]:
    """Returns the normalised mean features of each class, (K, D)."""
    counts = np.bincount(test.labels, minlength=len(test.class_names))
    if not counts.all():
        name = test.class_names[int(counts.argmin())]
        raise DataError(f'{IMAGE_CLASS_MEANS} are class means of test images, and "{name}" has none; take more')
    means = np.zeros((len(counts), test.features.shape[1]), dtype=np.float64)
    np.add.at(means, test.labels, test.features)
    return _array(normalize(torch.from_numpy(means / counts[:, None]), dim=-1))
