"""Reviews matched to the rows of a run: the verdicts after reviews, and the clean part of the data.

Reviews come from the log of a run (`reviews.jsonl`) and from CSV files of marks, downloaded from the report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelsieve.core.errors import DataError, listed, shown
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted
from labelsieve.core.validation import Share, check_value
from labelsieve.data.labelled import Labelled
from labelsieve.data.labels import normalise
from labelsieve.review.answers import Answer, is_right, key_of
from labelsieve.review.changes import check_classes, dropped_rows, resolved_label
from labelsieve.review.known_labels import count_images, rows_and_keys
from labelsieve.review.log import LOG, AnswerLog
from labelsieve.review.mark_files import answers_of_marks
from labelsieve.review.state import Resolved, Reviews, resolve
from labelsieve.verdicts import Verdicts, ranks

FLAGGED_ARE_DROPPED = 1.0
"""The `drop_at` that drops every flagged image, because no label quality is above 1."""

ReviewFiles = str | Path | Sequence[str | Path]
"""Run folders, logs of answers (`reviews.jsonl`) and CSV files of marks; one or several."""
RowReviews = Mapping[int, Resolved]
"""Row of a run to the reviews of its image."""


def mark_of(resolved: Resolved, given_label: str) -> str:
    """Returns the mark of a given label by reviews: `right`, `wrong` or `unsure`."""
    right = resolved.is_right(given_label)
    return "unsure" if right is None else "right" if right else "wrong"


def marks_of_rows(verdicts: Verdicts, reviews: RowReviews) -> NDArray[np.str_]:
    """Returns `right`, `wrong` or `unsure` for each of N images, "" without a review."""
    marks = np.full(len(verdicts), "", dtype="<U6")
    for row, resolved in reviews.items():
        marks[row] = mark_of(resolved, verdicts.given_label(row))
    return marks


@dataclass(frozen=True, kw_only=True, eq=False)
class Reviewed:
    """The verdicts of a run, with the reviews of its images.

    Attributes:
        verdicts: Verdicts of N images, before the reviews.
        reviews: From :func:`read_reviews`; None without reviews.
    """

    verdicts: Verdicts
    reviews: RowReviews | None

    @cached_property
    def marks(self) -> NDArray[np.str_]:
        """Shape (N,): see :func:`marks_of_rows`."""
        return marks_of_rows(self.verdicts, self.reviews or {})

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Shape (N,): class index of the label that a reviewer named, else of the given label.

        Raises:
            DataError: A review names a class that the run does not have.
        """
        verdicts, reviews = self.verdicts, self.reviews or {}
        labels = verdicts.given.copy()
        named = {name for resolved in reviews.values() for name in resolved.labels}
        check_classes(named, verdicts.class_names, where="reviews")
        index = {normalise(name): number for number, name in enumerate(verdicts.class_names)}
        for row, resolved in reviews.items():
            if (name := resolved_label(resolved, verdicts.given_label(row))) is not None:
                labels[row] = index[normalise(name)]
        return labels

    @cached_property
    def is_corrected(self) -> NDArray[np.bool_]:
        """Shape (N,): whether a reviewer named another label than the given one."""
        return np.asarray(self.labels != self.verdicts.given)

    @cached_property
    def is_dropped(self) -> NDArray[np.bool_]:
        """Shape (N,): whether reviewers left the image out as a copy, a leak or a defect."""
        reviews, is_dropped = self.reviews or {}, np.zeros(len(self.verdicts), dtype=np.bool_)
        if any(each.leaves_out for each in reviews.values()):
            is_dropped[[*dropped_rows(reviews, self.verdicts.table["id"].to_pylist())]] = True
        return is_dropped

    @cached_property
    def after(self) -> Verdicts:
        """The verdicts after the reviews: reviewers override the detector.

        A label reviewed as right is no issue and has label quality 1; a label reviewed as wrong is an issue and has
        label quality 0. The ranks are updated. If a reviewer named another class, it becomes the suggested label, with
        confidence 1; else the suggestion of the model stays. Unsure answers and reviews of unreadable images change
        nothing.
        """
        verdicts = self.verdicts
        if not self.reviews:
            return verdicts
        right, wrong = (verdicts.is_readable & (self.marks == mark) for mark in ("right", "wrong"))
        named = verdicts.is_readable & self.is_corrected
        issue = wrong | (verdicts.is_issue & ~right)
        quality = np.where(right, 1.0, np.where(wrong, 0.0, verdicts.label_quality)).astype(np.float32)
        confidence = verdicts.table["predicted_confidence"].to_numpy().astype(np.float32)
        names = pa.array(verdicts.class_names, pa.string())
        predicted = np.where(named, self.labels, verdicts.predicted)
        changed: dict[str, Any] = {
            "label_quality": quality,
            "is_label_issue": issue,
            "rank": ranks(quality, issue),
            "predicted_confidence": np.where(named, np.float32(1), confidence),
        }
        unreadable = ~verdicts.is_readable
        columns = {name: pa.array(values, mask=unreadable) for name, values in changed.items()}
        columns["predicted_label"] = names.take(pa.array(predicted, mask=unreadable))
        return dataclasses.replace(verdicts, table=with_columns(verdicts.table, columns))


