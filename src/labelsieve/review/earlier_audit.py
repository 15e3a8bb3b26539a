"""Bounds the share of false flags in a new scan: the audit of an earlier run calibrates the scores of right labels.

A conformal p-value (`conformal.py`) is valid if the scores of right labels in the audit and of right labels outside of
it are exchangeable. So the scores must not depend on which right labels the audit drew:

* The sample is that of the earlier run, in the order of its verdicts, and is matched by the content of the images. Only
  labels of the earlier run are tested, because its audit does not cover others.
* The scores are those of the detector, before known labels become certain.
* The detector learns from the labels of the earlier run. A label that was corrected, for instance because a copy of the
  image was audited, or because the review chose images outside of the audit, would reveal what was drawn.
* Labels that a review found right are also tested, because the review chose them, not the audit. Flags on them are
  dropped afterwards, which only reduces the false flags. Labels that are known to be wrong cannot be false flags, and
  are not tested.

Scores may then depend on all images and labels in any way (Marandon et al. 2024).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelsieve.core.errors import RunError
from labelsieve.core.files import quoted
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted, percent
from labelsieve.core.validation import FalseFlags, check_value
from labelsieve.data.labelled import Labelled
from labelsieve.data.labels import normalise
from labelsieve.detect.scores import Scores
from labelsieve.review.audit import expected_wrong, sides_of
from labelsieve.review.conformal import calibration_rows, flag_threshold, right_needed
from labelsieve.review.earlier_review import EarlierReview, check_reviewed, estimate_after
from labelsieve.review.known_labels import Known, known_labels, rows_and_keys
from labelsieve.review.sampling import AuditDesign, design
from labelsieve.review.state import Reviews, load
from labelsieve.review.statement import no_threshold
from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True, eq=False)
class EarlierAudit:
    """The audit of an earlier run, matched to N labels, for a requested share of false flags.

    Attributes:
        run_folder: Folder of the earlier run.
        false_flags: The requested share, above 0 and below 1.
        calibration: Shape (n,): rows that are a random sample of the labels of the earlier run.
        is_right: Shape (N,): labels that reviewers of the earlier run found right.
        is_undecided: Shape (N,): labels of the calibration set that they left undecided.
        is_tested: Shape (N,): labels of the earlier run, without the calibration set and those known to be wrong.
        is_open: Shape (N,): labels that are not known.
        labels: Shape (N,), int64: the given labels; for answered images the labels of the earlier run.
        expected_wrong: Estimated number of wrong labels among the tested ones.
    """

    run_folder: Path
    false_flags: float
    calibration: NDArray[np.int64]
    is_right: NDArray[np.bool_]
    is_undecided: NDArray[np.bool_]
    is_tested: NDArray[np.bool_]
    is_open: NDArray[np.bool_]
    labels: NDArray[np.int64]
    expected_wrong: float

    def flag(self, scores: Scores) -> Scores:
        """Flags labels such that at most the requested share of the flags is false, on average over audits.

        Args:
            scores: Scores of a detector that used :attr:`labels` as the given labels, without known labels.
        """
        readable = ~np.isnan(scores.label_quality)
        chosen = flag_threshold(
            scores.label_quality,
            readable=self.is_tested & readable,
            calibration=self.calibration[readable[self.calibration]],
            right=self.is_right,
            undecided=self.is_undecided,
            expected_wrong=self.expected_wrong,
            false_flags=self.false_flags,
        )
        low = chosen.rule.flags(scores.label_quality, predicted=scores.predicted, given=self.labels)
        notes = [] if chosen.threshold is not None else [f"{no_threshold(chosen)} (audit of {self.run_folder})"]
        if untested := int((self.is_open & readable & ~self.is_tested).sum()):
            notes.append(
                f"{counted(untested, 'label is', 'labels are')} not flagged, whatever the score, as the audit of "
                f"{self.run_folder} says nothing of them: new or changed ones, those left undecided, and copies in "
                "data that changed since"
            )
        flagged = dataclasses.replace(
            scores,
            rule=chosen.rule.with_issues(self.is_tested & low),
            notes=(*scores.notes, *notes),
        )
        return dataclasses.replace(flagged, estimate=estimate_after(scores, flagged, self.labels, self.labels))


def read_audit(
    run_folder: str | Path, *, false_flags: float, progress: Progress | None = None
) -> tuple[Verdicts, Reviews]:
    """Returns the verdicts and the reviews of a run that was audited.

    Args:
        run_folder: Folder of the run.
        false_flags: The requested share of false flags.
        progress: Receives a note if the log is truncated.

    Raises:
        SettingsError: The share is out of range.
        RunError: The run is not finished, or has no audit.
    """
    check_value("false_flags", false_flags, FalseFlags)
    folder = check_reviewed(run_folder)
    verdicts, reviews = Verdicts.load(folder), load(folder, progress=progress)
    if not any(each.mode == "audit" for each in reviews.standing):
        raise RunError(
            f"expected an audit among the reviews of {folder}, found none; flag without a bound on false flags, or "
            f"answer images of its audit with: labelsieve review {quoted(folder)}"
        )
    return verdicts, reviews


def earlier_audit(
    known: EarlierReview, images: Labelled, verdicts: Verdicts, reviews: Reviews, *, false_flags: float
) -> EarlierAudit:
    """Matches the audit of an earlier run to images, which may have moved or have other labels.

    Args:
        known: The known labels of the images from that run.
        images: N images.
        verdicts: Verdicts of the earlier run, from :func:`read_audit`.
        reviews: Reviews of the earlier run, from :func:`read_audit`.
        false_flags: The requested share of false flags, above 0 and below 1.

    Raises:
        RunError: The audit is too small for that share.
    """
    contents, is_known = _contents(verdicts, reviews, images)
    plan, answered = design(verdicts), known_labels(verdicts, reviews, contents=contents)
    sample = plan.prefix(answered.is_closed | (_passed_by_audit(verdicts, reviews, plan) & ~is_known))
    given, new_rows = _matching_rows(verdicts, contents, images)
    new_rows[~is_known] = -1
    labels = _labels(given, contents, new_rows, images, known)
    new_rows = np.where((new_rows >= 0) & _is_comparable(verdicts, images)[new_rows], new_rows, -1)
    sampled = calibration_rows(plan, sample)
    calibration = new_rows[sampled[new_rows[sampled] >= 0]]

    def on_images(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return _mask(new_rows[rows & (new_rows >= 0)], len(images))

    undecided = verdicts.is_readable & ~answered.is_decided
    audit = EarlierAudit(
        run_folder=known.run_folder,
        false_flags=false_flags,
        calibration=calibration,
        is_right=on_images(answered.is_decided & ~answered.is_wrong),
        is_undecided=on_images(~answered.is_decided),
        is_tested=on_images(verdicts.is_readable) & ~_mask(calibration, len(images)) & ~known.is_wrong,
        is_open=~(known.is_right | known.is_wrong),
        labels=labels,
        expected_wrong=_remaining_wrong(verdicts, plan, answered, sample)
        * int(on_images(undecided).sum())
        / max(int(undecided.sum()), 1),
    )
    _require_enough(audit, plan, answered, sample)
    return audit


def _is_comparable(verdicts: Verdicts, images: Labelled) -> NDArray[np.bool_]:
    """Returns which images have no copies; all of them if the data are those of the earlier run.

    In corrected data, copies of audited images have the label of the audit, unlike copies of other images.
    """
    if verdicts.run.data.fingerprint == images.fingerprint:
        return np.ones(len(images), dtype=np.bool_)
    _, group, sizes = np.unique(images.contents, return_inverse=True, return_counts=True)
    return np.asarray(sizes[group] == 1)


def _passed_by_audit(verdicts: Verdicts, reviews: Reviews, plan: AuditDesign) -> NDArray[np.bool_]:
    """Returns which images the audit has reached; it skips images known from a copy, which may be missing now."""
    shown = pa.array(sorted({each.id for each in reviews.standing if each.mode == "audit"}), pa.string())
    positions = np.flatnonzero(np.asarray(pc.is_in(verdicts.table["id"], value_set=shown))[plan.order])
    return _mask(plan.order[: positions.max(initial=-1) + 1], len(verdicts))


def _remaining_wrong(verdicts: Verdicts, plan: AuditDesign, answered: Known, sample: NDArray[np.int64]) -> float:
    """Estimates the remaining wrong labels: by the audit, but at least the flagged labels that are not known."""
    remaining = expected_wrong(sides_of(plan, answered, sample)) - int(answered.is_wrong.sum())
    return max(remaining, float((verdicts.is_issue & ~answered.is_decided).sum()), 1.0)


def _contents(verdicts: Verdicts, reviews: Reviews, images: Labelled) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Returns the content hashes of the images of the earlier run, and which of them are known; matches by id."""
    if verdicts.run.data.fingerprint == images.fingerprint:
        return images.contents, np.ones(len(images), dtype=np.bool_)
    positions = pc.index_in(verdicts.table["id"].combine_chunks(), value_set=pa.array(images.ids, pa.string()))
    rows = np.asarray(pc.fill_null(positions, -1)).astype(np.int64)
    is_known = rows >= 0
    contents = np.where(is_known, images.contents[rows], np.uint64(0))
    for row, key in rows_and_keys(verdicts, reviews, contents=None):
        contents[row], is_known[row] = int(key, 16), True
    return contents, is_known


