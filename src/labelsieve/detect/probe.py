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
    """Returns out-of-fold class probabilities, (n, K), of the readable rows.

    Features are standardised by the mean and standard deviation of the training folds. A class without rows in the
    training folds gets probability 0.

    Args:
        inputs: Features and labels.
        folds: F, at least 2; the folds are stratified by class.
        strength: Inverse of the L2 regularisation strength.
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
    """Returns the classes of a fitted probe, and their probabilities for the queries."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(labels)
    if len(classes) < 2:  # no classes at all if there is a single row
        return classes, np.ones((len(queries), len(classes)))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a nearly converged probe is good enough
        warnings.filterwarnings("ignore", "The number of unique classes")  # class ids are not regression targets
        probe.fit(features, labels)
    return probe.classes_, probe.predict_proba(queries)