def with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """Returns a table in which some columns are replaced, with the same types and positions."""
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), values)
    return table


def clean_part(verdicts: Verdicts, *, drop_at: float = FLAGGED_ARE_DROPPED) -> NDArray[np.bool_]:
    """Returns which of N images belong to the clean part: readable images that are not flagged.

    With a `drop_at` below 1, flagged images with a label quality above it are also kept, if they are flagged for their
    label quality only.

    Args:
        verdicts: Verdicts of N images, after the reviews.
        drop_at: From 0 to 1.

    Raises:
        SettingsError: `drop_at` is out of range.
    """
    check_value("drop_at", drop_at, Share)
    return verdicts.is_readable & (~verdicts.is_issue | kept_although_flagged(verdicts, drop_at=drop_at))


def kept_although_flagged(verdicts: Verdicts, *, drop_at: float) -> NDArray[np.bool_]:
    """Returns which of N images are only flagged by the threshold and have a label quality above `drop_at`."""
    quality, rule = verdicts.label_quality, verdicts.run.rule
    alone = rule.flags_by_quality_only(quality, predicted=verdicts.predicted, given=verdicts.given)
    return verdicts.is_issue & alone & (quality > np.float32(drop_at))


def read_reviews(
    files: ReviewFiles, verdicts: Verdicts, *, images: Labelled | None = None, progress: Progress | None = None
) -> dict[int, Resolved]:
    """Reads the reviews of the images of a run.

    A CSV file of marks has the columns `id` and `mark` (`right`, `wrong` or `unsure`), and optionally `given_label`, to
    check that the file matches the run, and `new_label`, the class that replaces a wrong one.

    Args:
        files: Run folders, logs of answers and CSV files of marks. All files of marks count as one reviewer; if two of
            them differ, the later file counts.
        verdicts: The verdicts of the run.
        images: The images of the run, to match answers by content, so that all copies of an image share them; None
            matches answers by id.
        progress: Receives the number of reviews.

    Returns:
        Row to the combined reviews of its image.

    Raises:
        DataError: A file cannot be read, or belongs to other images.
        RunError: A log of answers cannot be read.
    """
    reviews = reviews_of(files, verdicts, images=images, progress=progress)
    pairs = rows_and_keys(verdicts, reviews, contents=None if images is None else images.contents)
    resolved = ((row, reviews.by_key[key]) for row, key in pairs if key in reviews.by_key)
    by_row = {row: each for row, each in resolved if each.speaks_of(verdicts.given_label(row))}
    if reviews.facts and not by_row:
        raise DataError(
            f"{_names_of(files)} has reviews of other data: none of its images is in this run; take those of this run"
        )
    return by_row


