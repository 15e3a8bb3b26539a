"""A review of one run: issues cards, stores answers, and synchronises with other reviewers of the run."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelsieve.app.cards import CardBatch, CardMaker, IssuedCard, as_group, as_groups, merge_batches
from labelsieve.app.review_status import findings_left, precision_of, progress_of
from labelsieve.app.similar_images import SimilarityIndex, cached_features
from labelsieve.app.thumbnails import Thumbnails
from labelsieve.core.errors import DataError, RunError, did_you_mean, shown
from labelsieve.core.files import quoted
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import counted
from labelsieve.core.validation import check_keys, field_names
from labelsieve.data.images import LabelledImages
from labelsieve.review.answers import DROPPED, Answer, now, undo_of
from labelsieve.review.audit import statement
from labelsieve.review.earlier_review import unknown_to_scan
from labelsieve.review.log import AnswerLog
from labelsieve.review.queue import AUDIT_EVERY, Filters, ReviewQueue, Spec
from labelsieve.verdicts import Verdicts, require_same_images

# Maximum number of images in a group, and of cards in a request.
GROUP_SIZE, MAX_CARDS = 12, 32
_NEAR = 8
# The page shows how many more audits are needed to prove that at most this share of the labels is wrong.
_TARGET_NOISE_RATE = 0.01


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """A browser and its reviewer."""

    client: str
    reviewer: str


class Session:
    """A review of one run by any number of browsers; every method may be called from any thread.

    Args:
        verdicts: The run.
        images: Its images.
        run_folder: Folder of the run and its log of answers.
        overlap: Share of the images that two reviewers answer.
        audit: Whether one card in five is an audit.
        other_split: Those of the images that the run was compared with, read like its images, to show them for leaks.
        progress: Where to print notes.

    Raises:
        RunError: The answers cannot be read or written, or the images are not those of the run.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        images: LabelledImages,
        run_folder: Path,
        *,
        overlap: float = 0.0,
        audit: bool = True,
        other_split: Thumbnails | None = None,
        progress: Progress | None = None,
    ) -> None:
        require_same_images(verdicts.table, images)
        self.verdicts, self.images, self.run_folder, self.audit = verdicts, images, run_folder, audit
        self._names = frozenset(verdicts.class_names)
        self._options: dict[str, Any] = {
            "overlap": overlap,
            "audit": audit,
            "other_split": other_split,
            "progress": progress,
        }
        against = verdicts.run.against and verdicts.run.against.fingerprint  # of a next run perhaps another one
        self.other_split = other_split if other_split and other_split.images.fingerprint == against else None
        self._say = (progress or Progress()).say
        self.log = AnswerLog(run_folder, progress=progress)
        self.log.prepare()
        self.queue = ReviewQueue(verdicts, images.contents, overlap=overlap)
        self.thumbnails = Thumbnails(images)
        self.similarity = SimilarityIndex(verdicts, cached_features(images, verdicts))
        self._maker = CardMaker(
            queue=self.queue, similarity=self.similarity, images=images, other_split=self.other_split
        )
        self._lock = threading.RLock()
        self._issued: dict[str, IssuedCard] = {}
        self._undone: dict[str, list[Answer]] = {}
        self._turns: dict[str, tuple[int, int]] = {}  # cards of each reviewer since the start, and audits among them
        self._is_open = True
        self._sync()
        self._print_notes()
        self.reset_new_answers()

    def follow_up(self, run_folder: Path) -> Session:
        """Returns the review of another run on the same images, with the options of this one.

        Raises:
            RunError: The run cannot be read, or is for other images.
        """
        verdicts = Verdicts.load(run_folder)
        if verdicts.run.data.fingerprint != self.images.fingerprint:
            raise RunError(f"the data changed meanwhile; go on with: labelsieve review {quoted(run_folder)}")
        return Session(verdicts, self.images, run_folder, **self._options)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Rejects further answers, unless the block fails, so that the log is complete."""
        with self._lock:
            self._is_open = False
        try:
            yield
        except BaseException:
            self._is_open = True
            raise

    def _check_open(self) -> None:
        if not self._is_open:
            raise RunError("the review goes on in the new run; reload the page")

    def reset_new_answers(self) -> None:
        """Resets the number of new answers to 0."""
        self._initial_answers = len(self.log.answers())

    def summary(self) -> str:
        """Returns a summary with the number of answers, except skips and those that were taken back, and their file."""
        with self._lock:
            self._sync()
            standing = self.queue.standing.reviews().standing
        answers = [each.token for each in standing if each.kind != "skip"]
        new = {each.token for each in self.log.answers()[self._initial_answers :]}.intersection(answers)
        return f"{counted(len(new), 'new answer', 'new answers')}, {len(answers):,} in all, in {self.log.path}"

    def count_new_answers(self) -> int:
        """Returns the number of images, copies included, with answers that the scan did not use."""
        with self._lock:
            self._sync()
            contents = map(self.queue.content_of, unknown_to_scan(self.queue.standing.reviews()))
            return sum(len(self.queue.copies(content)) for content in contents if content is not None)

    def _sync(self) -> None:
        self.queue.add(self.log.follow())

    def _print_notes(self) -> None:
        if self.similarity.vectors is None:
            self._say("note: no features of this run are cached; classes are ranked by how often they are confused")
        answers = self.log.answers()
        unmatched = sum(self.queue.content_of(each.key) is None for each in answers)
        if unmatched:
            self._say(f"note: {unmatched:,} of {len(answers):,} answers in {self.log.path} are on images of other data")

    # cards

    def next_cards(self, viewer: Viewer, spec: Spec, *, count: int, after: int | None = None) -> list[dict[str, Any]]:
        """Returns the next cards for a browser and reserves them.

        Args:
            viewer: The browser.
            spec: The queue.
            count: Maximum number of cards, 1 to 32.
            after: Row of the last card, when browsing answered images.
        """
        count = max(1, min(count, MAX_CARDS))
        with self._lock:
            self._sync()
            self.queue.renew(viewer.client)
            batches = self._card_batches(viewer, spec, count, after)
        # outside of the lock, since making cards takes longest
        cards_of_batches = [self._cards(each, answers=spec.filters.state != "open") for each in batches]
        if spec.queue == "group" and spec.filters.state == "open":
            return as_groups(cards_of_batches)
        return [card for cards in cards_of_batches for card in cards]

    def _card_batches(self, viewer: Viewer, spec: Spec, count: int, after: int | None) -> list[CardBatch]:
        # no audits among findings: reviewers who are looking for copies would be biased
        if spec.filters.state != "open" or spec.queue == "audit" or spec.is_of_findings:
            return [CardBatch(self._take(viewer, spec, count, after), spec.queue)]
        if spec.queue == "group":
            return self._group(viewer, spec)
        return self._mixed(viewer, spec, count)

    def _take(self, viewer: Viewer, spec: Spec, count: int, after: int | None = None) -> list[int]:
        taken = self.queue.take(spec, client=viewer.client, reviewer=viewer.reviewer, count=count, after=after)
        return [int(row) for row in taken]

    def _mixed(self, viewer: Viewer, spec: Spec, count: int) -> list[CardBatch]:
        """Returns images of a queue, with one audit in five."""
        turns = [self._is_audit_turn(viewer) for _ in range(count)]
        audits = self._take(viewer, Spec(queue="audit"), sum(turns))
        reviews = self._take(viewer, spec, count - len(audits))
        is_empty = len(audits) < count or not self.queue.left(spec, reviewer=viewer.reviewer)
        if not reviews and is_empty:  # audits are only mixed into reviews
            self.queue.release(viewer.client, audits)
            return []
        batches = []
        for turn in turns:
            rows = (audits or reviews) if turn else (reviews or audits)
            if rows:
                batches.append(CardBatch([rows.pop(0)], "audit" if rows is audits else spec.queue))
        return merge_batches(batches)

    def _is_audit_turn(self, viewer: Viewer) -> bool:
        cards, audits = self._turns.get(viewer.reviewer, (0, 0))
        turn = self.audit and (audits + 1) * AUDIT_EVERY <= cards + 1
        self._turns[viewer.reviewer] = (cards + 1, audits + turn)
        return turn

    def _group(self, viewer: Viewer, spec: Spec) -> list[CardBatch]:
        """Returns similar images with the same given and suggested label; or one for the audit."""
        if self._is_audit_turn(viewer):
            drawn = self._take(viewer, Spec(queue="audit"), 1)
            if drawn and self.queue.left(spec, reviewer=viewer.reviewer):
                return [CardBatch(drawn, "audit")]
            self.queue.release(viewer.client, drawn)
        first = self._take(viewer, spec, 1)
        if not first:
            return []
        others = self.queue.alike(spec, first[0], reviewer=viewer.reviewer)
        rows = [first[0], *map(int, self.similarity.nearest(first[0], others, GROUP_SIZE - 1))]
        self.queue.lease(rows, viewer.client)
        cards, audits = self._turns[viewer.reviewer]
        self._turns[viewer.reviewer] = (cards + len(rows) - 1, audits)
        return [CardBatch(rows, "group")]

    def _cards(self, batch: CardBatch, *, answers: bool = False) -> list[dict[str, Any]]:
        # existing answers are only shown on request
        cards = self._maker.cards(batch.rows, queue=batch.queue, answers=answers)
        for row, card in zip(batch.rows, cards, strict=True):
            card["card"] = secrets.token_hex(8)
            self._issued[card["card"]] = IssuedCard(row, self._maker.shown(row, queue=batch.queue))
        return cards

    def near(self, row: int, labels: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the nearest images of some classes to an image."""
        classes = [label for label in labels if 0 <= label < len(self.verdicts.class_names)]
        return [{"label": label, "examples": self.similarity.examples(row, label, _NEAR)} for label in classes]

    # answers

    def answer(self, viewer: Viewer, entries: Sequence[Mapping[str, Any]], returned: Sequence[str] = ()) -> int:
        """Stores answers, all or none; they are on disk when this returns.

        Args:
            viewer: The browser.
            entries: Each with `card`, `token`, `kind` and, as they apply, `labels`, `note` and `seconds`.
            returned: Cards that are released without an answer, since they do not belong to the group.

        Returns:
            The number of new answers; repeated requests are ignored.

        Raises:
            DataError: An answer is invalid; none of them is stored.
            RunError: They cannot be written.
        """
        group = secrets.token_hex(4) if len(entries) > 1 else ""
        answers = [self._answer(viewer, each, group) for each in entries]
        with self._lock:
            self._check_open()
            count = self.log.append_all(answers)
            self._sync()
            card_ids = [*(str(each["card"]) for each in entries), *(each for each in returned if each in self._issued)]
            self.queue.release(viewer.client, [self._issued[each].row for each in card_ids])
            self.queue.renew(viewer.client)
        return count

    def _answer(self, viewer: Viewer, entry: Mapping[str, Any], group: str) -> Answer:
        issued = self._issued.get(str(entry.get("card")))
        if issued is None:
            raise DataError("this card is from an earlier start of the server; reload the page")
        if issued.is_audit and entry.get("kind") == "skip":
            raise DataError("an audit cannot skip an image, which would bias it; answer with unsure")
        if entry.get("kind") in DROPPED and entry.get("kind") != issued.shown.get("drop"):
            raise DataError("only a copy or a leak can be left out as such; answer with none of the classes")
        labels = entry.get("labels") or []
        self._check_labels(labels)
        return Answer.from_mapping(
            {
                "labels": [],
                "note": "",
                "seconds": 0.0,
                **{name: entry[name] for name in ("token", "kind", "labels", "note", "seconds") if name in entry},
                "key": self.queue.key(issued.row),
                "id": self.images.ids[issued.row],
                "given_label": self.verdicts.given_label(issued.row),
                "reviewer": viewer.reviewer,
                "time": now(),
                "mode": "audit" if issued.is_audit else "review",
                "shown": {**issued.shown, **({"group": group} if group else {})},
            }
        )

    def _check_labels(self, labels: Any) -> None:
        for label in labels if isinstance(labels, list) else [labels]:
            if not isinstance(label, str) or label not in self._names:
                hint = did_you_mean(str(label), self.verdicts.class_names)
                raise DataError(f'expected a class of the run, got "{shown(label)}"{hint}')

    def undo(self, viewer: Viewer, *, token: str) -> list[dict[str, Any]]:
        """Undoes the last answer or group of answers of a reviewer, and returns its cards.

        Args:
            viewer: The browser.
            token: Token of the request: a repeated request has no effect.

        Raises:
            RunError: The log cannot be written.
        """
        with self._lock:
            self._check_open()
            self._sync()
            undone = self._undone.get(token)
            if undone is None:
                undone = self.queue.standing.last(viewer.reviewer)
                self.log.append_all([undo_of(each, reviewer=viewer.reviewer) for each in undone])
                self._undone[token] = undone
                self._sync()
            return self._reissue(viewer, undone)

    def _reissue(self, viewer: Viewer, undone: Sequence[Answer]) -> list[dict[str, Any]]:
        contents = [(each, self.queue.content_of(each.key)) for each in undone]
        rows_of_answers = [(each, self._row_of(each, content)) for each, content in contents if content is not None]
        if not rows_of_answers:
            return []
        rows = [row for _, row in rows_of_answers]
        self.queue.lease(rows, viewer.client)
        queue = str(undone[0].shown.get("queue", "suspicious"))
        is_of_earlier_audit = queue == "audit" and undone[0].mode == "review"  # see `read_earlier_review`
        cards = self._cards(CardBatch(rows, "suspicious" if is_of_earlier_audit else queue))
        return as_group([{**card, "note": each.note} for card, (each, _) in zip(cards, rows_of_answers, strict=True)])

    def _row_of(self, answer: Answer, group: int) -> int:
        """Returns the row of an answer, or that of its first copy if the id has changed."""
        rows = self.queue.copies(group)
        ids = [self.images.ids[row] for row in rows]
        return int(rows[ids.index(answer.id) if answer.id in ids else 0])

    # other requests

    def alive(self, viewer: Viewer, spec: Spec) -> dict[str, Any]:
        """Extends the reservation of the cards of a browser, and returns the progress."""
        with self._lock:
            self._sync()
            self.queue.renew(viewer.client)
            return progress_of(self.queue, spec, reviewer=viewer.reviewer)

    def precision(self) -> dict[str, Any]:
        """Returns the precision of the flags so far."""
        with self._lock:
            self._sync()
            return precision_of(self.queue)

    def guarantees(self) -> list[dict[str, str]]:
        """Returns the guarantees of the audit so far, each with its assumption, as `labelsieve audit` does."""
        with self._lock:
            self._sync()
            reviews = self.queue.standing.reviews()
        try:
            result = statement(self.verdicts, reviews, contents=self.images.contents, at_most=_TARGET_NOISE_RATE)
        except RunError as error:  # the log has answers on other images only
            return [{"text": str(error), "assumption": ""}]
        return [each._asdict() for each in result.sentences]

    def release(self, client: str) -> None:
        """Releases the cards of a closed browser."""
        with self._lock:
            self.queue.release(client)

    def start(self, reviewer: str) -> dict[str, Any]:
        """Returns the information on the run that a page needs at its start."""
        with self._lock:
            self._sync()
            findings = findings_left(self.queue, reviewer)
        return {
            "source": self.verdicts.run.source or "labelled images",
            "images": len(self.verdicts),
            "flagged": int(self.verdicts.is_issue.sum()),
            "unreadable": int((~self.verdicts.is_readable).sum()),
            "findings": findings,
            "has_boxes": self.images.boxes is not None,
        }


def spec_of(values: Mapping[str, Any]) -> Spec:
    """Returns the queue that a page requests.

    Raises:
        SettingsError: The queue or a filter is unknown.
    """
    filters = values.get("filters") or {}
    if not isinstance(filters, Mapping):
        raise DataError(f'expected "filters" to be an object, got {shown(filters)}')
    check_keys(filters, field_names(Filters), what="a filter")
    return Spec(queue=values.get("queue", "suspicious"), filters=Filters(**filters))
