"""Out-of-fold class probabilities of a linear probe on features."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.seeds import Purpose
from labelsieve.detect.folds import stratified_folds
from labelsieve.detect.inputs import DetectorInputs

MAX_ITERATIONS = 200


def out_of_fold_probabilities(inputs: DetectorInputs, *, folds: int, strength: float) -> NDArray[np.float64]:
    """Returns class probabilities (n, K) of the readable rows, each from a fit that has not seen the row.

    Features are standardised by the mean and deviation of the rows that are fitted. A class that has no rows among
    them gets probability 0.

    Args:
        inputs: Features and labels.
        folds: F, at least 2; stratified by class.
        strength: Inverse of the L2 regularisation.
    """
    features, labels = inputs.features.pooled[inputs.rows], inputs.given
    fold_ids = stratified_folds(labels, folds=folds, generator=inputs.engine.generator(Purpose.PROBE_FOLDS))
    probability = np.zeros((len(labels), inputs.classes))
    with inputs.progress.task("fitting a probe", total=folds, unit="folds") as advance:
        for fold in range(folds):
            held_out = fold_ids == fold
            if held_out.any():
                classes, predicted = _fit(features[~held_out], labels[~held_out], features[held_out], strength)
                probability[np.ix_(held_out, classes)] = predicted
            advance(1)
    return probability


def _fit(
    features: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.float32], strength: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the classes that a probe knows, and their probabilities for the rows asked about."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(labels)
    if len(classes) < 2:  # nothing to tell apart; none at all if there is a single row
        return classes, np.ones((len(queries), len(classes)))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is nearly there tells as much
        warnings.filterwarnings("ignore", "The number of unique classes")  # class numbers are no regression targets
        probe.fit(features, labels)
    return probe.classes_, probe.predict_proba(queries)
