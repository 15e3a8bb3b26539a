"""What is known from an earlier review when data are scanned again: answered labels are facts.

Answers belong to the content of an image: a file that was renamed or moved, and a table that was written again, keep
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, RunError, listed, shown
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import fingerprint
from labelsieve.core.quantities import counted
from labelsieve.data.labelled import Labelled
from labelsieve.data.labels import normalise
from labelsieve.detect.scores import Estimate, Scores
from labelsieve.metrics import Interval
from labelsieve.review.answers import Answer, key_of, undo_of
from labelsieve.review.changes import resolved_label
from labelsieve.review.log import LOG, AnswerLog
from labelsieve.review.state import Resolved, Reviews, load

# In what was shown: the answer was carried to the log of a new run after that had been scanned.
_LATE = "late"


@dataclass(frozen=True, kw_only=True, eq=False)
class Earlier:
    """Answers of an earlier run on N images.

    Attributes:
        run_folder: Folder of the earlier run.
        is_right: Shape (N,): the given label is known to be right.
        is_wrong: Shape (N,): the given label is known to be wrong.
        labels: Shape (N,), int64: the given labels, with the right one where a reviewer named it.
        answers: The answers that stand on these images, as the log of the new run has them.
        notes: Remarks for the user.
    """

    run_folder: Path
    is_right: NDArray[np.bool_]
    is_wrong: NDArray[np.bool_]
    labels: NDArray[np.int64]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]

    def on(self, scores: Scores, given: NDArray[np.int64]) -> Scores:
        """Returns scores in which the known labels are certain: quality 1 or 0, and the right class where it is known.

        Args:
            scores: Of a detector that took :attr:`labels` for the given ones.
            given: Shape (N,): the given labels.
        """
        readable = ~np.isnan(scores.label_quality)
        right, wrong = self.is_right & readable, self.is_wrong & readable
        named = wrong & (self.labels != given)
        quality = np.where(right, 1.0, np.where(wrong, 0.0, scores.label_quality)).astype(np.float32)
        new = dataclasses.replace(
            scores,
            label_quality=quality,
            predicted=np.where(right | named, self.labels, scores.predicted),
            confidence=np.where(right | named, np.float32(1), scores.confidence),
            rule=scores.rule.knowing(right=right, wrong=wrong),
            notes=(*scores.notes, *self.notes),
        )
        return dataclasses.replace(new, estimate=estimate_after(scores, new, self.labels, given))

    def to_record(self) -> dict[str, Any]:
        """Returns what `run.json` says of it."""
        return {
            "run": str(self.run_folder),
            "images": int((self.is_right | self.is_wrong).sum()),
            "wrong": int(self.is_wrong.sum()),
            "fingerprint": fingerprint(self.is_right, self.is_wrong, self.labels),
        }

    def carry_to(self, run_folder: Path) -> None:
        """Appends the answers to the log of a new run, so that they are not asked again there.

        Raises:
            RunError: The log cannot be written.
        """
        AnswerLog(run_folder).append_all([*self.answers])


def check_reviewed(run_folder: str | Path) -> Path:
    """Returns the folder of a run, which has a log of answers.

    Raises:
        RunError: It has none.
    """
    folder = Path(run_folder)
    if not (folder / LOG).is_file():
        answer = f"labelsieve review {folder}"
        raise RunError(f"expected a reviewed run with a {LOG} in {folder}, found none; answer with: {answer}")
    return folder


def earlier(run_folder: str | Path, images: Labelled, *, progress: Progress | None = None) -> Earlier:
    """Finds the answers of an earlier run on images that may have moved, or got other labels, since.

    Args:
        run_folder: Folder of the run that was reviewed.
        images: N images.
        progress: Where to say that the log is torn.

    Raises:
        RunError: There are no reviews, or they cannot be read.
        DataError: None of them is on these images.
    """
    folder = check_reviewed(run_folder)
    return earlier_of(load(folder, progress=progress), images, run_folder=folder)


def earlier_of(reviews: Reviews, images: Labelled, *, run_folder: Path) -> Earlier:
    """Finds answers that were read; see :func:`earlier`.

    Args:
        reviews: Of the earlier run.
        images: N images.
        run_folder: Folder of the earlier run.

    Raises:
        DataError: None of them is on these images.
    """
    index = {normalise(name): number for number, name in enumerate(images.class_names)}
    gone = {key for key, found in reviews.by_key.items() if any(normalise(name) not in index for name in found.labels)}
    there = np.isin(images.contents, _hashes(reviews.by_key))
    if reviews.by_key and not there.any():
        raise DataError(
            f"{run_folder} has reviews of other data: none of its {len(reviews):,} reviewed images is among the "
            f"{len(images):,} here; pass the run that reviewed these"
        )
    labels, marks = images.labels.copy(), np.zeros((2, len(images)), dtype=np.bool_)
    facts = {key: found for key, found in reviews.facts.items() if key not in gone}
    for row in np.flatnonzero(np.isin(images.contents, _hashes(facts))).tolist():
        given, found = images.class_names[labels[row]], facts[key_of(images.contents[row])]
        if found.speaks_of(given):
            label = _label(found, given, index)
            marks[0 if label == labels[row] else 1, row] = True
            labels[row] = labels[row] if label is None else label
    return Earlier(
        run_folder=run_folder,
        is_right=marks[0],
        is_wrong=marks[1],
        labels=labels,
        answers=_carried(reviews, gone, images, str(run_folder)),
        notes=_notes(run_folder, marks, reviews, gone, images),
    )


def carry_late(run_folder: str | Path, new_folder: str | Path, images: Labelled) -> None:
    """Brings the log of a new run up to the answers that came to the earlier one while it was scanned again.

    Answers that were taken back meanwhile are taken back in the new log, too.

    Args:
        run_folder: Folder of the earlier run.
        new_folder: Folder of the run that a scan with the answers made.
        images: The images of both.

    Raises:
        RunError: A log cannot be read or written.
    """
    log = AnswerLog(new_folder)
    there = log.answers()
    known, standing = {each.token for each in there}, {each.token for each in load(run_folder).standing}
    late = [
        dataclasses.replace(each, shown={**each.shown, _LATE: True})
        for each in earlier(run_folder, images).answers
        if each.token not in known
    ]
    undone = {each.undoes for each in there}
    carried = (each for each in there if each.shown.get("from") == str(run_folder) and each.token not in undone)
    log.append_all([*late, *(undo_of(each, reviewer=each.reviewer) for each in carried if each.token not in standing)])


def unknown_to_scan(reviews: Reviews) -> int:
    """Returns how many images have answers that the scan of their run did not know."""
    return sum(any(_is_new(each) for each in found.answers) for found in reviews.facts.values())


def _is_new(answer: Answer) -> bool:
    """Returns whether an answer was given after the scan of the run that has it in its log."""
    return "from" not in answer.shown or _LATE in answer.shown


def _hashes(keys: Mapping[str, Any]) -> NDArray[np.uint64]:
    return np.array([int(key, 16) for key in keys], dtype=np.uint64)


def _label(found: Resolved, given: str, index: Mapping[str, int]) -> int | None:
    """Returns the right class, None where none is known."""
    name = resolved_label(found, given)
    return None if name is None else index[normalise(name)]


def _carried(reviews: Reviews, gone: set[str], images: Labelled, run: str) -> tuple[Answer, ...]:
    """Returns the answers on these images; an audit was drawn for the earlier run, so it is none of the new one."""
    chosen = [each for each in reviews.standing if each.kind != "skip" and each.key not in gone]
    wanted = np.isin(images.contents, _hashes({each.key: None for each in chosen}))
    ids: dict[str, str] = {}
    for row in np.flatnonzero(wanted).tolist():
        ids.setdefault(key_of(images.contents[row]), images.ids[row])
    return tuple(
        dataclasses.replace(each, id=ids[each.key], mode="review", shown={**_without_late(each.shown), "from": run})
        for each in chosen
        if each.key in ids
    )


def _without_late(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != _LATE}


def _notes(
    folder: Path, marks: NDArray[np.bool_], reviews: Reviews, gone: set[str], images: Labelled
) -> tuple[str, ...]:
    right, wrong = marks.sum(axis=1).tolist()
    notes = [f"reviewed in {folder}: {counted(right, 'label is', 'labels are')} right and {wrong:,} wrong for certain"]
    here = set(map(key_of, np.unique(images.contents[np.isin(images.contents, _hashes(reviews.by_key))]).tolist()))
    if lost := len(reviews) - len(here):
        notes.append(f"{counted(lost, 'reviewed image is', 'reviewed images are')} not among these")
    if gone:
        names: Sequence[str] = sorted({name for key in gone for name in reviews.by_key[key].labels})
        known = set(map(normalise, images.class_names))
        lacking = [shown(name) for name in names if normalise(name) not in known]
        said = counted(len(gone), "answer names", "answers name")
        notes.append(f"{said} classes that are not there, so these images are asked again: {listed(lacking)}")
    return tuple(notes)


def estimate_after(
    before: Scores, after: Scores, labels: NDArray[np.int64], given: NDArray[np.int64]
) -> Estimate | None:
    """Returns the estimate with what is known, or flagged, now in the place of what the detector found.

    Args:
        before: Scores of N images with their estimate.
        after: The same with another quality of some labels, or other flags.
        labels: Shape (N,): the labels that were scored.
        given: Shape (N,): the given labels.
    """
    if before.estimate is None:
        return None
    readable = ~np.isnan(before.label_quality)
    flags = _flags(before, labels) & readable, _flags(after, given) & readable

    def more(here: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> float:
        sums = [
            float((1 - scores.label_quality[rows].astype(np.float64)).sum())
            for scores, rows in zip((before, after), here, strict=True)
        ]
        return sums[1] - sums[0]

    flagged_before, flagged = (int(each.sum()) for each in flags)
    wrong, right, missed = before.estimate
    share = Interval(0.0, 0.0, 0.0) if right is None else right
    of_flagged = _moved(Interval(*(each * flagged_before for each in share)), more(flags), flagged)
    return Estimate(
        _moved(wrong, more((readable, readable)), int(readable.sum())),
        Interval(*(each / flagged for each in of_flagged)) if flagged else None,
        _moved(missed, more((readable & ~flags[0], readable & ~flags[1])), int(readable.sum()) - flagged),
    )


def _flags(scores: Scores, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return scores.rule.flags(scores.label_quality, predicted=scores.predicted, given=labels)


def _moved(interval: Interval, by: float, most: int) -> Interval:
    return Interval(*(min(max(each + by, 0.0), float(most)) for each in interval))
