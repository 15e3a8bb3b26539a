"""Which answers stand, and what they say together."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from labelsieve.review import Answer, AnswerLog, Reviews, StandingAnswers, key_of, load, resolve
from small_log import answer

KEY = key_of(7)


def by(reviewer: str, kind: str = "label", *labels: str, token: str = "", key: int = 7, mode: str = "review") -> Answer:
    return answer(token or f"{reviewer}-{key}", key=key, kind=kind, labels=labels, reviewer=reviewer, mode=mode)


def said(*answers: Answer) -> tuple[str, tuple[str, ...]]:
    found = resolve(answers).by_key[KEY]
    return found.kind, found.labels


def test_the_latest_answer_of_a_reviewer_counts() -> None:
    assert said(by("ann", "label", "dog", token="1"), by("ann", "none", token="2")) == ("none", ())


def test_an_undo_takes_one_answer_back_and_the_one_before_it_stands_again() -> None:
    first, second = by("ann", "label", "dog", token="1"), by("ann", "none", token="2")
    undo = answer("3", kind="undo", undoes="2", reviewer="ann")
    assert said(first, second, undo) == ("label", ("dog",))
    assert not resolve([first, second, undo, answer("4", kind="undo", undoes="1")])
    assert said(first, answer("5", kind="undo", undoes="unknown")) == ("label", ("dog",))


def test_which_copy_stays_leaves_the_label_as_it_was_answered() -> None:
    label, keep = by("ann", "label", "dog", token="1"), by("ann", "keep-one", token="2")
    for answers in ([label, keep], [keep, label]):
        found = resolve(answers).by_key[KEY]
        assert (found.kind, found.labels, found.keeps) == ("label", ("dog",), keep.id)
        assert found.reviewers == ("ann",) and found.leaves_out and not found.disputed
    alone = resolve([keep]).by_key[KEY]
    assert (alone.kind, alone.keeps, alone.on_label) == ("keep-one", keep.id, (keep,))
    undone = resolve([label, keep, answer("3", kind="undo", undoes="2", reviewer="ann")]).by_key[KEY]
    assert (undone.kind, undone.keeps) == ("label", "")
    assert not resolve([label, keep]).agreement().images, "one reviewer cannot disagree with herself"


def test_a_label_on_a_card_that_offers_to_keep_one_keeps_all() -> None:
    offered = dataclasses.replace(by("ann", "label", "dog", token="2"), shown={"drop": "keep-one"})
    keep = by("ann", "keep-one", token="1")
    found = resolve([keep, offered]).by_key[KEY]
    assert (found.kind, found.labels, found.keeps) == ("label", ("dog",), "")
    tie = resolve([keep, dataclasses.replace(offered, reviewer="bob", token="3")]).by_key[KEY]
    assert (tie.kind, tie.keeps) == ("unsure", "") and tie.disputed
    dropped = resolve([keep, by("ann", "drop", token="4")]).by_key[KEY]
    assert (dropped.kind, dropped.keeps) == ("drop", "") and dropped.leaves_out


def test_a_skip_says_nothing() -> None:
    assert said(by("ann", "label", "dog", token="1"), by("ann", "skip", token="2")) == ("label", ("dog",))
    skipped = resolve([by("ann", "skip")])
    assert len(skipped) == 0 and [each.kind for each in skipped.standing] == ["skip"]


MAJORITIES: list[tuple[list[Answer], tuple[str, tuple[str, ...]]]] = [
    ([by("a", "label", "dog"), by("b", "label", "cat"), by("c", "label", "dog")], ("label", ("dog",))),
    ([by("a", "label", "dog"), by("b", "label", "cat")], ("unsure", ())),
    ([by("a", "label", "dog"), by("b", "unsure")], ("label", ("dog",))),
    ([by("a", "unsure"), by("b", "unsure")], ("unsure", ())),
    ([by("a", "several", "dog", "cat"), by("b", "several", "cat", "dog")], ("several", ("dog", "cat"))),
    ([by("a", "wrong"), by("b", "label", "dog")], ("label", ("dog",))),
    ([by("a", "wrong"), by("b", "none")], ("none", ())),
    ([by("a", "wrong"), by("b", "label", "cat")], ("unsure", ())),
    ([by("a", "wrong"), by("b", "wrong")], ("wrong", ())),
]


def test_the_majority_counts(subtests: pytest.Subtests) -> None:
    for answers, expected in MAJORITIES:
        with subtests.test(", ".join(f"{each.kind} {each.labels}" for each in answers)):
            assert said(*answers) == expected


def test_a_tie_is_disputed_and_doubt_alone_is_not() -> None:
    tie = resolve([by("a", "label", "dog"), by("b", "none")]).by_key[KEY]
    assert tie.disputed and tie.reviewers == ("a", "b")
    doubt = resolve([by("a", "unsure"), by("b", "unsure")]).by_key[KEY]
    assert not doubt.disputed


def test_facts_are_what_is_known() -> None:
    reviews = resolve([by("a", "label", "cat", key=1), by("a", "unsure", key=2), by("a", "wrong", key=3)])
    assert set(reviews.facts) == {key_of(1), key_of(3)}
    right = {key: found.is_right("cat") for key, found in reviews.by_key.items()}
    assert right == {key_of(1): True, key_of(2): None, key_of(3): False}
    assert reviews.facts[key_of(1)].is_right("dog") is False


def test_a_class_is_the_same_however_it_is_spelled() -> None:
    found = resolve([by("a", "label", "T-Shirt"), by("b", "label", "t_shirt")]).by_key[KEY]
    assert found.is_right("t shirt") and found.is_right("shirt") is False and not found.disputed
    wrong = resolve([by("a", "wrong")]).by_key[KEY]
    assert wrong.is_right("Cat") is False and wrong.is_right("dog") is None, "it was said of cat alone"


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.choice(["cat", "dog", "fox"], 60), rng.choice(["cat", "dog", "fox"], 60)
    other[:40] = one[:40]
    answers = [
        by(who, "label", str(label), key=key) for who, of in (("a", one), ("b", other)) for key, label in enumerate(of)
    ]
    found = resolve(answers).agreement()
    assert found.images == 60 and found.share == pytest.approx((one == other).mean())
    assert found.kappa == pytest.approx(cohen_kappa_score(one, other)) == found.pairs["a", "b"][1]


def test_kappa_is_unknown_where_it_is_not_defined() -> None:
    alone = resolve([by("a", "none")]).agreement()
    assert alone.images == 0 and math.isnan(alone.share) and math.isnan(alone.kappa)
    alike = resolve([by("a", "none"), by("b", "none")]).agreement()
    assert alike.images == 1 and alike.share == 1 and math.isnan(alike.kappa)


def test_what_stands_is_kept_up_to_date() -> None:
    standing = StandingAnswers()
    first, second, skip = by("a", "none", token="1"), by("a", "label", "dog", token="2"), by("a", "skip", token="3")
    assert [standing.add(each) for each in (first, second, skip)] == [KEY] * 3
    assert standing.last("a") == [skip] and standing.last("b") == []
    assert standing.add(answer("4", kind="undo", undoes="3")) == KEY
    assert (
        standing.last("a") == [second]
        and standing.recent("a", 9) == [second, first]
        and standing.of_key(KEY) == (first, second)
    )
    assert standing.add(answer("5", kind="undo", undoes="2")) == KEY
    assert standing.by_key[KEY].kind == "none"
    assert standing.add(answer("6", kind="undo", undoes="1")) == KEY and not standing.by_key
    assert standing.add(answer("7", kind="undo", undoes="1")) is None


def test_a_group_is_taken_back_as_a_whole() -> None:
    standing = StandingAnswers()
    group = [answer(str(key), key=key, kind="none", shown={"group": "g"}) for key in range(3)]
    for each in [answer("before", key=9, kind="none"), *group]:
        standing.add(each)
    assert standing.last("ann") == group
    standing.add(answer("after", key=8, kind="none"))
    assert [each.token for each in standing.last("ann")] == ["after"]


def test_reviews_are_loaded_from_a_run(tmp_path: Path) -> None:
    assert len(load(tmp_path)) == 0
    AnswerLog(tmp_path).append_all([by("a", "none")])
    reviews = load(tmp_path)
    assert isinstance(reviews, Reviews) and reviews.by_key[KEY].kind == "none"
