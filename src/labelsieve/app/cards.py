"""Cards: the data of an image that a browser shows, and the part of it that the log stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from labelsieve.app.similar_images import SimilarityIndex
from labelsieve.app.thumbnails import Thumbnails
from labelsieve.curation.findings import KINDS
from labelsieve.data.images import LabelledImages
from labelsieve.review.finding_queues import QueuedFinding
from labelsieve.review.queue import ReviewQueue
from labelsieve.review.state import Resolved

# Number of classes to choose with one key, and of example images of each.
TOP, EXAMPLES = 3, 4


class IssuedCard(NamedTuple):
    """A card that was sent to a browser. The server stores what was shown, and does not trust the browser for it."""

    row: int
    shown: dict[str, Any]

    @property
    def is_audit(self) -> bool:
        """Returns whether the image was drawn at random and shown blind."""
        return bool(self.shown["queue"] == "audit")


class CardBatch(NamedTuple):
    """Rows of images that are sent to a browser as cards of a queue."""

    rows: list[int]
    queue: str


@dataclass(frozen=True, kw_only=True)
class CardMaker:
    """Makes cards of images.

    Attributes:
        queue: The queues of the run.
        similarity: Finds similar classes and images.
        other_split: Those of the images that leaks refer to, if available.
        images: The images, with the labels of all annotators if there are several.
    """

    queue: ReviewQueue
    similarity: SimilarityIndex
    images: LabelledImages
    other_split: Thumbnails | None = None

    def cards(self, rows: Sequence[int], *, queue: str, answers: bool) -> list[dict[str, Any]]:
        """Returns the card of each image.

        In an audit a card has neither the suggested class nor whether the label was flagged, and the classes are in
        their usual order.

        Args:
            rows: The images.
            queue: Their queue; cards of findings contain the finding.
            answers: Whether to show existing answers, except in an audit.
        """
        similar, is_audit = self.similarity.classes(rows, TOP + 2), queue == "audit"
        cards = [self._card(row, classes, is_audit) for row, classes in zip(rows, similar, strict=True)]
        if not is_audit:
            for row, card in zip(rows, cards, strict=True):
                card["finding"] = self._finding(queue, row)
                card |= {"answer": answer_of(self.queue.resolved(row))} if answers else {}
        return cards

    def _card(self, row: int, similar_classes: list[int], is_audit: bool) -> dict[str, Any]:
        verdicts = self.queue.verdicts
        given, suggested = int(verdicts.given[row]), int(verdicts.predicted[row])
        readable = bool(verdicts.is_readable[row])
        card: dict[str, Any] = {
            "row": row,
            "mode": "audit" if is_audit else "review",
            "id": verdicts.table["id"][row].as_py(),
            "given": given,
            "error": verdicts.table["error"][row].as_py() or "",
            "copies": self._copies(row),
            "box": self._box(row),
        }
        if is_audit:
            top = sorted(dict.fromkeys([*similar_classes[: TOP - 1], given]))[:TOP]
        else:
            top = list(dict.fromkeys([suggested, given, *similar_classes]))[:TOP] if readable else [given]
            card |= {
                "suggested": suggested if readable else None,
                "p_clean": _number(verdicts.table["label_quality"][row].as_py()),
                "confidence": _number(verdicts.table["predicted_confidence"][row].as_py()),
                "rank": verdicts.table["rank"][row].as_py(),
                "flagged": bool(verdicts.is_issue[row]),
                "votes": self._votes(row),
            }
        card["top"] = [{"label": each, "examples": self.similarity.examples(row, each, EXAMPLES)} for each in top]
        return card

    def _box(self, row: int) -> dict[str, Any] | None:
        """Returns the image of a box and the centre of the box in it; None if rows are images."""
        boxes = self.images.boxes
        if boxes is None:
            return None
        left, top, width, height = boxes.sides[row].tolist()
        middle = [left + width / 2, top + height / 2]
        return {
            "image": self.images.file_name(row),
            "middle": middle if all(map(isfinite, middle)) else None,
            "is_relative": boxes.is_relative,
        }

    def _votes(self, row: int) -> list[dict[str, Any]]:
        """Returns the labels of an image with the names of their annotators, the most frequent first."""
        annotations = self.images.annotations
        if annotations is None:
            return []
        names_by_label: dict[int, list[str]] = {}
        for name, label in zip(annotations.names, annotations.labels[row].tolist(), strict=True):
            if label >= 0:
                names_by_label.setdefault(label, []).append(name)
        return [
            {"label": label, "by": names_by_label[label]}
            for label in sorted(names_by_label, key=lambda each: (-len(names_by_label[each]), each))
        ]

    def _finding(self, queue: str, row: int) -> dict[str, Any] | None:
        """Returns the finding of an image and the other image that it refers to; None in other queues."""
        finding = self.queue.findings.finding(queue, row)
        if finding is None:
            return None
        other = finding.other_row
        path, label = self._other(finding)
        return {
            "title": KINDS[finding.kind].title,
            "score": _number(finding.score),
            "drop": finding.drop,
            "other": path,
            "other_id": finding.other_id,
            "other_label": label,
            "is_elsewhere": other < 0,
            "other_answer": answer_of(self.queue.resolved(other)) if other >= 0 else None,
            "is_conflict": queue == "conflicts",
        }

    def _other(self, finding: QueuedFinding) -> tuple[str | None, str | None]:
        """Returns URL and label of the other image of a finding; None if there is none."""
        if finding.other_row >= 0:
            return self._image_url(finding.other_row), self.queue.verdicts.given_label(finding.other_row)
        if self.other_split is None or (row := self.other_split.rows.get(finding.other_id)) is None:
            return None, None
        images = self.other_split.images
        return f"/others/{row}", images.class_names[int(images.labels[row])]

    def _image_url(self, row: int) -> str:
        """Returns the URL of an image to show next to another; a box is shown as on its card."""
        return f"/images/{row}" if self.images.boxes is None else f"/thumbnails/large/{row}"

    def _copies(self, row: int) -> list[dict[str, Any]]:
        """Returns id and given label of other images with the same content, to which an answer applies, too."""
        verdicts = self.queue.verdicts
        others = [int(each) for each in self.queue.copies(int(self.queue.content_ids[row])) if each != row]
        return [{"id": verdicts.table["id"][each].as_py(), "given": int(verdicts.given[each])} for each in others]

    def shown(self, row: int, *, queue: str) -> dict[str, Any]:
        """Returns what the log stores of a card: the verdict, and for an audit the sampling stratum.

        Args:
            row: The image.
            queue: The queue of the card.
        """
        verdicts, audit = self.queue.verdicts, self.queue.design
        record = {
            "queue": queue,
            "suggested_label": verdicts.table["predicted_label"][row].as_py(),
            "p_clean": _number(verdicts.table["label_quality"][row].as_py()),
            "flagged": bool(verdicts.is_issue[row]),
        }
        if (finding := self.queue.findings.finding(queue, row)) is not None:
            record |= {"finding": finding.kind, "other_id": finding.other_id, "drop": finding.drop}
        if queue == "audit":
            stratum = int(audit.stratum[row])
            record |= {"stratum": stratum, "images_in_stratum": int(audit.sizes[stratum])}
        return record


def answer_of(answer: Resolved | None) -> dict[str, Any] | None:
    """Returns the entries of a card for an existing answer."""
    if answer is None:
        return None
    return {
        "kind": answer.kind,
        "labels": list(answer.labels),
        "keeps": answer.keeps,
        "reviewers": list(answer.reviewers),
        "note": answer.note,
        "disputed": answer.disputed,
        "votes": [
            {"reviewer": each.reviewer, "kind": each.kind, "labels": list(each.labels)} for each in answer.on_label
        ],
    }


def _number(value: float | None) -> float | None:
    """Rounds a number to six digits that count, so that a small one is not 0; None if it is missing or NaN."""
    return None if value is None or value != value else float(f"{value:.6g}")


def merge_batches(batches: list[CardBatch]) -> list[CardBatch]:
    """Merges consecutive batches of the same queue: cards are made faster together."""
    merged: list[CardBatch] = []
    for batch in batches:
        if merged and merged[-1].queue == batch.queue:
            merged[-1].rows.extend(batch.rows)
        else:
            merged.append(batch)
    return merged


def as_group(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Combines several cards to one card with members."""
    return [{**cards[0], "members": cards}] if len(cards) > 1 else cards


def as_groups(cards_of_batches: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Combines the cards of each batch; a card of the review has `is_alone` if it has no look-alikes."""
    cards = [card for batch in cards_of_batches for card in as_group(batch)]
    return [{**card, "is_alone": "members" not in card and card["mode"] == "review"} for card in cards]
