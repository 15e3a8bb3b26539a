"""The sampling design of an audit: strata of the images, and one random order in which to review them.

An audit answers two questions at once: how many of the flags are right, and how many wrong labels remain among the
other labels. So the sample is divided between the flagged and the other labels, the two *sides*, and within a side it
is spread evenly over strata of p_clean. The design only depends on the verdicts and a seed:

* each stratum has its own random order, and a fixed rule merges these orders into one;
* so after any number of images, those seen in each stratum are a simple random sample of it, and all images of a side
  have the same inclusion probability.

The population is all readable images, however they become known. An image that was answered before its turn, in a
review or through a copy, stays in the sample without being shown again: skipping it would bias the sample towards
images that were not reviewed. An unreadable image has no label to review, and is never drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.validation import Seed, check_value
from labelsieve.verdicts import Verdicts

# Number of strata per side, and minimum size of a stratum if its side is large enough. Many strata have no cost: the
# sample of a side is spread evenly, and a stratum whose labels are all known has no sampling error.
_STRATA, _MIN_SIZE = 10, 10
# p_clean is clipped to this distance from 0 and 1.
_CLIP = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditDesign:
    """Strata and order of an audit; equal for equal verdicts and seed.

    Attributes:
        stratum: Shape (N,), int64: the stratum of each image, from 0; -1 if it is unreadable.
        sizes: Shape (H,), int64: number of images per stratum, at least 1.
        flagged: Shape (H,), bool: whether the labels of a stratum are flagged. Flagged strata come first, and each
            side goes from the most to the least suspicious.
        order: Shape (R,), int64: the rows of all R readable images, in the order of the audit.
    """

    stratum: NDArray[np.int64]
    sizes: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    order: NDArray[np.int64]

    def prefix(self, known: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns the sample so far, (n,) rows: the order up to the first image that is not known.

        Args:
            known: Shape (N,): images with an answer of any mode.
        """
        unknown = np.flatnonzero(~known[self.order])
        return self.order[: unknown[0]] if len(unknown) else self.order


def design(verdicts: Verdicts, *, seed: int = 0) -> AuditDesign:
    """Plans an audit of verdicts.

    Args:
        verdicts: Verdicts of N images.
        seed: Seed of the order within the strata.

    Raises:
        SettingsError: The seed is out of range.
    """
    check_value("seed", seed, Seed)
    stratum, sizes = strata(verdicts)
    flagged = np.zeros(len(sizes), dtype=np.bool_)
    flagged[stratum[verdicts.is_issue & verdicts.is_readable]] = True
    doubt, weight = _doubt(verdicts), np.zeros(len(sizes))
    of_flags = flagged_share(doubt[verdicts.is_readable], flagged=verdicts.is_issue[verdicts.is_readable])
    for side, share_of_side in ((flagged, of_flags), (~flagged, 1 - of_flags)):
        weight[side] = share_of_side * sizes[side] / max(sizes[side].sum(), 1)
    order = _order(stratum, sizes, weight, np.random.default_rng(seed))
    return AuditDesign(stratum=stratum, sizes=sizes, flagged=flagged, order=order)


def strata(verdicts: Verdicts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits the readable images by flag and, within each side, by p_clean into ten strata of about equal size.

    Returns:
        The stratum of each image, (N,), -1 if it is unreadable, and the sizes of the H strata, (H,). Flagged strata
        come first; a small side has fewer strata.
    """
    stratum, count = np.full(len(verdicts), -1, dtype=np.int64), 0
    for side in (verdicts.is_issue, ~verdicts.is_issue):
        rows = np.flatnonzero(side & verdicts.is_readable)
        strata_of_side = int(np.clip(len(rows) // _MIN_SIZE, min(len(rows), 1), _STRATA))
        rows = rows[np.argsort(verdicts.label_quality[rows], kind="stable")]
        stratum[rows] = count + np.arange(len(rows)) * strata_of_side // max(len(rows), 1)
        count += strata_of_side
    return stratum, np.bincount(stratum[stratum >= 0], minlength=count).astype(np.int64)


def _doubt(verdicts: Verdicts) -> NDArray[np.float64]:
    """Returns the standard deviation of the error of each label according to p_clean, (N,)."""
    clean = np.clip(verdicts.label_quality.astype(np.float64), _CLIP, 1 - _CLIP)
    return np.asarray(np.sqrt(clean * (1 - clean)))


def flagged_share(doubt: NDArray[np.float64], *, flagged: NDArray[np.bool_]) -> float:
    """Returns the share of the sample for the flagged labels, between 0 and 1.

    A third of the sample is proportional to the number of labels, which needs no assumption; a third to the standard
    deviations expected by p_clean (Neyman allocation), which estimates the number of wrong labels best; and a third is
    for the flagged labels, to estimate the precision of the flags.

    Args:
        doubt: Standard deviation of the error of each label, (n,).
        flagged: Which labels are flagged, (n,).

    Example:
        >>> import numpy as np
        >>> round(flagged_share(np.array([0.5, 0.1, 0.1, 0.1]), flagged=np.array([True, False, False, False])), 3)
        0.625
    """
    if flagged.all() or not flagged.any():
        return float(flagged.any())
    return float(np.mean([flagged.mean(), doubt[flagged].sum() / doubt.sum(), 1.0]))


def _order(
    stratum: NDArray[np.int64], sizes: NDArray[np.int64], weight: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Merges random orders of the strata such that each has about its share of every prefix, until it is exhausted.

    The random start of each stratum makes the number of its images in a prefix exact on average.
    """
    rows, positions = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for index, size in enumerate(sizes):
        rows.append(generator.permutation(np.flatnonzero(stratum == index)))
        positions.append((np.arange(size) + generator.random()) / weight[index])
    return np.asarray(np.concatenate(rows)[np.argsort(np.concatenate(positions), kind="stable")])
