"""A review of one run: deals cards, takes answers, and keeps in step with whoever else reviews the run."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelsieve.app.cards import CardMaker, Dealt, Hand, bundled, joined
from labelsieve.app.other_split import OtherSplit
from labelsieve.app.review_status import precision_of, progress_of
from labelsieve.app.similar_images import Looks, kept_features
from labelsieve.app.thumbnails import Thumbnails
from labelsieve.core.errors import DataError, RunError, did_you_mean, shown
from labelsieve.core.progress import Progress
from labelsieve.core.validation import check_keys, field_names
from labelsieve.data.images import LabelledImages
from labelsieve.report.common import require_same_images
from labelsieve.review.answers import DROPPED, Answer, now, undo_of
from labelsieve.review.audit import statement
from labelsieve.review.earlier_review import unknown_to_scan
from labelsieve.review.log import AnswerLog
from labelsieve.review.queue import AUDIT_EVERY, Filters, ReviewQueue, Spec
from labelsieve.verdicts import Verdicts

# Images that are answered at once, and cards that a browser may ask for at a time.
GROUP, MOST_CARDS = 12, 32
_NEAR = 8
# The page says how many more images to audit until at most this share of the labels is wrong.
_WANTED = 0.01


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who asks: a browser, and the name of the person before it."""

    client: str
    reviewer: str