def reviews_of(
    files: ReviewFiles, verdicts: Verdicts, *, images: Labelled | None = None, progress: Progress | None = None
) -> Reviews:
    """Reads reviews of images; see :func:`read_reviews`, which also matches them to the rows of the run.

    Args:
        files: Run folders, logs of answers and CSV files of marks.
        verdicts: The verdicts of the marks.
        images: Images with the ids of the run, and possibly more; provide the content of marked images.
        progress: Receives the number of marks.

    Raises:
        DataError: A file cannot be read, or belongs to other images.
        RunError: A log of answers cannot be read.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(each) for each in files]
    logs = [path for path in paths if path.is_dir() or path.suffix.lower() == ".jsonl"]
    answers = [answer for path in logs for answer in _answers_of(path, progress)]
    marks = [path for path in paths if path not in logs]
    contents = {} if images is None or not marks else dict(zip(images.ids, images.contents.tolist(), strict=True))
    marked = answers_of_marks(marks, verdicts, contents, progress)
    reviews = resolve([*answers, *marked])
    if progress is not None and answers:
        # with copies, but without images that were only skipped
        keys = reviews.by_key.keys() & {answer.key for answer in answers}
        reviewed = count_images(verdicts, reviews, keys, contents=None if images is None else images.contents)
        progress.say(f"note: the answers on {counted(reviewed, 'image', 'images')} in {listed(logs)} count")
        progress.say_notes(_contradictions(marked, resolve(answers), reviews))
    return reviews


def undecided_flags(verdicts: Verdicts, reviews: Reviews, images: Labelled) -> int:
    """Returns the number of flagged labels that no review decides, which therefore stay unchanged.

    Args:
        verdicts: The verdicts of a run.
        reviews: The reviews of its images.
        images: Images with the ids of the run, and possibly more.
    """
    flagged = set(verdicts.table["id"].filter(pa.array(verdicts.is_issue)).to_pylist())
    rows = [row for row, name in enumerate(images.ids) if name in flagged]
    resolved = ((row, reviews.by_key.get(key_of(images.contents[row]))) for row in rows)
    return sum(each is None or not _decides(each, images.class_names[images.labels[row]]) for row, each in resolved)


def _decides(resolved: Resolved, given_label: str) -> bool:
    return resolved.leaves_out or resolved.is_right(given_label) is not None


def _contradictions(marks: Sequence[Answer], before: Reviews, after: Reviews) -> Iterator[str]:
    """Yields a note if marks of the report contradict what the review decided."""
    keys = [each.key for each in marks if each.key in before.facts and _contradicts(each, before.facts[each.key])]
    if not keys:
        return
    undecided = sum(after.by_key[key].kind == "unsure" for key in keys)
    marks_contradict = counted(len(keys), "mark contradicts", "marks contradict")
    yield (
        f"{marks_contradict} answers of the review; of these labels {undecided:,} count as undecided, since as many "
        "people say one as the other"
    )


def _contradicts(mark: Answer, resolved: Resolved) -> bool:
    says, decided = is_right(mark.kind, mark.labels, mark.given_label), resolved.is_right(mark.given_label)
    if says is None or decided is None:
        return False
    return says != decided or bool(mark.labels and resolved.labels and not set(mark.labels) & set(resolved.labels))


def _names_of(files: ReviewFiles) -> str:
    return listed([files] if isinstance(files, str | Path) else files)


def _answers_of(path: Path, progress: Progress | None) -> list[Answer]:
    if not path.is_dir() and (path.name != LOG or not path.is_file()):
        state = "that is not its name" if path.is_file() else "it does not exist"
        raise DataError(f"expected a log of answers {LOG}, got {shown(path)}, but {state}; check the path")
    return AnswerLog(path if path.is_dir() else path.parent, progress=progress).answers()
