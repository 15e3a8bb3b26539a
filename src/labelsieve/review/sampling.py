"""The design of an audit: strata of the images, and one random order in which to look at them.

An audit answers two questions at once: how many of the flags are right, and how many wrong labels are left among the
others. So the readable images are split by flag and, within each side, by p_clean, and the looks are shared between
both questions. All of it depends on the verdicts and a seed alone:

* each stratum has a random order of its own, and a fixed rule merges these orders into one;
* so after any number of looks, the images seen of each stratum are a simple random sample of it, of a fixed size.

The population is all readable images, however they become known. An image whose label was settled before its turn, in a
review or by a copy of it, takes its place in the sample without another look: skipping it would bias the sample towards
what the review left over. An unreadable image has no label that could be seen right or wrong, and is never drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelsieve.validation import Seed, check_value
from labelsieve.verdicts import Verdicts

# Strata on each side of the flag, and images that a stratum has at least; a smaller side is one stratum.
_PARTS, _LEAST = 3, 20
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
    flagged[stratum[verdicts.is_issue & (stratum >= 0)]] = True
    in_all = np.bincount(stratum[stratum >= 0], weights=_doubt(verdicts)[stratum >= 0], minlength=len(sizes))
    share = shares(sizes, flagged=flagged, doubt=in_all.astype(np.float64))
    order = _order(stratum, sizes, share, np.random.default_rng(seed))
    return AuditDesign(stratum=stratum, sizes=sizes, flagged=flagged, order=order)


def strata(verdicts: Verdicts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits the readable images by flag and p_clean.

    Each side is cut where the standard deviations that p_clean expects, summed, reach a third and two thirds: the
    nearer to even odds the labels are, the finer are the strata.

    Returns:
        The stratum of each image, (N,), -1 where it could not be read, and the sizes of the strata, (H,).
    """
    stratum = np.full(len(verdicts), -1, dtype=np.int64)
    doubt, strata_so_far = _doubt(verdicts), 0
    for side in (verdicts.is_issue, ~verdicts.is_issue):
        rows = np.flatnonzero(side & verdicts.is_readable)
        if not len(rows):
            continue
        rows = rows[np.argsort(verdicts.label_quality[rows], kind="stable")]
        parts = int(np.clip(len(rows) // _LEAST, 1, _PARTS))
        reached = np.cumsum(doubt[rows])
        cut = np.minimum((parts * (reached - doubt[rows] / 2) / reached[-1]).astype(np.int64), parts - 1)
        stratum[rows] = strata_so_far + np.unique(cut, return_inverse=True)[1]
        strata_so_far = int(stratum.max()) + 1
    return stratum, np.bincount(stratum[stratum >= 0], minlength=strata_so_far).astype(np.int64)


def _doubt(verdicts: Verdicts) -> NDArray[np.float64]:
    """Returns the standard deviation of each label's being wrong as p_clean has it, (N,)."""
    clean = np.clip(verdicts.label_quality.astype(np.float64), _SUREST, 1 - _SUREST)
    return np.asarray(np.sqrt(clean * (1 - clean)))


def shares(sizes: NDArray[np.int64], *, flagged: NDArray[np.bool_], doubt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns which share of the looks each stratum gets, (H,), all above 0 and 1 in total.

    A third goes by size, which trusts nothing; a third by the standard deviation that p_clean expects (Neyman), which
    counts wrong labels best; and a third to the flagged strata by size, for the precision of the flags.

    Args:
        sizes: Images of each stratum, (H,).
        flagged: Which strata are flagged, (H,).
        doubt: Standard deviations of the labels of each stratum, summed, (H,).
    """
    if not len(sizes):
        return np.zeros(0)
    wanted = [sizes.astype(np.float64), doubt]
    if flagged.any():
        wanted.append(np.where(flagged, sizes, 0.0))
    return np.asarray(np.mean([each / each.sum() for each in wanted], axis=0))


def _order(
    stratum: NDArray[np.int64], sizes: NDArray[np.int64], share: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Merges random orders of the strata so that each has about its share of every prefix, until it is used up."""
    rows, turns = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for index, size in enumerate(sizes):
        rows.append(generator.permutation(np.flatnonzero(stratum == index)))
        turns.append((np.arange(size) + 0.5) / share[index])
    return np.asarray(np.concatenate(rows)[np.argsort(np.concatenate(turns), kind="stable")])
