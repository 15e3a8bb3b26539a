"""What a browser is shown of an image, and what the log keeps of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

from labelsieve.app.other_split import OtherSplit
from labelsieve.app.similar_images import Looks
from labelsieve.curation.findings import KINDS
from labelsieve.data.images import LabelledImages
from labelsieve.review.finding_queues import QueuedFinding
from labelsieve.review.queue import ReviewQueue
from labelsieve.review.state import Resolved

# Classes to choose with one key, and images beside each of them.
TOP, EXAMPLES = 3, 4


class Dealt(NamedTuple):
    """A card that a browser has, as the server remembers it: what was shown is not taken from the browser."""

    row: int
    mode: str
    shown: dict[str, Any]


class Hand(NamedTuple):
    """Images that a browser is to have, and how."""

    rows: list[int]
    mode: str
    queue: str


@dataclass(frozen=True, kw_only=True)
class CardMaker:
    """Makes cards of images.

    Attributes:
        queue: The queues of the run.
        looks: Knows which classes and images look alike.
        other_split: Has the images beside leaks, where they are at hand.
        images: What is shown, with what each annotator said where there are several.
    """

    queue: ReviewQueue
    looks: Looks
    images: LabelledImages
    other_split: OtherSplit | None = None

    def cards(self, rows: Sequence[int], *, mode: str, queue: str, answers: bool) -> list[dict[str, Any]]:
        """Returns what a browser needs to show each image.

        In an audit a card says neither what was suggested nor whether the label was flagged, and the classes to choose
        from stand in their usual order.

        Args:
            rows: The images.
            mode: `review` or `audit`.
            queue: The queue they come from; of findings, a card says what was found.
            answers: Whether to show the answers that are there.
        """
        liked = self.looks.classes(rows, TOP + 2)
        cards = [self._card(row, found, mode) for row, found in zip(rows, liked, strict=True)]
        if mode == "review":
            for row, card in zip(rows, cards, strict=True):
                card["finding"] = self._finding(queue, row)
        if answers and mode == "review":
            for row, card in zip(rows, cards, strict=True):
                card["answer"] = answer_of(self.queue.resolved(row))
        return cards

    def _card(self, row: int, liked: list[int], mode: str) -> dict[str, Any]:
        verdicts, blind = self.queue.verdicts, mode == "audit"
        given, suggested = int(verdicts.given[row]), int(verdicts.predicted[row])
        readable = bool(verdicts.is_readable[row])
        card: dict[str, Any] = {
            "row": row,
            "mode": mode,
            "id": verdicts.table["id"][row].as_py(),
            "given": given,
            "error": verdicts.table["error"][row].as_py() or "",
            "copies": self._copies(row),
            "box": self._box(row),
        }
        if blind:
            top = sorted(dict.fromkeys([*liked[: TOP - 1], given]))[:TOP]
        else:
            top = list(dict.fromkeys([suggested, given, *liked]))[:TOP] if readable else [given]
            card |= {
                "suggested": suggested if readable else None,
                "p_clean": _number(verdicts.table["label_quality"][row].as_py()),
                "confidence": _number(verdicts.table["predicted_confidence"][row].as_py()),
                "rank": verdicts.table["rank"][row].as_py(),
                "flagged": bool(verdicts.is_issue[row]),
                "votes": self._votes(row),
            }
        card["top"] = [{"label": each, "examples": self.looks.examples(row, each, EXAMPLES)} for each in top]
        return card

    def _box(self, row: int) -> dict[str, Any] | None:
        """Returns the image that a box is from and where its middle is in it; None where the row is an image."""
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
        """Returns the classes that annotators gave an image and who they are, the class of most of them first."""
        annotations = self.images.annotations
        if annotations is None:
            return []
        by: dict[int, list[str]] = {}
        for name, label in zip(annotations.names, annotations.labels[row].tolist(), strict=True):
            if label >= 0:
                by.setdefault(label, []).append(name)
        return [{"label": label, "by": by[label]} for label in sorted(by, key=lambda each: (-len(by[each]), each))]

    def _finding(self, queue: str, row: int) -> dict[str, Any] | None:
        """Returns why an image is in a queue of findings, and what is beside it; None in other queues."""
        found = self.queue.findings.finding(queue, row)
        if found is None:
            return None
        other = found.other_row
        path, label = self._other(found)
        return {
            "title": KINDS[found.kind].title,
            "score": _number(found.score),
            "drop": found.drop,
            "other": path,
            "other_id": found.other_id,
            "other_label": label,
            "is_elsewhere": other < 0,
            "other_answer": answer_of(self.queue.resolved(other)) if other >= 0 else None,
            "is_conflict": queue == "conflicts",
        }

    def _other(self, found: QueuedFinding) -> tuple[str | None, str | None]:
        """Returns where the page gets the image beside an image, and the label of that; None where there is none."""
        if found.other_row >= 0:
            return self._place_of(found.other_row), self.queue.given_label(found.other_row)
        row = None if self.other_split is None else self.other_split.row(found.other_id)
        if self.other_split is None or row is None:
            return None, None
        return f"/others/{row}", self.other_split.label(row)

    def _place_of(self, row: int) -> str:
        """Returns where the page gets an image to be shown beside another, a box as on its own card."""
        return f"/images/{row}" if self.images.boxes is None else f"/thumbnails/large/{row}"

    def _copies(self, row: int) -> list[dict[str, Any]]:
        """Returns id and given label of the other images of equal content: an answer counts for them, too."""
        verdicts = self.queue.verdicts
        others = [int(each) for each in self.queue.copies(int(self.queue.group[row])) if each != row]
        return [{"id": verdicts.table["id"][each].as_py(), "given": int(verdicts.given[each])} for each in others[:TOP]]

    def shown(self, row: int, *, mode: str, queue: str) -> dict[str, Any]:
        """Returns what the log keeps of a card: what the verdicts said, and of an audit how the image was drawn."""
        verdicts, audit = self.queue.verdicts, self.queue.design
        said = {
            "queue": "audit" if mode == "audit" else queue,
            "suggested_label": verdicts.table["predicted_label"][row].as_py(),
            "p_clean": _number(verdicts.table["label_quality"][row].as_py()),
            "flagged": bool(verdicts.is_issue[row]),
        }
        if mode == "review" and (found := self.queue.findings.finding(queue, row)) is not None:
            said |= {"finding": found.kind, "other_id": found.other_id, "drop": found.drop}
        if mode == "audit":
            stratum = int(audit.stratum[row])
            said |= {"stratum": stratum, "images_in_stratum": int(audit.sizes[stratum])}
        return said


def answer_of(found: Resolved | None) -> dict[str, Any] | None:
    """Returns what a card says of an answer that is there."""
    if found is None:
        return None
    return {
        "kind": found.kind,
        "labels": list(found.labels),
        "reviewers": list(found.reviewers),
        "note": found.note,
        "disputed": found.disputed,
    }


def _number(value: float | None) -> float | None:
    """Returns a number with the digits that count; None where there is none."""
    return None if value is None or value != value else round(float(value), 6)


def joined(hands: list[Hand]) -> list[Hand]:
    """Joins those in a row that are alike: cards are made quicker together."""
    found: list[Hand] = []
    for hand in hands:
        if found and found[-1].mode == hand.mode:
            found[-1].rows.extend(hand.rows)
        else:
            found.append(hand)
    return found


def bundled(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns several cards as one that has them as its members."""
    return [{**cards[0], "members": cards}] if len(cards) > 1 else cards