def _matching_rows(
    verdicts: Verdicts, contents: NDArray[np.uint64], images: Labelled
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the given labels of the earlier run as indices into the classes of the images, and the matching rows.

    Both are -1 if there is no such class, or no such image with that label.
    """
    index = {normalise(name): number for number, name in enumerate(images.class_names)}
    class_of = np.array([index.get(normalise(name), -1) for name in verdicts.class_names], dtype=np.int64)
    given = class_of[verdicts.given]
    _, codes = np.unique(np.concatenate([contents, images.contents]), return_inverse=True)
    codes = codes * (len(images.class_names) + 1) + np.concatenate([given, images.labels]) + 1
    return given, _match_duplicates(codes[: len(contents)], codes[len(contents) :])


def _labels(
    given: NDArray[np.int64],
    contents: NDArray[np.uint64],
    new_rows: NDArray[np.int64],
    images: Labelled,
    known: EarlierReview,
) -> NDArray[np.int64]:
    """Returns the given labels; for images with known labels, those of the earlier run, before the answers."""
    labels = images.labels.copy()
    is_matched = _mask(new_rows[new_rows >= 0], len(images))
    changed = np.flatnonzero((known.is_right | known.is_wrong) & ~is_matched)
    before = np.flatnonzero((new_rows < 0) & (given >= 0))
    matches = _match_duplicates(contents[before], images.contents[changed])
    labels[changed[matches[matches >= 0]]] = given[before[matches >= 0]]
    return labels


def _mask(rows: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows] = True
    return mask


def _match_duplicates(values: NDArray[np.generic], among: NDArray[np.generic]) -> NDArray[np.int64]:
    """Returns the position in `among` for each value, the n-th occurrence for the n-th; -1 if there is none.

    Example:
        >>> _match_duplicates(np.array([7, 5, 7, 7]), np.array([7, 7, 6])).tolist()
        [0, -1, 1, -1]
    """
    order, order_of_others = (np.argsort(each, kind="stable") for each in (values, among))
    ordered, ordered_others = values[order], among[order_of_others]
    nth = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    positions = np.searchsorted(ordered_others, ordered) + nth
    is_found = positions < np.searchsorted(ordered_others, ordered, side="right")
    result = np.full(len(values), -1, dtype=np.int64)
    result[order[is_found]] = order_of_others[positions[is_found]]
    return result


def _require_enough(audit: EarlierAudit, plan: AuditDesign, answered: Known, sample: NDArray[np.int64]) -> None:
    """Checks that the audit has enough right labels.

    Raises:
        RunError: It has too few; the message states how many more answers are required.
    """
    labels, seen = int(audit.is_tested.sum()), int(audit.is_right[audit.calibration].sum())
    needed = right_needed(labels, expected_wrong=audit.expected_wrong, false_flags=audit.false_flags)
    if seen >= needed:
        return
    more = _more_answers(audit, plan, answered, sample)
    advice = (
        "no audit of these images is large enough, so allow more false flags"
        if more is None
        else f"answer about {counted(more, 'more image', 'more images')} of its audit with: labelsieve review "
        f"{audit.run_folder}, or allow more false flags"
    )
    raise RunError(
        f"the audit of {audit.run_folder} has {counted(seen, 'right label', 'right labels')} to compare with, and "
        f"flags of which at most {percent(audit.false_flags)} are false take about {needed:,}; {advice}"
    )


def _more_answers(audit: EarlierAudit, plan: AuditDesign, answered: Known, sample: NDArray[np.int64]) -> int | None:
    """Returns how many more answers are required at the rates so far; None if no wrong label would remain by then."""
    is_flagged, is_new = plan.flagged[plan.stratum[plan.order]], ~answered.is_closed[plan.order]
    sides = [side for side in (is_flagged, ~is_flagged) if side.any()]
    rate = np.minimum.reduce([np.cumsum(side) / side.sum() for side in sides])
    compared = sum(np.floor(rate * side.sum() + 1e-9) for side in sides)
    new = compared - (compared[len(sample) - 1] if len(sample) else 0)
    wrong = np.zeros(len(plan.order))
    for side in sides:
        seen = answered.is_wrong[sample][side[: len(sample)]]
        wrong[side & is_new] = (seen.sum() + 1) / (len(seen) + 2)
    remaining = audit.expected_wrong * (1 - np.cumsum(wrong) / max(wrong.sum(), 1e-9))
    right = int(audit.is_right[audit.calibration].sum())
    right_by_then = right + new * (right + 1) / (len(audit.calibration) + 2)
    labels = int(audit.is_tested.sum()) - new
    is_enough = ((right_by_then + 1) * audit.false_flags * remaining >= labels) & (remaining >= 1)
    enough = np.flatnonzero(is_enough[len(sample) :])
    return int(is_new[: len(sample) + enough[0] + 1].sum()) if len(enough) else None
