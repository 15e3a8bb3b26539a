"""Mixtures of two Gaussians that split scores, with a common variance, which preserves their order, or one each."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.detect.chunks import rows_of_classes

# Relative range below which values count as equal: in single precision, values that are equal in theory may differ in
# the seventh digit, depending on the processor.
ROUNDING = 1e-6


def upper_posterior(values: Any, *, common_variance: bool = True) -> NDArray[np.float64]:
    """Returns the posterior of the component with the larger mean, (n,), between 0 and 1.

    With equal variances the posterior is a logistic function of the value, so it ranks exactly as the values do. With
    separate variances, as in some papers, the most extreme values of both sides belong to the wider component. If all
    values are equal, or the two means coincide, the posterior is 1 for all.

    Args:
        values: (n,), higher = more likely correct.
        common_variance: Whether both components have the same variance.
    """
    raw = np.asarray(values, dtype=np.float64)
    column = _unit_range(raw)
    if column is None:
        return np.ones_like(raw)
    kind = "tied" if common_variance else "full"
    # sorted, so that the result does not depend on the order of the rows
    mixture = _fitted(np.sort(column, axis=0), covariance_type=kind, reg_covar=1e-6)
    low, high = np.sort(mixture.means_[:, 0])
    if high - low < 1e-6:
        return np.ones_like(raw)
    return np.asarray(mixture.predict_proba(column)[:, mixture.means_[:, 0].argmax()])


def upper_posterior_by_class(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the posterior of the upper of two Gaussians with separate variances, fitted within each class.

    Args:
        values: (n,), higher = more likely correct.
        labels: (n,). The only image of a class gets a posterior of 1.
    """
    posterior = np.ones(len(values), dtype=np.float64)
    for rows in rows_of_classes(labels):
        posterior[rows] = upper_posterior(values[rows], common_variance=False)
    return posterior


def small_mean_posterior(losses: Any) -> NDArray[np.float64]:
    """Returns the posterior of the component with the smaller mean, (N,), between 0 and 1.

    Losses are scaled to [0, 1] first. The mixture has the settings of DivideMix (Li et al., ICLR 2020): at most 10
    iterations, tolerance 1e-2, covariance regularised by 5e-4. If all losses are equal, all are clean.

    Args:
        losses: (N,), not negative.
    """
    values = np.asarray(losses, dtype=np.float64)
    column = _unit_range(values)
    if column is None:
        return np.ones_like(values)
    mixture = _fitted(column, max_iter=10, tol=1e-2, reg_covar=5e-4)
    return np.asarray(mixture.predict_proba(column)[:, mixture.means_[:, 0].argmin()])


def _fitted(column: NDArray[np.float64], **settings: Any) -> Any:
    """Returns a `GaussianMixture` of two components fitted to values (n, 1), without warnings about convergence."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(n_components=2, random_state=0, **settings).fit(column)


def _unit_range(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Returns values scaled to [0, 1], (n, 1), or None if all are equal up to rounding."""
    span = float(np.ptp(values)) if values.size else 0.0
    if values.size < 2 or span <= ROUNDING * max(1.0, float(np.abs(values).max())):
        return None
    return np.asarray((values - values.min()) / span)[:, None]
