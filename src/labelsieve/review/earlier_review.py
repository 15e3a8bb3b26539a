"""Known labels from an earlier review, for another scan of the data.

Answers belong to the content of an image, so they survive if a file is renamed or moved, or a table is written again.
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
from labelsieve.core.files import quoted
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
from labelsieve.verdicts import RECORD

# Key of `shown`: the answer was copied to the log of a new run after its scan.
_LATE = "late"


@dataclass(frozen=True, kw_only=True, eq=False)
class EarlierReview:
    """Answers of an earlier run on N images.

    Attributes:
        run_folder: Folder of the earlier run.
        is_right: Shape (N,): the given label is known to be right.
        is_wrong: Shape (N,): the given label is known to be wrong.
        labels: Shape (N,), int64: the given labels, replaced by the right label if a reviewer named it.
        unreviewed_labels: Shape (N,), int64: the labels that the reviewers saw, and the given labels of other images.
            Estimates of wrong labels use these: a review corrects the most suspicious ones, so `labels` are biased.
        answers: The standing answers on these images, in the form for the log of the new run.
        notes: Notes for the user.
    """

    run_folder: Path
    is_right: NDArray[np.bool_]
    is_wrong: NDArray[np.bool_]
    labels: NDArray[np.int64]
    unreviewed_labels: NDArray[np.int64]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]

    def on(self, scores: Scores, given: NDArray[np.int64]) -> Scores:
        """Returns scores in which the known labels are certain: quality 1 or 0, and the right class if it is known.

        Args:
            scores: Scores of a detector that used :attr:`labels` as the given labels.
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
            rule=scores.rule.with_known(right=right, wrong=wrong),
            notes=(*scores.notes, *self.notes),
        )
        return dataclasses.replace(new, estimate=estimate_after(scores, new, self.labels, given))

    def to_record(self) -> dict[str, Any]:
        """Returns its entry of `run.json`."""
        return {
            "run": str(self.run_folder),
            "images": int((self.is_right | self.is_wrong).sum()),
            "wrong": int(self.is_wrong.sum()),
            "fingerprint": fingerprint(self.is_right, self.is_wrong, self.labels),
        }


def check_reviewed(run_folder: str | Path) -> Path:
    """Returns the folder of a run and checks that it has a log of answers.

    Raises:
        RunError: It has none, or is not a finished run.
    """
    folder = Path(run_folder)
    if not (folder / LOG).is_file():
        if not (folder / RECORD).is_file():
            raise RunError(f"expected a finished, reviewed run with a {RECORD} in {folder}, found none; check the path")
        answer = f"labelsieve review {quoted(folder)}"
        raise RunError(f"expected a reviewed run with a {LOG} in {folder}, found none; answer with: {answer}")
    return folder


def read_earlier_review(run_folder: str | Path, images: Labelled, *, progress: Progress | None = None) -> EarlierReview:
    """Matches the answers of an earlier run to images, which may have moved or have other labels.

    Args:
        run_folder: Folder of the run that was reviewed.
        images: N images.
        progress: Receives a note if the log is truncated.

    Raises:
        RunError: There are no reviews, or they cannot be read.
        DataError: None of them belongs to these images.
    """
    folder = check_reviewed(run_folder)
    return earlier_review_of(load(folder, progress=progress), images, run_folder=folder)


def earlier_review_of(reviews: Reviews, images: Labelled, *, run_folder: Path) -> EarlierReview:
    """Matches loaded answers to images; see :func:`read_earlier_review`.

    Args:
        reviews: The reviews of the earlier run.
        images: N images.
        run_folder: Folder of the earlier run.

    Raises:
        DataError: None of them belongs to these images.
    """
    index = {normalise(name): number for number, name in enumerate(images.class_names)}
    obsolete = {
        key for key, resolved in reviews.by_key.items() if any(normalise(name) not in index for name in resolved.labels)
    }
    is_reviewed = np.isin(images.contents, _hashes(reviews.by_key))
    if reviews.by_key and not is_reviewed.any():
        raise DataError(
            f"{run_folder} has reviews of other data: none of its {len(reviews):,} reviewed images is among the "
            f"{len(images):,} here; pass the run that reviewed these"
        )
    labels, before, marks = images.labels.copy(), images.labels.copy(), np.zeros((2, len(images)), dtype=np.bool_)
    _, content, copies = np.unique(images.contents, return_inverse=True, return_counts=True)
    is_single = copies[content] == 1
    facts = {key: resolved for key, resolved in reviews.facts.items() if key not in obsolete}
    for row in np.flatnonzero(np.isin(images.contents, _hashes(facts))).tolist():
        given, resolved = images.class_names[labels[row]], facts[key_of(images.contents[row])]
        if resolved.speaks_of(given):
            label = _right_class(resolved, given, index)
            marks[0 if label == labels[row] else 1, row] = True
            labels[row] = labels[row] if label is None else label
            if is_single[row]:  # the label of a copy may differ from that of the reviewed image
                before[row] = _label_seen(resolved, index, images.labels[row])
    return EarlierReview(
        run_folder=run_folder,
        is_right=marks[0],
        is_wrong=marks[1],
        labels=labels,
        unreviewed_labels=before,
        answers=_carried_answers(reviews, obsolete, images, str(run_folder)),
        notes=_notes(run_folder, marks, reviews, obsolete, images),
    )


