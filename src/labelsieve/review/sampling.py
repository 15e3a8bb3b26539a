"""The design of an audit: strata of the images, and one random order in which to look at them.

An audit answers two questions at once: how many of the flags are right, and how many wrong labels are left among the
others. So the looks are shared between the flagged and the other labels, the two *sides*, and within a side they are
spread evenly over strata of p_clean. All of it depends on the verdicts and a seed alone:

* each stratum has a random order of its own, and a fixed rule merges these orders into one;
* so after any number of looks, the images seen of each stratum are a simple random sample of it, and each image of a
  side was as likely to be seen as any other.

The population is all readable images, however they become known. An image that was answered before its turn, in a
review or by a copy of it, takes its place in the sample without another look: skipping it would bias the sample towards
what the review left over. An unreadable image has no label that could be seen right or wrong, and is never drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelsieve.validation import Seed, check_value
from labelsieve.verdicts import Verdicts

# Strata of each side, and images that a stratum has at least, if its side has as many. Many strata cost nothing, as the
# looks within a side are spread evenly; and one that is known as a whole is no matter of chance any more.
_PARTS, _LEAST = 10, 10
# p_clean is not trusted to be nearer to 0 or 1 than this.
_SUREST = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditDesign:
    """What is drawn from, and in which order; equal for equal verdicts and seed.

    Attributes:
        stratum: Shape (N,), int64: the stratum of each image, from 0; -1 where it could not be read.
        sizes: Shape (H,), int64: images of each stratum, at least 1.
        flagged: Shape (H,), bool: whether the labels of a stratum are flagged. Flagged strata come first, and each
            side goes from the most to the least suspicious.
        order: Shape (R,), int64: the rows of all R readable images, in the order of the audit.
    """

    stratum: NDArray[np.int64]
    sizes: NDArray[np.int64]
    flagged: NDArray[np.bool_]
    order: NDArray[np.int64]

    def draw(self, *, known: NDArray[np.bool_] | None = None, count: int | None = None) -> NDArray[np.int64]:
        """Returns the rows to look at next, (n,), those first that come first in the order.

        Args:
            known: Shape (N,): images that need no look, as they have an answer. None: there are none.
            count: How many at most; None for all.
        """
        rest = self.order if known is None else self.order[~known[self.order]]
        return rest if count is None else rest[: max(count, 0)]

    def prefix(self, known: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns the sample that has been seen, (n,) rows: the order up to the first image that is not known.

        Args:
            known: Shape (N,): images that have an answer, of whatever mode.
        """
        unknown = np.flatnonzero(~known[self.order])
        return self.order[: unknown[0]] if len(unknown) else self.order


def design(verdicts: Verdicts, *, seed: int = 0) -> AuditDesign:
    """Plans an audit of verdicts.

    Args:
        verdicts: Of N images.
        seed: Draws the order within the strata.

    Raises:
        SettingsError: The seed is out of range.
    """
    check_value("seed", seed, Seed)
    stratum, sizes = strata(verdicts)
    flagged = np.zeros(len(sizes), dtype=np.bool_)
    flagged[stratum[verdicts.is_issue & verdicts.is_readable]] = True
    doubt, share = _doubt(verdicts), np.zeros(len(sizes))
    of_flags = share_of_flags(doubt[verdicts.is_readable], flagged=verdicts.is_issue[verdicts.is_readable])
    for side, looks in ((flagged, of_flags), (~flagged, 1 - of_flags)):
        share[side] = looks * sizes[side] / max(sizes[side].sum(), 1)
    order = _order(stratum, sizes, share, np.random.default_rng(seed))
    return AuditDesign(stratum=stratum, sizes=sizes, flagged=flagged, order=order)


def strata(verdicts: Verdicts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits the readable images by flag and, within each side, by p_clean into ten strata of about equal size.

    Returns:
        The stratum of each image, (N,), -1 where it could not be read, and the sizes of the H strata, (H,). Flagged
        strata come first; a side of few images has fewer strata.
    """
    stratum, made = np.full(len(verdicts), -1, dtype=np.int64), 0
    for side in (verdicts.is_issue, ~verdicts.is_issue):
        rows = np.flatnonzero(side & verdicts.is_readable)
        parts = int(np.clip(len(rows) // _LEAST, min(len(rows), 1), _PARTS))
        rows = rows[np.argsort(verdicts.label_quality[rows], kind="stable")]
        stratum[rows] = made + np.arange(len(rows)) * parts // max(len(rows), 1)
        made += parts
    return stratum, np.bincount(stratum[stratum >= 0], minlength=made).astype(np.int64)


def _doubt(verdicts: Verdicts) -> NDArray[np.float64]:
    """Returns the standard deviation of each label's being wrong as p_clean has it, (N,)."""
    clean = np.clip(verdicts.label_quality.astype(np.float64), _SUREST, 1 - _SUREST)
    return np.asarray(np.sqrt(clean * (1 - clean)))


def share_of_flags(doubt: NDArray[np.float64], *, flagged: NDArray[np.bool_]) -> float:
    """Returns which share of the looks the flagged labels get, between 0 and 1.

    A third of the looks goes by the number of labels, which trusts nothing; a third by the standard deviations that
    p_clean expects (Neyman's allocation), which counts wrong labels best; and a third to the flagged labels, for the
    precision of the flags.

    Args:
        doubt: Standard deviation of each label's being wrong, (n,).
        flagged: Which labels are flagged, (n,).

    Example:
        >>> import numpy as np
        >>> round(share_of_flags(np.array([0.5, 0.1, 0.1, 0.1]), flagged=np.array([True, False, False, False])), 3)
        0.625
    """
    if flagged.all() or not flagged.any():
        return float(flagged.any())
    return float(np.mean([flagged.mean(), doubt[flagged].sum() / doubt.sum(), 1.0]))


def _order(
    stratum: NDArray[np.int64], sizes: NDArray[np.int64], share: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Merges random orders of the strata so that each has about its share of every prefix, until it is used up.

    The random start of each stratum makes the number of its images in a prefix right on average, not only about right.
    """
    rows, turns = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for index, size in enumerate(sizes):
        rows.append(generator.permutation(np.flatnonzero(stratum == index)))
        turns.append((np.arange(size) + generator.random()) / share[index])
    return np.asarray(np.concatenate(rows)[np.argsort(np.concatenate(turns), kind="stable")])
