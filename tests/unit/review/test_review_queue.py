"""Which image comes next for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelsieve.core.errors import DataError, SettingsError
from labelsieve.review import Answer
from labelsieve.review.queue import LEASE, Filters, ReviewQueue, Spec, is_shared
from labelsieve.review.sampling import design
from small_log import answer
from small_reviews import SmallRun, small_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    return small_run(tmp_path_factory.mktemp("small"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(made: SmallRun, clock: Clock) -> ReviewQueue:
    return ReviewQueue(made.verdicts, made.images.contents, clock=clock)


def spec(queue: Any = "suspicious", **filters: Any) -> Spec:
    return Spec(queue=queue, filters=Filters(**filters))


def take(
    queue: ReviewQueue, asked: Spec | None = None, *, count: int = 99, who: str = "ann", **options: Any
) -> list[int]:
    client = options.pop("client", f"browser of {who}")
    taken = queue.take(asked or spec(), client=client, reviewer=who, count=count, **options)
    return [int(row) for row in taken]


def said(queue: ReviewQueue, row: int, kind: str = "none", *labels: str, who: str = "ann", token: str = "") -> Answer:
    key = int(queue.key(row), 16)
    return answer(token or f"{who}{row}{kind}", key=key, kind=kind, labels=labels, reviewer=who, given_label="cat")


def test_the_most_suspicious_come_first(queue: ReviewQueue) -> None:
    assert take(queue) == list(range(8))
    assert queue.left(spec(), reviewer="ann") == 8 == queue.size(spec())


FILTERED: list[tuple[dict[str, Any], list[int]]] = [
    ({"which": "all"}, list(range(12))),
    ({"which": "unflagged"}, [8, 9, 10]),
    ({"which": "unreadable"}, [11]),
    ({"given": "dog"}, [1, 4, 7]),
    ({"given": "dog", "suggested": "cat"}, []),
    ({"suggested": "cat"}, [2, 5]),
    ({"low": 0.1, "high": 0.25}, [2, 3, 4, 5]),
    ({"text": "IMG-03"}, [3]),
    ({"text": "MG-0", "which": "all"}, list(range(10))),
    ({"state": "answered"}, []),
    ({"state": "all"}, list(range(8))),
]


def test_filters(subtests: pytest.Subtests, made: SmallRun) -> None:
    for filters, rows in FILTERED:
        with subtests.test(**filters):
            queue = ReviewQueue(made.verdicts, made.images.contents, clock=Clock())
            assert take(queue, spec(**filters)) == rows


def test_classes_and_pairs_come_with_most_images_first(queue: ReviewQueue) -> None:
    # flagged: three each of cat and dog, two of fox
    assert take(queue, spec("class")) == [0, 3, 6, 1, 4, 7, 2, 5]
    queue.release("browser of ann")
    assert take(queue, spec("pair")) == [0, 3, 6, 1, 4, 7, 2, 5]
    queue.release("browser of ann")
    assert take(queue, spec("class", which="all"))[:4] == [0, 3, 6, 9]


def test_the_audit_has_flagged_and_unflagged_images_in_the_order_of_its_design(
    queue: ReviewQueue, made: SmallRun
) -> None:
    expected = design(made.verdicts, seed=0).order.tolist()
    assert sorted(expected) == list(range(11))
    assert take(queue, spec("audit", given="dog")) == expected, "filters would bias an audit"


def test_a_skip_in_the_review_does_not_keep_an_image_from_the_audit(queue: ReviewQueue) -> None:
    order = queue.design.order.tolist()
    queue.add([said(queue, order[0], "skip"), said(queue, order[1])])
    assert take(queue, spec("audit")) == [order[0], *order[2:]]


@pytest.mark.parametrize("state", ["answered", "skipped", "all"])
def test_an_audit_asks_for_what_is_open_whatever_the_filters_say(queue: ReviewQueue, state: str) -> None:
    order = queue.design.order.tolist()
    queue.add([said(queue, order[0])])
    assert take(queue, spec("audit", state=state)) == order[1:]


def test_what_was_answered_does_not_come_again(queue: ReviewQueue) -> None:
    queue.add([said(queue, 0), said(queue, 1, "unsure"), said(queue, 2, "skip"), said(queue, 3, who="bob")])
    assert take(queue) == [4, 5, 6, 7]
    assert take(queue, spec(state="skipped"), who="ann") == [2]
    assert take(queue, spec(state="unsure"), client="2") == [1]
    assert take(queue, spec(state="answered"), client="3") == [0, 3]
    queue.release("browser of ann")
    assert take(queue, who="bob") == [2, 4, 5, 6, 7], "what ann has skipped is open to bob"


def test_an_answer_that_is_taken_back_comes_again(queue: ReviewQueue) -> None:
    queue.add([said(queue, 0, token="1")])
    assert queue.outcome[0] == 0 and take(queue, count=1) == [1]
    queue.add([answer("2", kind="undo", undoes="1")])
    assert queue.outcome[0] == -1 and take(queue, count=1) == [0]


def test_an_answer_ends_a_skip(queue: ReviewQueue) -> None:
    queue.add([said(queue, 0, "skip"), said(queue, 0)])
    assert take(queue, spec(state="skipped")) == []
    assert take(queue, spec(state="answered")) == [0]


def test_an_image_is_asked_again_if_the_class_of_its_answer_is_gone(queue: ReviewQueue) -> None:
    queue.add([said(queue, 0, "label", "wolf"), said(queue, 1, "label", "dog")])
    assert take(queue) == [0, *range(2, 8)]
    assert queue.outcome[:2].tolist() == [-1, 1]


def test_a_class_that_is_spelled_otherwise_by_now_is_not_asked_again(queue: ReviewQueue) -> None:
    queue.add([said(queue, 0, "label", "CAT"), said(queue, 1, "label", "Fox")])
    assert take(queue) == list(range(2, 8))
    assert queue.outcome[:2].tolist() == [1, 0]


def test_that_a_label_is_wrong_says_nothing_of_that_of_a_copy(made: SmallRun) -> None:
    contents = made.images.contents.copy()
    contents[4] = contents[0]  # given cat and dog
    queue = ReviewQueue(made.verdicts, contents)
    queue.add([said(queue, 0, "wrong")])
    assert queue.outcome[[0, 4]].tolist() == [0, -1]


def test_answers_on_other_images_are_passed_over(queue: ReviewQueue) -> None:
    queue.add([answer("other", key=12345, kind="none")])
    assert take(queue) == list(range(8))


def test_a_card_goes_to_one_browser_at_a_time(queue: ReviewQueue, clock: Clock) -> None:
    assert take(queue, count=3) == [0, 1, 2]
    assert take(queue, count=3, who="bob") == [3, 4, 5]
    assert take(queue, count=3) == [6, 7], "what it has on its screen does not come again"
    queue.release("browser of ann", [1])
    assert take(queue, who="bob") == [1]
    clock.now = LEASE - 1
    queue.renew("browser of bob")
    clock.now = LEASE + 1
    assert take(queue, who="cyd") == [0, 2, 6, 7], "those of ann have expired"
    queue.release("browser of bob")
    assert take(queue, who="dan") == [1, 3, 4, 5]


def test_after_passes_over_what_was_shown(queue: ReviewQueue) -> None:
    assert take(queue, spec(state="all"), after=5) == [6, 7]
    assert take(queue, spec(state="all"), after=11, client="2") == [0, 1, 2, 3, 4, 5], "a row that is not in the queue"


def test_alike_are_the_free_images_of_the_same_pair(queue: ReviewQueue) -> None:
    queue.add([said(queue, 3)])
    assert queue.alike(spec(), 0, reviewer="ann").tolist() == [6]
    assert take(queue, count=7, who="bob")[-1] == 7
    assert queue.alike(spec(), 0, reviewer="ann").tolist() == []


def test_copies_share_their_answer(made: SmallRun) -> None:
    contents = made.images.contents.copy()
    contents[4] = contents[0]  # given cat and dog
    queue = ReviewQueue(made.verdicts, contents)
    assert take(queue) == [0, 1, 2, 3, 5, 6, 7]
    assert take(queue, spec(given="dog", state="all"), client="2") == [], "those of dog are leased, one by its copy"
    queue.release("browser of ann")
    queue.add([said(queue, 4, "label", "dog")])
    assert take(queue) == [1, 2, 3, 5, 6, 7]
    assert queue.outcome[[0, 4]].tolist() == [0, 1]


def test_overlap_sends_some_images_to_two_reviewers(made: SmallRun) -> None:
    queue = ReviewQueue(made.verdicts, made.images.contents, overlap=1.0)
    queue.add([said(queue, row) for row in range(4)])
    assert take(queue, who="ann") == [4, 5, 6, 7]
    queue.release("browser of ann")
    assert take(queue, who="bob") == list(range(8))
    queue.add([said(queue, row, who="bob") for row in range(4)])
    assert take(queue, who="cyd") == []
    queue.release("browser of bob")
    assert take(queue, who="cyd") == [4, 5, 6, 7]


def test_the_share_of_the_overlap_is_about_what_was_asked_for() -> None:
    for contents in (
        np.arange(20_000, dtype=np.uint64),
        np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64),
    ):
        assert abs(is_shared(contents, 0.1).mean() - 0.1) < 0.01
        assert is_shared(contents, 1.0).all() and not is_shared(contents, 0.0).any()


def test_bad_filters_are_refused(queue: ReviewQueue, made: SmallRun) -> None:
    with pytest.raises(SettingsError, match="low"):
        Filters(low=2.0)
    with pytest.raises(SettingsError, match="state"):
        Filters(state="new")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="queue"):
        Spec(queue="best")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r'expected a class of the run, got "dgo" \(did you mean "dog"\?\)'):
        take(queue, spec(given="dgo"))
    with pytest.raises(SettingsError, match="overlap"):
        ReviewQueue(made.verdicts, made.images.contents, overlap=2.0)


@pytest.mark.parametrize("name", ["suspicious", "class", "pair", "group", "audit"])
def test_a_run_without_flags_has_empty_queues(tmp_path: Path, name: str) -> None:
    made = small_run(tmp_path, flagged=0)
    queue = ReviewQueue(made.verdicts, made.images.contents)
    assert len(take(queue, spec(name))) == (11 if name == "audit" else 0)
    assert len(take(queue, spec(name, which="all"), client="2")) == (0 if name == "audit" else 12)
