"""Queues of copies, leaks and images of no class, and what leaving out a copy does."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from labelsieve import app
from labelsieve.app.thumbnails import Thumbnails
from labelsieve.commands.run_data import compared_with
from labelsieve.core.errors import RunError
from labelsieve.curation.findings import FINDINGS, SCHEMA, finding_table
from labelsieve.data.loading import load_images
from labelsieve.finetune.selection import choose
from labelsieve.finetune.settings import Adaptation
from labelsieve.report.exports.export import export
from labelsieve.review import Answer, AnswerLog, key_of, load
from labelsieve.review.answers import ANSWER_KINDS
from labelsieve.review.changes import changes_of
from labelsieve.review.finding_queues import FindingQueues
from labelsieve.review.row_reviews import Reviewed, read_reviews
from labelsieve.verdicts import Verdicts
from small_log import heard
from small_reviews import SmallRun, small_run
from small_server import TOKEN, Client, served, session_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def with_findings(verdicts: Verdicts) -> Verdicts:
    """Images 0 and 3 are near copies with one label, 1 and 2 with two; 4 is a leak, 5 shows no class, 6 is dark."""
    rows = [
        ("near-leak", "img-04", "test/a.jpg", 0.98, None),
        ("near-duplicate", "img-00", "img-03", 0.99, 0),
        ("near-duplicate", "img-03", "img-00", 0.99, 0),
        ("near-duplicate", "img-01", "img-02", 0.97, 1),
        ("near-duplicate", "img-02", "img-01", 0.97, 1),
        ("no-class", "img-05", None, 1.0, None),
        ("dark", "img-06", None, 0.9, None),
    ]
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
    return dataclasses.replace(verdicts, image_findings=table)


@pytest.fixture
def made(tmp_path: Path) -> SmallRun:
    run = small_run(tmp_path, size=(8, 8))
    return dataclasses.replace(run, verdicts=with_findings(run.verdicts))


def ids(cards: list[dict[str, object]]) -> list[object]:
    return [card["id"] for card in cards]


def test_each_kind_of_finding_has_a_queue(made: SmallRun) -> None:
    for kind, about in FINDINGS.entries.items():
        table = finding_table(kind, ["img-00"], score=[1.0], other_id=["img-01"] if about.other else None, group=[0])
        assert FindingQueues(dataclasses.replace(made.verdicts, image_findings=table)).sizes, kind


def test_only_queues_of_the_run_are_there(made: SmallRun, tmp_path: Path) -> None:
    assert FindingQueues(made.verdicts).sizes == {"conflicts": 2, "copies": 2, "leaks": 1, "no-class": 1, "defects": 1}
    assert FindingQueues(small_run(tmp_path / "other").verdicts).sizes == {}
    assert made.verdicts.image_findings is not None
    foreign = made.verdicts.image_findings.set_column(1, "id", pa.array(["x"] * 7))
    with pytest.raises(RunError, match="the findings name x"):
        FindingQueues(dataclasses.replace(made.verdicts, image_findings=foreign))


def test_one_of_two_copies_is_asked_and_the_other_only_if_it_stays(made: SmallRun) -> None:
    with served(session_of(made)) as address:
        client = Client(address)
        first = client.cards(queue="copies")
        assert ids(first) == ["img-00"] and first[0]["finding"]["other_id"] == "img-03"
        assert client.answer(first[0], "keep-one")["status"] == 400, "only what the card offers"
        assert client.answer(first[0], "drop")["kept"] == 1
        assert client.cards(queue="copies") == []
        client.undo()
        again = client.undo("another")
        assert again == []
        card = client.cards(queue="copies", instead_of="browser")[0]
        client.answer(card, "label", "cat")
        assert ids(client.cards(queue="copies")) == ["img-03"], "the first one stays, so the second is asked"
        assert ids(client.cards(queue="leaks")) == ["img-04"] and ids(client.cards(queue="no-class")) == ["img-05"]
        dark = client.cards(queue="defects")
        assert ids(dark) == ["img-06"] and client.answer(dark[0], "drop")["kept"] == 1
        usual = client.cards(queue="suspicious")
        assert all(card.get("finding") is None for card in usual)
        assert client.answer(usual[0], "drop")["status"] == 400


def test_a_queue_counts_what_it_shows_whatever_was_answered_elsewhere(made: SmallRun) -> None:
    with served(session_of(made)) as address:
        client = Client(address)
        usual = {card["id"]: card for card in client.cards(queue="suspicious")}

        def counts() -> tuple[int, int]:
            progress = client.post("/alive", queue="conflicts", filters={})
            return progress["findings"]["conflicts"], progress["answered_in_queue"]

        assert counts() == (2, 0) and b"Copies with different labels (2)" in client.open("/")[1]
        for number, left in ((1, 1), (2, 0)):
            client.answer(usual[f"img-0{number}"], "label", "fox")
            assert counts() == (left, number)
        assert b"Copies with different labels (0)" in client.open("/")[1]
        client.post("/release")
        assert client.cards(queue="conflicts") == []
        shown = client.cards(queue="conflicts", filters={"state": "answered", "which": "all"})
        first = [(card["id"], card["finding"]["drop"], card["answer"]["labels"]) for card in shown]
        assert first == [("img-01", "drop", ["fox"])], "one of both can still be left out"
        assert client.answer(shown[0], "drop")["kept"] == 1


def test_a_name_that_is_too_long_is_one_clear_line(made: SmallRun) -> None:
    with served(session_of(made)) as address:
        status, text, _ = Client(address).open(f"/?reviewer={'x' * 201}")
    assert status == 400 and text.count(b"\n") == 1
    assert b"expected at most 200 characters for the reviewer, got 201" in text


def answer(made: SmallRun, row: int, kind: str) -> Answer:
    return Answer(
        token=str(row),
        key=key_of(int(made.images.contents[row])),
        id=made.images.ids[row],
        given_label=made.images.class_names[made.images.labels[row]],
        kind=kind,
        reviewer="ann",
        time="2026-11-28T10:00:00+00:00",
        mode="review",
    )


def test_what_is_left_out_is_no_wrong_label(made: SmallRun) -> None:
    AnswerLog(made.folder).append_all([answer(made, 4, "drop")])
    reviews = load(made.folder)
    assert not reviews.facts
    assert [(each.id, each.new, each.why) for each in changes_of(reviews, made.images)] == [
        ("img-04", "", "a copy, a leak or a defect")
    ]
    of_rows = read_reviews(made.folder, made.verdicts, images=made.images)
    assert Reviewed(verdicts=made.verdicts, reviews=of_rows).is_dropped.nonzero()[0].tolist() == [4]


def test_neither_adapt_nor_an_export_has_what_is_left_out(made: SmallRun, tmp_path: Path) -> None:
    row = int(np.flatnonzero(made.verdicts.is_readable & ~made.verdicts.is_issue)[0])
    AnswerLog(made.folder).append_all([answer(made, row, "drop")])
    before = choose(made.verdicts, Adaptation())
    after = choose(made.verdicts, Adaptation(), reviews=read_reviews(made.folder, made.verdicts, images=made.images))
    assert set(before.rows) - set(after.rows) == {row}
    assert after.counts["left_out"] == 1 and after.counts["dropped"] == before.counts["dropped"]

    def exported(name: str, marks: list[Path] | None) -> set[str]:
        out = export(made.verdicts, made.images, format="imagefolder", out=tmp_path / name, marks=marks)
        return {path.name for path in out.rglob("*") if path.is_file()}

    assert len(exported("all", None) - exported("some", [made.folder])) == 1


def test_of_equal_images_the_one_that_was_seen_stays(made: SmallRun) -> None:
    contents = made.images.contents.copy()
    contents[[7, 8]] = contents[6]
    AnswerLog(made.folder).append_all(
        [dataclasses.replace(answer(made, 7, "keep-one"), token="x", key=key_of(contents[6]))]
    )
    images = dataclasses.replace(made.images)
    images.__dict__["contents"] = contents
    assert [(each.id, each.new, each.content) for each in changes_of(load(made.folder), images)] == [
        ("img-06", "", ""),
        ("img-08", "", ""),
    ]


def test_the_copy_that_stays_has_the_label_that_was_answered(made: SmallRun) -> None:
    contents = made.images.contents.copy()
    contents[7] = contents[6]
    given = made.verdicts.given_label(6)
    right = next(name for name in made.verdicts.class_names if name not in (given, made.verdicts.given_label(7)))
    key = key_of(contents[6])
    label = dataclasses.replace(answer(made, 6, "none"), token="x", key=key, kind="label", labels=(right,))
    keep = dataclasses.replace(answer(made, 7, "keep-one"), token="y", key=key)
    AnswerLog(made.folder).append_all([label, keep])
    images = dataclasses.replace(made.images)
    images.__dict__["contents"] = contents
    assert [(each.id, each.new, each.content, each.why) for each in changes_of(load(made.folder), images)] == [
        ("img-06", "", "", "a copy of an image that stays"),
        ("img-07", right, key, "reviewed"),
    ]
    of_rows = read_reviews(made.folder, made.verdicts, images=images)
    assert Reviewed(verdicts=made.verdicts, reviews=of_rows).is_dropped.nonzero()[0].tolist() == [6]


@pytest.mark.slow
def test_copies_stand_side_by_side_and_are_left_out_by_a_key(browser: Browser, made: SmallRun) -> None:
    with served(session_of(made)) as address:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(f"{address}/?token={TOKEN}")
        page.locator("#queue").select_option("copies")
        page.wait_for_selector(".pair figure:nth-child(2) img")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.keyboard.press("Enter")
        page.keyboard.press("d")
        page.wait_for_selector("#end:not([hidden])")
        page.close()
    assert [(each.id, each.kind) for each in AnswerLog(made.folder).answers()] == [("img-00", "drop")]


@pytest.mark.slow
def test_a_copy_can_be_left_out_after_both_labels_were_answered(browser: Browser, made: SmallRun) -> None:
    AnswerLog(made.folder).append_all([answer(made, row, "none") for row in (1, 2)])
    with served(session_of(made)) as address:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(f"{address}/?token={TOKEN}")
        page.locator("#queue").select_option("conflicts")
        page.get_by_role("button", name="Answered (2)").click()
        page.get_by_text("It replaces the answer that is there.").wait_for()
        page.keyboard.press("d")
        page.wait_for_selector("#about .id[title='img-02']")
        page.close()
    assert [(each.id, each.kind) for each in AnswerLog(made.folder).answers()][-1] == ("img-01", "drop")


def test_a_card_has_words_for_each_answer() -> None:
    words = (Path(app.__file__).parent / "static" / "show.js").read_text()
    said = words[words.index("function saying") :]
    assert all(re.search(rf'[{{,] "?{kind}"?: ', said) for kind in ANSWER_KINDS if kind not in ("skip", "undo"))


def test_the_other_image_of_a_leak_is_shown(made: SmallRun, photo_folder: Callable[..., Path], tmp_path: Path) -> None:
    others = load_images(str(photo_folder({"cat": 1, "dog": 1})))
    part = {"origin": dict(others.origin), "fingerprint": others.fingerprint, "source": "photos"}
    table = made.verdicts.image_findings
    assert table is not None
    names = pa.array([{"test/a.jpg": "cat/0.png"}.get(each, each) for each in table["other_id"].to_pylist()])
    verdicts = dataclasses.replace(
        made.verdicts,
        image_findings=table.set_column(table.column_names.index("other_id"), "other_id", names),
        record={**made.verdicts.record, "against": part},
    )
    progress, said = heard()
    found = compared_with(verdicts, progress=progress)
    assert found is not None and compared_with(small_run(tmp_path / "none").verdicts, progress=progress) is None
    other_split = Thumbnails(found.read_like(made.images))
    session = session_of(dataclasses.replace(made, verdicts=verdicts), other_split=other_split)
    with served(session) as address:
        client = Client(address)
        shown = client.cards(queue="leaks", filters={"which": "all"})[0]["finding"]
        assert (shown["other_label"], shown["is_elsewhere"]) == ("cat", True)
        assert client.open(shown["other"])[1] == (tmp_path / "photos/cat/0.png").read_bytes()
        assert client.open("/others/2")[0] == 404
    # of other images, or none, a card has the id alone
    (tmp_path / "photos/cat/0.png").unlink()
    assert compared_with(verdicts, progress=progress) is None and "leaks are shown without" in said.getvalue()
    mine = session_of(made, other_split=other_split)
    assert mine.other_split is None
    for wrong in ({}, {"source": 3}, {"source": "photos", "unheard_of": 1}):
        part["origin"] = wrong
        assert compared_with(verdicts, progress=progress) is None
    assert said.getvalue().count("note: leaks") == 4
