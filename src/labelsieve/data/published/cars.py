"""Stanford Cars, whose lists are MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, first_line
from labelsieve.data.published.layout import AGAIN, Labels, PublishedSplit, home_of, indices, readable

_META, _TRAIN, _TEST = "devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"


def read_cars(path: Path, split: str) -> PublishedSplit:
    """Reads Stanford Cars: 196 classes of make, model and year. Its labels start at 1."""
    inside = ["stanford_cars"]
    file = _TRAIN if split == "train" else _TEST
    # the labels of the test set were published after the devkit, so that their file may be in it or beside it
    if split == "test" and any((path / folder / "devkit" / _TEST).is_file() for folder in (".", *inside)):
        file = f"devkit/{_TEST}"
    home = home_of(path, title="Stanford Cars", files=[_META, file, f"cars_{split}/"], inside=inside)
    names = tuple(map(readable, _texts(_variable(home / _META, "class_names"), where=home / _META)))
    annotations = _variable(home / file, "annotations")
    missing = [name for name in ("class", "fname") if name not in (annotations.dtype.names or ())]
    if missing:
        raise DataError(f"expected annotations with class and fname in {home / file}, found no {missing[0]}; {AGAIN}")
    values = indices(annotations["class"].tolist(), names=names, where=home / file, first=1)
    images = [f"cars_{split}/{name}" for name in _texts(annotations["fname"], where=home / file)]
    return PublishedSplit(folder=home, images=images, labels={"label": Labels(values=values, names=names)})


def _variable(path: Path, name: str) -> NDArray[Any]:
    """Reads one variable, shape (N,), without loading the others."""
    from scipy.io import loadmat

    try:
        variables = loadmat(str(path), appendmat=False, variable_names=[name], squeeze_me=True)
    except Exception as error:  # the parser raises errors of many types on broken files
        reason = first_line(error)
        raise DataError(f"expected a file of MATLAB in {path}, which cannot be read: {reason}; {AGAIN}") from None
    if name not in variables:
        raise DataError(f'expected a variable "{name}" in {path}, found none; {AGAIN}')
    return np.asarray(variables[name]).reshape(-1)


def _texts(values: NDArray[Any], *, where: Path) -> list[str]:
    texts: list[Any] = values.tolist()
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise DataError(f"expected texts in {where}, found {type(wrong).__name__}; {AGAIN}")
    return texts