class Session:
    """A review of one run by any number of browsers; every method may be called from any thread.

    Args:
        verdicts: The run.
        images: Its images.
        run_folder: Where the answers are kept.
        overlap: Share of the images that two reviewers look at.
        audit: Whether one card in five is drawn for the audit.
        other_split: The images that the run was compared with, to show them beside leaks.
        progress: Where to say what a user has to know.

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
        other_split: OtherSplit | None = None,
        progress: Progress | None = None,
    ) -> None:
        require_same_images(verdicts, images)
        self.verdicts, self.images, self.run_folder, self.audit = verdicts, images, run_folder, audit
        self._names = frozenset(verdicts.class_names)
        self._options: dict[str, Any] = {
            "overlap": overlap,
            "audit": audit,
            "other_split": other_split,
            "progress": progress,
        }
        self.other_split = other_split if other_split and other_split.is_of(verdicts) else None
        self._say = (progress or Progress()).say
        self.log = AnswerLog(run_folder, progress=progress)
        self.log.prepare()
        self.queue = ReviewQueue(verdicts, images.contents, overlap=overlap)
        self.thumbnails = Thumbnails(images)
        features = kept_features(images, verdicts)
        self.has_features = features is not None
        self.looks = Looks(verdicts, features)
        self._maker = CardMaker(queue=self.queue, looks=self.looks, images=images, other_split=self.other_split)
        self._lock = threading.RLock()
        self._dealt: dict[str, Dealt] = {}
        self._undone: dict[str, list[Answer]] = {}
        # cards and audits among them, of each reviewer since the start
        self._turns: dict[str, tuple[int, int]] = {}
        self._is_open = True
        self._follow()
        self._tell()
        self.count_from_here()

    def follow_up(self, run_folder: Path) -> Session:
        """Returns the review of another run on the same images, with the options of this one.

        Raises:
            RunError: The run cannot be read, or is one of other images.
        """
        verdicts = Verdicts.load(run_folder)
        if verdicts.run.data.fingerprint != self.images.fingerprint:
            raise RunError(f"the images or labels changed meanwhile; go on with: labelsieve review {run_folder}")
        return Session(verdicts, self.images, run_folder, **self._options)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Takes no more answers from here on, unless the block fails: what the log holds by then is all."""
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

    def count_from_here(self) -> None:
        """Counts the answers as new that come from here on."""
        self._before = len(self.log.answers())

    def summary(self) -> str:
        """Says how many answers there are, and where."""
        answers = len(self.log.answers())
        return f"{answers - self._before:,} new answers, {answers:,} in all, in {self.log.path}"

    def new_facts(self) -> int:
        """Returns how many images have answers that the scan did not know."""
        with self._lock:
            self._follow()
            return unknown_to_scan(self.queue.standing.reviews())

    def _follow(self) -> None:
        self.queue.add(self.log.follow())

    def _tell(self) -> None:
        if not self.has_features:
            self._say("note: no features of this run are cached; classes are ranked by how often they are confused")
        answers = self.log.answers()
        foreign = sum(self.queue.group_of(each.key) is None for each in answers)
        if foreign:
            self._say(f"note: {foreign:,} of {len(answers):,} answers in {self.log.path} are on images of other data")

    # cards

    def deal(self, viewer: Viewer, spec: Spec, *, count: int, after: int | None = None) -> list[dict[str, Any]]:
        """Returns the next cards for a browser and keeps them for it.

        Args:
            viewer: Who asks.
            spec: The queue.
            count: How many at most, 1 to 32.
            after: Row of the last card, where images that were answered are looked through.
        """
        count = max(1, min(count, MOST_CARDS))
        with self._lock:
            self._follow()
            self.queue.renew(viewer.client)
            hands = self._hands(viewer, spec, count, after)
        # what cards show takes longest, and answers need not wait for it
        made = [self._cards(each, answers=spec.filters.state != "open") for each in hands]
        if spec.queue == "group" and spec.filters.state == "open":
            return [card for cards in made for card in bundled(cards)]
        return [card for cards in made for card in cards]

    def _hands(self, viewer: Viewer, spec: Spec, count: int, after: int | None) -> list[Hand]:
        if spec.queue == "audit":
            return [Hand(self._take(viewer, spec, count), "audit", "audit")]
        if spec.filters.state != "open":
            return [Hand(self._take(viewer, spec, count, after), "review", spec.queue)]
        if spec.is_of_findings:  # no audit is drawn here: its images would be looked at with copies in mind
            return [Hand(self._take(viewer, spec, count), "review", spec.queue)]
        if spec.queue == "group":
            return self._group(viewer, spec)
        return self._mixed(viewer, spec, count)

    def _take(self, viewer: Viewer, spec: Spec, count: int, after: int | None = None) -> list[int]:
        taken = self.queue.take(spec, client=viewer.client, reviewer=viewer.reviewer, count=count, after=after)
        return [int(row) for row in taken]

    def _mixed(self, viewer: Viewer, spec: Spec, count: int) -> list[Hand]:
        """Returns images of a queue, of which one in five is drawn for the audit."""
        turns = [self._is_audit_turn(viewer) for _ in range(count)]
        audits = self._take(viewer, Spec(queue="audit"), sum(turns))
        reviews = self._take(viewer, spec, count - len(audits))
        is_empty = len(audits) < count or not self.queue.left(spec, reviewer=viewer.reviewer)
        if not reviews and is_empty:  # an audit goes with a review and is no end in itself
            self.queue.release(viewer.client, audits)
            return []
        hands = []
        for turn in turns:
            rows = (audits or reviews) if turn else (reviews or audits)
            if rows:
                is_audit = rows is audits
                hands.append(Hand([rows.pop(0)], *(("audit", "audit") if is_audit else ("review", spec.queue))))
        return joined(hands)

    def _is_audit_turn(self, viewer: Viewer) -> bool:
        cards, audits = self._turns.get(viewer.reviewer, (0, 0))
        turn = self.audit and (audits + 1) * AUDIT_EVERY <= cards + 1
        self._turns[viewer.reviewer] = (cards + 1, audits + turn)
        return turn

    def _group(self, viewer: Viewer, spec: Spec) -> list[Hand]:
        """Returns images that look alike and have the same given and suggested label; or one for the audit."""
        if self._is_audit_turn(viewer):
            drawn = self._take(viewer, Spec(queue="audit"), 1)
            if drawn and self.queue.left(spec, reviewer=viewer.reviewer):
                return [Hand(drawn, "audit", "audit")]
            self.queue.release(viewer.client, drawn)
        first = self._take(viewer, spec, 1)
        if not first:
            return []
        others = self.queue.alike(spec, first[0], reviewer=viewer.reviewer)
        rows = [first[0], *map(int, self.looks.nearest(first[0], others, GROUP - 1))]
        self.queue.lease(rows, viewer.client)
        cards, audits = self._turns[viewer.reviewer]
        self._turns[viewer.reviewer] = (cards + len(rows) - 1, audits)
        return [Hand(rows, "review", "group")]

    def _cards(self, hand: Hand, *, answers: bool = False) -> list[dict[str, Any]]:
        # what others answered is shown to whoever looks for it, and to nobody else
        cards = self._maker.cards(hand.rows, mode=hand.mode, queue=hand.queue, answers=answers)
        for row, card in zip(hand.rows, cards, strict=True):
            card["card"] = secrets.token_hex(8)
            self._dealt[card["card"]] = Dealt(row, hand.mode, self._maker.shown(row, mode=hand.mode, queue=hand.queue))
        return cards

    def near(self, row: int, labels: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the nearest images of some classes beside an image."""
        classes = [label for label in labels if 0 <= label < len(self.verdicts.class_names)]
        return [{"label": label, "examples": self.looks.examples(row, label, _NEAR)} for label in classes]

    # answers

    def answer(self, viewer: Viewer, given: Sequence[Mapping[str, Any]], back: Sequence[str] = ()) -> int:
        """Keeps answers, all or none: they are on the disk when this returns.

        Args:
            viewer: Who answers.
            given: Each with `card`, `token`, `kind` and, as they apply, `labels`, `note` and `seconds`.
            back: Cards that are given back without an answer, since they do not belong to a group.

        Returns:
            How many of them are new; those that were sent before are passed over.

        Raises:
            DataError: An answer makes no sense; none of them is kept.
            RunError: They cannot be written.
        """
        group = secrets.token_hex(4) if len(given) > 1 else ""
        answers = [self._answer(viewer, each, group) for each in given]
        with self._lock:
            self._check_open()
            kept = self.log.append_all(answers)
            self._follow()
            done = [*(str(each["card"]) for each in given), *(each for each in back if each in self._dealt)]
            self.queue.release(viewer.client, [self._dealt[each].row for each in done])
            self.queue.renew(viewer.client)
        return kept

    def _answer(self, viewer: Viewer, given: Mapping[str, Any], group: str) -> Answer:
        dealt = self._dealt.get(str(given.get("card")))
        if dealt is None:
            raise DataError("this card is from an earlier start of the server; reload the page")
        if dealt.mode == "audit" and given.get("kind") == "skip":
            raise DataError("an audit cannot skip an image, which would bias it; answer with unsure")
        if given.get("kind") in DROPPED and given.get("kind") != dealt.shown.get("drop"):
            raise DataError("only a copy or a leak can be left out as such; answer with none of the classes")
        labels = given.get("labels") or []
        self._check_labels(labels)
        return Answer.from_mapping(
            {
                "labels": [],
                "note": "",
                "seconds": 0.0,
                **{name: given[name] for name in ("token", "kind", "labels", "note", "seconds") if name in given},
                "key": self.queue.key(dealt.row),
                "id": self.images.ids[dealt.row],
                "given_label": self.queue.given_label(dealt.row),
                "reviewer": viewer.reviewer,
                "time": now(),
                "mode": dealt.mode,
                "shown": {**dealt.shown, **({"group": group} if group else {})},
            }
        )

    def _check_labels(self, labels: Any) -> None:
        for label in labels if isinstance(labels, list) else [labels]:
            if not isinstance(label, str) or label not in self._names:
                hint = did_you_mean(str(label), self.verdicts.class_names)
                raise DataError(f'expected a class of the run, got "{shown(label)}"{hint}')

    def undo(self, viewer: Viewer, *, token: str) -> list[dict[str, Any]]:
        """Takes the last answer of a reviewer back, or the last group as a whole, and returns its cards again.

        Args:
            viewer: Who asks.
            token: Of this request: one that is sent again takes nothing more back.

        Raises:
            RunError: That cannot be written.
        """
        with self._lock:
            self._check_open()
            self._follow()
            undone = self._undone.get(token)
            if undone is None:
                undone = self.queue.standing.last(viewer.reviewer)
                self.log.append_all([undo_of(each, reviewer=viewer.reviewer) for each in undone])
                self._undone[token] = undone
                self._follow()
            return self._again(viewer, undone)

    def _again(self, viewer: Viewer, undone: Sequence[Answer]) -> list[dict[str, Any]]:
        places = [(each, self.queue.group_of(each.key)) for each in undone]
        known = [(each, self._row_of(each, group)) for each, group in places if group is not None]
        if not known:
            return []
        rows = [row for _, row in known]
        self.queue.lease(rows, viewer.client)
        queue = str(undone[0].shown.get("queue", "suspicious"))
        cards = self._cards(Hand(rows, undone[0].mode, queue))
        return bundled([{**card, "note": each.note} for card, (each, _) in zip(cards, known, strict=True)])

    def _row_of(self, answer: Answer, group: int) -> int:
        """Returns the row that an answer was given on, or the first of its copies if the id is another one now."""
        rows = self.queue.copies(group)
        ids = [self.images.ids[row] for row in rows]
        return int(rows[ids.index(answer.id) if answer.id in ids else 0])

    # the rest

    def alive(self, viewer: Viewer, spec: Spec) -> dict[str, Any]:
        """Keeps the cards of a browser for longer, and returns how far the review is."""
        with self._lock:
            self._follow()
            self.queue.renew(viewer.client)
            return progress_of(self.queue, spec, reviewer=viewer.reviewer)

    def precision(self) -> dict[str, Any]:
        """Returns how often the flags were right so far."""
        with self._lock:
            self._follow()
            return precision_of(self.queue)

    def guarantees(self) -> list[dict[str, str]]:
        """Returns what the audit proves so far, each sentence with its assumption; `labelsieve audit` says the same."""
        with self._lock:
            self._follow()
            reviews = self.queue.standing.reviews()
        try:
            found = statement(self.verdicts, reviews, contents=self.images.contents, at_most=_WANTED)
        except RunError as error:  # the log has answers on other images only
            return [{"text": str(error), "assumption": ""}]
        return [each._asdict() for each in found.sentences]

    def release(self, client: str) -> None:
        """Gives the cards of a browser back that is closed."""
        with self._lock:
            self.queue.release(client)

    def start(self) -> dict[str, Any]:
        """Returns what a page has to know of the run before its first card."""
        issues = self.verdicts.is_issue
        return {
            "source": self.verdicts.run.source or "labelled images",
            "images": len(self.verdicts),
            "flagged": int(issues.sum()),
            "unreadable": int((~self.verdicts.is_readable).sum()),
            "classes": len(self.verdicts.class_names),
            "has_features": self.has_features,
            "audit": self.audit,
            "findings": self.queue.findings.sizes,
            "has_boxes": self.images.boxes is not None,
        }


def spec_of(values: Mapping[str, Any]) -> Spec:
    """Returns the queue that a page asks for.

    Raises:
        SettingsError: It asks for something unknown.
    """
    filters = values.get("filters") or {}
    if not isinstance(filters, Mapping):
        raise DataError(f'expected "filters" to be an object, got {shown(filters)}')
    check_keys(filters, field_names(Filters), what="a filter")
    return Spec(queue=values.get("queue", "suspicious"), filters=Filters(**filters))