def carry_late(run_folder: str | Path, new_folder: str | Path, images: Labelled) -> None:
    """Adds the answers to the log of a new run that the earlier run received during the new scan.

    Answers that were taken back during the scan are also taken back in the new log.

    Args:
        run_folder: Folder of the earlier run.
        new_folder: Folder of the new run.
        images: The images of both.

    Raises:
        RunError: A log cannot be read or written.
    """
    log = AnswerLog(new_folder)
    existing = log.answers()
    tokens, standing = {each.token for each in existing}, {each.token for each in load(run_folder).standing}
    late = [
        dataclasses.replace(each, shown={**each.shown, _LATE: True})
        for each in read_earlier_review(run_folder, images).answers
        if each.token not in tokens
    ]
    taken_back = {each.undoes for each in existing}
    carried = (each for each in existing if each.shown.get("from") == str(run_folder) and each.token not in taken_back)
    log.append_all([*late, *(undo_of(each, reviewer=each.reviewer) for each in carried if each.token not in standing)])


def unknown_to_scan(reviews: Reviews) -> list[str]:
    """Returns the keys of images with answers that were not available to the scan of their run."""
    return [key for key, resolved in reviews.facts.items() if any(_is_new(each) for each in resolved.on_label)]


def _is_new(answer: Answer) -> bool:
    """Returns whether an answer was given after the scan of its run."""
    return "from" not in answer.shown or _LATE in answer.shown


def _hashes(keys: Mapping[str, Any]) -> NDArray[np.uint64]:
    return np.array([int(key, 16) for key in keys], dtype=np.uint64)


def _right_class(resolved: Resolved, given_label: str, index: Mapping[str, int]) -> int | None:
    """Returns the index of the right class; None if it is unknown."""
    name = resolved_label(resolved, given_label)
    return None if name is None else index[normalise(name)]


def _label_seen(resolved: Resolved, index: Mapping[str, int], label: np.int64) -> int:
    """Returns the given label that reviewers saw; `label` if its class no longer exists."""
    seen = (index.get(normalise(each.given_label)) for each in resolved.on_label)
    return int(next((each for each in seen if each is not None), label))


def _carried_answers(reviews: Reviews, obsolete: set[str], images: Labelled, run: str) -> tuple[Answer, ...]:
    """Returns the answers on these images, in mode `review`, because the new run has its own audit."""
    chosen = [each for each in reviews.standing if each.kind != "skip" and each.key not in obsolete]
    is_answered = np.isin(images.contents, _hashes({each.key: None for each in chosen}))
    ids: dict[str, list[str]] = {}
    for row in np.flatnonzero(is_answered).tolist():
        ids.setdefault(key_of(images.contents[row]), []).append(images.ids[row])
    return tuple(
        dataclasses.replace(
            each,
            id=each.id if each.id in ids[each.key] else ids[each.key][0],
            mode="review",
            shown={**_without_late(each.shown), "from": run},
        )
        for each in chosen
        if each.key in ids
    )


def _without_late(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != _LATE}


def _notes(
    folder: Path, marks: NDArray[np.bool_], reviews: Reviews, obsolete: set[str], images: Labelled
) -> tuple[str, ...]:
    right, wrong = marks.sum(axis=1).tolist()
    notes = [f"reviewed in {folder}: {counted(right, 'label is', 'labels are')} right and {wrong:,} wrong for certain"]
    present = set(map(key_of, np.unique(images.contents[np.isin(images.contents, _hashes(reviews.by_key))]).tolist()))
    if lost := len(reviews) - len(present):
        notes.append(f"{counted(lost, 'reviewed image is', 'reviewed images are')} not among these")
    if obsolete:
        names: Sequence[str] = sorted({name for key in obsolete for name in reviews.by_key[key].labels})
        classes = set(map(normalise, images.class_names))
        lacking = [shown(name) for name in names if normalise(name) not in classes]
        answers = counted(len(obsolete), "answer names", "answers name")
        notes.append(f"{answers} classes that are not there, so these images are asked again: {listed(lacking)}")
    return tuple(notes)


def estimate_after(
    before: Scores, after: Scores, labels: NDArray[np.int64], given: NDArray[np.int64]
) -> Estimate | None:
    """Returns the estimate, updated for labels that are now known or flagged differently.

    Args:
        before: Scores of N images with their estimate.
        after: The same scores, with another quality of some labels, or other flags.
        labels: Shape (N,): the labels that were scored.
        given: Shape (N,): the given labels.
    """
    if before.estimate is None:
        return None
    readable = ~np.isnan(before.label_quality)
    flags = _flags(before, labels) & readable, _flags(after, given) & readable

    def change_of_sum(masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> float:
        sums = [
            float((1 - scores.label_quality[rows].astype(np.float64)).sum())
            for scores, rows in zip((before, after), masks, strict=True)
        ]
        return sums[1] - sums[0]

    def shifted(interval: Interval, masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> Interval:
        """Returns the interval for the second rows, clipped to the numbers that are known for certain."""
        quality, by = after.label_quality[masks[1]], change_of_sum(masks)
        low, high = float((quality == 0).sum()), float((quality != 1).sum())
        return Interval(*(min(max(each + by, low), high) for each in interval))

    flagged_before, flagged = (int(each.sum()) for each in flags)
    wrong, right, missed = before.estimate
    share = Interval(0.0, 0.0, 0.0) if right is None else right
    of_flagged = shifted(Interval(*(each * flagged_before for each in share)), flags)
    all_wrong = shifted(wrong, (readable, readable))
    of_others = shifted(missed, (readable & ~flags[0], readable & ~flags[1]))
    return Estimate(
        all_wrong,
        Interval(*(each / flagged for each in of_flagged)) if flagged else None,
        Interval(of_others.value, of_others.low, max(of_others.value, min(of_others.high, all_wrong.high))),
    )


def _flags(scores: Scores, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return scores.rule.flags(scores.label_quality, predicted=scores.predicted, given=labels)
