"""Two Gaussians that split scores, with one common variance, which keeps their order, or with one each."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.detect.chunks import rows_of_classes

# Scores come of single precision, where values that are equal on paper differ in the seventh digit on some processors
# and not on others. Smaller spans are no difference.
ROUNDING = 1e-6


def upper_posterior(values: Any, *, common_variance: bool = True) -> NDArray[np.float64]:
    """Returns the posterior of the component with the larger mean, (n,), between 0 and 1.

    With equal variances the posterior is a logistic function of the value, so it ranks exactly as the values do; two
    variances of their own, which some papers have, give the most extreme values back to the wider component. Values
    that are all equal, or that two components do not part, are all taken for the upper one.

    Args:
        values: (n,), higher = more likely correct.
        common_variance: Whether both components have the same variance.
    """
    raw = np.asarray(values, dtype=np.float64)
    column = _unit_range(raw)
    if column is None:
        return np.ones_like(raw)
    kind = "tied" if common_variance else "full"
    # sorted, so that the order of the rows changes nothing
    mixture = _fitted(np.sort(column, axis=0), covariance_type=kind, reg_covar=1e-6)
    low, high = np.sort(mixture.means_[:, 0])
    if high - low < 1e-6:
        return np.ones_like(raw)
    return np.asarray(mixture.predict_proba(column)[:, mixture.means_[:, 0].argmax()])


def upper_posterior_by_class(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the posterior of the upper one of two Gaussians, each with its own variance, for each class separately.

    Args:
        values: (n,), higher = more likely correct.
        labels: (n,). The only image of a class is of the upper component.
    """
    posterior = np.ones(len(values), dtype=np.float64)
    for rows in rows_of_classes(labels):
        posterior[rows] = upper_posterior(values[rows], common_variance=False)
    return posterior


def small_mean_posterior(losses: Any) -> NDArray[np.float64]:
    """Returns the posterior of the component with the smaller mean, (N,), between 0 and 1.

    Losses are brought to [0, 1] first; settings of the mixture as in DivideMix (Li et al., ICLR 2020): at most 10
    iterations, tolerance 1e-2, covariance regularised by 5e-4. Losses that are all equal are all clean.

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
    """Returns a `GaussianMixture` of two, fitted to values (n, 1); a fit that is nearly there tells as much."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(n_components=2, random_state=0, **settings).fit(column)


def _unit_range(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Returns values brought to [0, 1], (n, 1), or None where all are equal but for rounding."""
    span = float(np.ptp(values)) if values.size else 0.0
    if values.size < 2 or span <= ROUNDING * max(1.0, float(np.abs(values).max())):
        return None
    return np.asarray((values - values.min()) / span)[:, None]
