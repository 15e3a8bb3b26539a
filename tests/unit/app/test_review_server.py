"""The server of a review: who may ask, what a card says, and what reaches the log."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelsieve.app import serving
from labelsieve.app.similar_images import SimilarityIndex, project_features
from labelsieve.app.thumbnails import Thumbnails
from labelsieve.commands.review import note_other_server
from labelsieve.core.errors import RunError
from labelsieve.data.annotators import Annotations
from labelsieve.data.loading import load_images
from labelsieve.review import LOG, AnswerLog, load
from small_log import answer, heard
from small_reviews import SmallRun, copied, small_run
from small_server import TOKEN, Client, served, session_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    return small_run(tmp_path_factory.mktemp("review"))


@pytest.fixture
def made(finished: SmallRun, tmp_path: Path) -> SmallRun:
    return copied(finished, tmp_path)


@pytest.fixture
def client(made: SmallRun) -> Iterator[Client]:
    with served(session_of(made)) as address:
        yield Client(address)


def rows(cards: list[dict[str, Any]]) -> list[int]:
    return [card["row"] for card in cards]


def log_of(made: SmallRun) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.id, each.kind, each.labels) for each in AnswerLog(made.folder).answers()]


# who may ask


def test_the_page_lets_in_whoever_has_the_token(client: Client) -> None:
    client.headers = {}
    status, page, headers = client.open(f"/?token={TOKEN}")
    assert status == 200 and b"<title>Review" in page
    cookie = headers["set-cookie"].partition(";")[0]
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=Strict" in headers["set-cookie"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert client.open("/classes", Cookie=cookie)[0] == 200
    assert client.open("/")[0] == client.open("/?token=other")[0] == client.open("/classes")[0] == 403


def test_others_are_refused_with_one_line(subtests: pytest.Subtests, client: Client, made: SmallRun) -> None:
    for header, value, said in (
        ("Origin", "http://evil.example", "a page of http://evil.example may not use"),
        ("Origin", "http://127.0.0.1:1", "may not use"),
        ("Origin", "null", "may not use"),
        ("Host", "evil.example:80", "expected a request to 127.0.0.1"),
        ("Host", "127.0.0.1.evil.example", "expected a request to 127.0.0.1"),
        ("Sec-Fetch-Site", "cross-site", "another site"),
        ("Sec-Fetch-Site", "same-site", "another site"),
        ("Authorization", "Bearer wrong", "expected the token"),
        ("Authorization", "", "expected the token"),
    ):
        with subtests.test(f"{header}: {value}"):
            for path, body in (("/cards", b"{}"), ("/classes", None), ("/thumbnails/small/0", None)):
                status, reply, _ = client.open(path, body, **{header: value})
                assert status == 403 and said in reply.decode() and reply.decode().count("\n") == 1
            assert log_of(made) == []


def test_only_own_files_are_served(client: Client) -> None:
    assert client.open("/static/main.js")[2]["content-type"].startswith("text/javascript")
    for path in ("/static/../server.py", "/static/%2e%2e%2fserver.py", "/static/nothing.js", "/etc/passwd"):
        assert client.open(path)[0] == 404


# cards


def test_a_card_says_what_there_is_to_decide(client: Client) -> None:
    card = client.cards(1)[0]
    assert {name: card[name] for name in ("id", "given", "suggested", "rank", "flagged", "error")} == {
        "id": "img-00", "given": 0, "suggested": 1, "rank": 1, "flagged": True, "error": "",
    }  # fmt: skip
    assert [each["label"] for each in card["top"]][:2] == [1, 0]
    assert set(card["top"][1]["examples"]) == {9}, "the one image of the class that is not flagged"


def test_all_images_can_be_reached(client: Client) -> None:
    cards = client.cards(32, filters={"which": "all"})
    assert rows(cards) == list(range(12))
    unreadable = cards[-1]
    assert unreadable["suggested"] is None and "not an image" in unreadable["error"]
    assert client.open("/thumbnails/large/11")[0] == 404
    assert client.answer(unreadable)["kept"] == 1


def test_an_audit_is_blind_and_one_in_five(made: SmallRun) -> None:
    with served(session_of(made, audit=True)) as address:
        client = Client(address)
        cards = client.cards(5)
        assert [card["mode"] for card in cards] == ["review"] * 4 + ["audit"]
        audit = cards[-1]
        assert not {"suggested", "p_clean", "flagged", "rank", "confidence"} & set(audit)
        assert "cannot skip" in client.answer(audit, "skip")["error"]
        assert client.answer(audit, "label", "cat")["kept"] == 1
    kept = AnswerLog(made.folder).answers()[0]
    design = session_of(made).queue.design
    assert kept.mode == "audit" and audit["row"] == design.order[0]
    assert kept.shown["stratum"] == design.stratum[audit["row"]]
    assert kept.shown["images_in_stratum"] == design.sizes[kept.shown["stratum"]]
    assert {"queue": "audit", "flagged": bool(made.verdicts.is_issue[audit["row"]])}.items() <= kept.shown.items()


def test_the_audit_can_be_switched_off(client: Client) -> None:
    assert {card["mode"] for card in client.cards(8)} == {"review"}
    assert len(client.cards(32, queue="audit")) == 3, "the audit queue is there; all but three are on the screen"


def test_the_audit_ends_with_the_queue(made: SmallRun) -> None:
    with served(session_of(made, audit=True)) as address:
        client = Client(address)
        for _ in range(20):
            for card in client.cards(4):
                client.answer(card)
        assert client.cards(4) == [] and client.post("/alive")["left"] == 0
        assert client.post("/alive")["answered"] < 12


# answers


def test_an_answer_is_on_the_disk_when_it_is_acknowledged(client: Client, made: SmallRun) -> None:
    first, second, third = client.cards(3)
    assert client.answer(first, "label", "dog", note="clear", seconds=2.5) == {"status": 200, "kept": 1}
    assert client.answer(second, "several", "dog", "fox")["kept"] == 1
    assert client.answer(third, "none")["kept"] == 1
    answers = AnswerLog(made.folder).answers()
    assert [(each.kind, each.labels) for each in answers] == [
        ("label", ("dog",)), ("several", ("dog", "fox")), ("none", ()),
    ]  # fmt: skip
    kept = answers[0]
    assert (kept.id, kept.given_label, kept.reviewer, kept.note, kept.seconds) == ("img-00", "cat", "ann", "clear", 2.5)
    assert kept.key == f"{int(made.images.contents[0]):016x}" and kept.mode == "review"
    assert kept.shown["suggested_label"] == "dog" and kept.shown["flagged"] is True
    assert rows(client.cards(2)) == [3, 4]


def test_an_answer_that_is_sent_again_is_kept_once(client: Client, made: SmallRun) -> None:
    card = client.cards(1)[0]
    assert client.answer(card, token="t")["kept"] == 1
    assert client.answer(card, token="t") == {"status": 200, "kept": 0}
    assert len(log_of(made)) == 1


WRONG_ANSWERS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "label", "labels": ["dgo"]}, 'expected a class of the run, got "dgo" (did you mean "dog"?)'),
    ({"kind": "label", "labels": [["dog"]]}, "expected a class of the run"),
    ({"kind": "label", "labels": []}, "expected one label"),
    ({"kind": "maybe"}, "to be one of label, several"),
    ({"kind": "undo"}, "undoes"),
    ({"kind": "none", "card": "other"}, "earlier start of the server"),
    ({"kind": "none", "seconds": "NaN"}, "a number from 0"),
    ({"kind": "none", "token": 5}, 'expected "token"'),
    ({"kind": "none", "note": "x" * 20_000}, "at most 10,000"),
]


def test_a_wrong_answer_is_refused_and_nothing_is_kept(
    subtests: pytest.Subtests, finished: SmallRun, tmp_path: Path
) -> None:
    for number, (given, said) in enumerate(WRONG_ANSWERS):
        made = copied(finished, tmp_path / str(number))
        with subtests.test(said), served(session_of(made)) as address:
            client = Client(address)
            first, second = client.cards(2)
            good = {"card": first["card"], "token": "good", "kind": "none"}
            reply = client.post("/answers", answers=[good, {"card": second["card"], "token": "bad", **given}])
            assert reply["status"] == 400 and said in reply["error"] and "\n" not in reply["error"]
            assert log_of(made) == []


def test_a_request_that_makes_no_sense_is_one_line(subtests: pytest.Subtests, client: Client) -> None:
    for path, body in (
        ("/cards", b"{"),
        ("/cards", b"[]"),
        ("/cards", b'{"client": ""}'),
        ("/cards", b'{"client": "a", "reviewer": ""}'),
        ("/cards", b'{"client": "a", "count": "x"}'),
        ("/cards", b'{"client": "a", "queue": "best"}'),
        ("/cards", b'{"client": "a", "queue": ["best"]}'),
        ("/cards", b'{"client": "a", "filters": {"low": "x"}}'),
        ("/cards", b'{"client": "a", "filters": {"lowest": 1}}'),
        ("/cards", b'{"client": "a", "filters": {"given": "wolf"}}'),
        ("/cards", b'{"client": "a", "filters": 3}'),
        ("/answers", b'{"client": "a"}'),
        ("/undo", b'{"client": "a"}'),
        ("/answers", b'{"client": "a", "answers": [1]}'),
        ("/near", b'{"client": "a", "row": 99, "labels": []}'),
        ("/near", b'{"client": "a", "row": 0, "labels": ["x"]}'),
        ("/near", b'{"client": "a", "row": 0, "labels": [true]}'),
        ("/cards", b'{"client": "a", "filters": {"text": "\\ud800"}}'),
        ("/near", b"[" * 100_000),
    ):
        with subtests.test(path, body=body):
            status, reply, _ = client.open(path, body)
            assert status == 400 and "\n" not in json.loads(reply)["error"]


def test_undo_takes_back_any_number_of_answers(client: Client, made: SmallRun) -> None:
    cards = client.cards(3)
    for card in cards:
        client.answer(card)
    assert rows(client.undo()) == [2]
    assert rows(client.undo()) == [1]
    assert client.post("/alive")["answered"] == 1
    assert rows(client.undo()) == [0]
    assert client.undo() == []
    assert len(load(made.folder)) == 0 and len(log_of(made)) == 6


def test_an_undo_that_is_sent_again_takes_back_nothing_more(client: Client, made: SmallRun) -> None:
    for card in client.cards(2):
        client.answer(card)
    assert rows(client.undo("t")) == rows(client.undo("t")) == [1]
    assert [kind for _, kind, _ in log_of(made)] == ["none", "none", "undo"]


def test_an_answer_of_an_earlier_audit_is_undone_as_one_of_the_review(client: Client, made: SmallRun) -> None:
    """Its run had another sample."""
    earlier = answer("1", key=int(made.images.contents[0]), id="img-00", reviewer=client.reviewer, labels=("dog",))
    AnswerLog(made.folder).append_all(
        [dataclasses.replace(earlier, shown={"queue": "audit", "from": "an earlier run"})]
    )
    (card,) = client.undo()
    assert (card["mode"], card["suggested"]) == ("review", 1)
    client.answer(card, "none")
    assert AnswerLog(made.folder).answers()[-1].mode == "review"


def test_a_summary_counts_what_was_answered(made: SmallRun) -> None:
    session = session_of(made)
    with served(session) as address:
        client = Client(address)
        for card, kind in zip(client.cards(3), ("none", "skip", "unsure"), strict=True):
            client.answer(card, kind)
        client.undo()
    assert session.summary().startswith("1 new answer, 1 in all, in ")


def test_a_group_is_answered_and_undone_as_a_whole(client: Client, made: SmallRun) -> None:
    (card,) = client.cards(8, queue="group")
    assert rows(card["members"]) == [0, 3, 6]
    inside, out = card["members"][:2], card["members"][2]
    answers = [{"card": each["card"], "token": each["card"], "kind": "label", "labels": ["dog"]} for each in inside]
    assert client.post("/answers", answers=answers, back=[out["card"]])["kept"] == 2
    assert len(load(made.folder).facts) == 2
    assert rows(client.cards(1)) == [1], "what was taken out comes in its order"
    (again,) = client.undo()
    assert rows(again["members"]) == [0, 3] and len(load(made.folder)) == 0


def test_a_full_disk_is_said_and_the_same_answer_may_come_again(
    client: Client, made: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = client.cards(1)[0]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        reply = client.answer(card, token="t")
    assert reply["status"] == 503 and "No space left" in reply["error"] and log_of(made) == []
    assert client.answer(card, token="t")["kept"] == 1


# several at once


def test_two_browsers_get_different_cards_and_lose_nothing(tmp_path: Path) -> None:
    made = small_run(tmp_path, images=120, flagged=119, size=(8, 8), unreadable=False)
    with served(session_of(made)) as address:

        def work(name: str) -> None:
            client = Client(address, reviewer=name, client=f"browser of {name}")
            while cards := client.cards(4):
                for card in cards:
                    client.answer(card)
                    client.answer(card)

        threads = [threading.Thread(target=work, args=(name,)) for name in ("ann", "bob")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    answers = AnswerLog(made.folder).answers()
    assert sorted(each.id for each in answers) == sorted(made.images.ids[:119])
    assert {each.reviewer for each in answers} == {"ann", "bob"}


def test_two_servers_of_one_run_are_in_step(made: SmallRun) -> None:
    with served(session_of(made)) as one, served(session_of(made)) as other:
        first, second = Client(one), Client(other, reviewer="bob", client="2")
        first.answer(first.cards(1)[0])
        assert rows(second.cards(1)) == [1]


def test_cards_of_a_closed_page_are_given_back(client: Client) -> None:
    assert rows(client.cards(2)) == [0, 1]
    client.post("/release")
    assert rows(client.cards(2)) == [0, 1]
    client.client = "reloaded"
    assert rows(client.cards(2, instead_of="browser")) == [0, 1]


def test_overlap_and_agreement(made: SmallRun) -> None:
    with served(session_of(made, overlap=1.0)) as address:
        for name, labels in (("ann", ("dog", "dog")), ("bob", ("dog", "cat"))):
            client = Client(address, reviewer=name, client=name)
            cards = client.cards(2)
            assert rows(cards) == [0, 1] and "answer" not in cards[0], "what the other said would sway"
            for card, label in zip(cards, labels, strict=True):
                client.answer(card, "label", label)
            client.post("/release")
        people = client.post("/precision")["reviewers"]
        assert people["shared"] == 2 and people["agree"] == 0.5 and people["kappa"] == 0.0
        (card,) = client.cards(9, filters={"state": "disputed"})
        assert rows([card]) == [1]
        said = [(each["reviewer"], each["labels"]) for each in card["answer"]["votes"]]
        assert said == [("ann", ["dog"]), ("bob", ["cat"])], "a third person sees who says what"
        bar = client.post("/alive")
        assert (bar["answered"], bar["answered_disputed"]) == (2, 1)


def test_progress_counts_and_says_how_often_flags_were_right(client: Client) -> None:
    for card, label in zip(client.cards(3), ("dog", "dog", "fox"), strict=True):
        client.answer(card, "label", label, seconds=4)
    bar = client.post("/alive")
    assert {name: bar[name] for name in ("left", "size", "answered", "flagged", "seconds_each", "seconds_left")} == {
        "left": 5, "size": 8, "answered": 3, "flagged": 8, "seconds_each": 4.0, "seconds_left": 20.0,
    }  # fmt: skip
    assert bar["done"] == 3
    other = client.post("/alive", filters={"state": "answered"})
    assert (other["left"], other["done"]) == (3, None), "nothing of what was answered is left to do"
    found = client.post("/precision")
    assert found["flags"] == {"answered": 3, "wrong": 1}
    client.answer(client.cards()[0], "skip")
    bar = client.post("/alive")
    assert [bar[name] for name in ("left", "skipped_in_queue", "done", "answered")] == [4, 1, 3, 3], "it is not done"
    assert client.post("/alive", queue="audit")["done"] == 3
    assert sorted((row["label"], row["answered"], row["wrong"]) for row in found["by_class"]) == [
        (0, 1, 1), (1, 1, 0), (2, 1, 0),
    ]  # fmt: skip
    assert sum(row["answered"] for row in found["by_p_clean"]) == 3


def test_the_page_says_what_the_audit_proves(client: Client, made: SmallRun) -> None:
    assert client.post("/guarantees")["sentences"][0]["text"].startswith("Nothing was audited")
    for card in client.cards(32, queue="audit"):
        client.answer(card, "label", made.verdicts.class_names[card["given"]])
    first = client.post("/guarantees")["sentences"][0]
    assert first["text"] == "0 of 11 labels are still wrong, as all were looked at." and first["assumption"]


# images


def test_thumbnails_are_made_once_and_kept(made: SmallRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "cache"))
    with served(session_of(made)) as address:
        client = Client(address)
        status, data, headers = client.open("/thumbnails/large/1")
        assert status == 200 and Image.open(io.BytesIO(data)).size == (48, 32)
        monkeypatch.setattr(type(made.images), "open", lambda *_: pytest.fail("made again"))
        assert client.open("/thumbnails/large/1")[1] == data
        assert headers["content-type"] == "image/webp" and headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store", "another run may be reviewed at the same address"
        assert client.open("/thumbnails/huge/1")[0] == client.open("/thumbnails/small/99")[0] == 404


def test_thumbnails_need_no_cache(made: SmallRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LABELSIEVE_CACHE", str(tmp_path / "file" / "cache"))
    with served(session_of(made)) as address:
        assert Client(address).open("/thumbnails/small/1")[0] == 200


def test_the_original_is_the_file_itself(client: Client, made: SmallRun) -> None:
    status, data, headers = client.open("/images/2")
    assert status == 200 and data == made.images.encoded(2) and headers["content-type"] == "image/png"
    assert client.open("/images/11")[0] == client.open("/images/99")[0] == 404


def test_a_photo_of_a_phone_is_shown_as_the_file_itself(tmp_path: Path) -> None:
    """It is a JPEG with more images behind the first, which Pillow calls MPO."""
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    photo = tmp_path / "cat" / "a.jpg"
    photo.parent.mkdir()
    first.save(photo, "MPO", save_all=True, append_images=[second])
    assert Thumbnails(load_images(str(tmp_path), one_class=True)).original(0) == ("image/jpeg", photo.read_bytes())


def test_what_browsers_do_not_show_is_a_png_however_wide(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (17_000, 8), "red").save(tmp_path / "cat" / "a.tif")
    kind, data = Thumbnails(load_images(str(tmp_path), one_class=True)).original(0)
    assert kind == "image/png" and Image.open(io.BytesIO(data)).size == (17_000, 8)


# features


def test_features_name_the_nearest_classes_and_images() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(np.eye(3, 8), 20, axis=0) + rng.normal(scale=0.05, size=(60, 8))
    vectors = project_features(points.astype(np.float32), np.ones(60, dtype=bool))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    similarity = vectors @ vectors.T
    assert (similarity.argsort(axis=1)[:, -20:] // 20 == np.repeat(np.arange(3), 20)[:, None]).all()


def test_looks_rank_classes_by_their_nearest_images(tmp_path: Path) -> None:
    made = small_run(tmp_path, images=60, flagged=6, unreadable=False, size=(8, 8))
    kind = np.arange(60) % 3
    kind[0] = 2  # given 0, looks like 2
    features = np.eye(3, 8)[kind].astype(np.float32) + np.random.default_rng(0).normal(scale=0.01, size=(60, 8))
    looks = SimilarityIndex(made.verdicts, features.astype(np.float32))
    assert looks.classes([0, 7], 3)[0][0] == 2 and looks.classes([7], 3)[0][0] == 1
    examples = looks.examples(0, 2, 4)
    assert len(examples) == 4 and all(each % 3 == 2 for each in examples)
    assert looks.nearest(0, np.array([3, 8, 6]), 1).tolist() == [8]


# the command


def test_features_cannot_be_reviewed(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    import labelsieve as ls

    np.savez(tmp_path / "points.npz", features=np.random.default_rng(0).normal(size=(40, 4)), labels=np.arange(40) % 2)
    ls.scan(ls.load_features(tmp_path / "points.npz"), detector=ls.KNN()).save(tmp_path / "run")
    code, _, said = run("review", tmp_path / "run")
    assert code == 1 and "which have no images" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--overlap", "lots"], 2, "expected --overlap as a share such as 10% or 0.1, got lots; see"),
        (["--overlap", "110%"], 1, "expected --overlap from 0 to 1, got 1.1; a share, such as 0.1 for 10 %\n"),
        (["--port", "0"], 1, "port"),
        (["--reviewer", "x" * 201], 2, "expected at most 200 characters for --reviewer, got 201"),
        (["--port", "70000"], 1, "port"),
    ],
)
def test_wrong_options_are_one_line(
    run: Callable[..., tuple[int, str, str]], made: SmallRun, words: list[str], code: int, said: str
) -> None:
    found = run("review", made.folder, *words)
    assert found[0] == code and said in found[2] and found[2].count("\n") == 1
    assert not (made.folder / LOG).exists()


def test_a_port_in_use_is_said(run: Callable[..., tuple[int, str, str]], made: SmallRun) -> None:
    with serving.free_socket() as taken:
        port = taken.getsockname()[1]
        code, _, said = run("review", made.folder, "--no-browser", "--port", port)
    assert code == 1 and f"port {port} is in use; choose another --port" in said and said.count("\n") == 1


def test_without_a_port_any_free_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving.free_socket() as taken:
        monkeypatch.setattr(serving, "USUAL_PORT", taken.getsockname()[1])
        with serving.listen(None) as other:
            assert isinstance(other, socket.socket) and other.getsockname()[1] != taken.getsockname()[1]


def test_a_run_folder_that_cannot_be_written_is_said_before_the_first_answer(
    run: Callable[..., tuple[int, str, str]], made: SmallRun
) -> None:
    (made.folder / LOG).mkdir()
    code, _, said = run("review", made.folder, "--no-browser")
    assert code == 1 and "reviews.jsonl" in said and said.count("\n") == 1


def test_images_that_moved_are_said(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    made = small_run(tmp_path)
    (tmp_path / "images.parquet").rename(tmp_path / "moved.parquet")
    code, _, said = run("review", made.folder, "--no-browser")
    assert code == 1 and "--source says where the images of a run lie now" in said and said.count("\n") == 1


def test_answers_on_other_data_and_a_torn_line_are_said(made: SmallRun, tmp_path: Path) -> None:
    AnswerLog(made.folder).append_all([answer("1", key=12345, kind="none")])
    with (made.folder / LOG).open("ab") as file:
        file.write(b'{"torn')
    progress, said = heard()
    session_of(made, progress=progress)
    assert "1 of 1 answers in" in said.getvalue() and "on images of other data" in said.getvalue()
    assert "is torn" in said.getvalue() and "no features of this run are cached" in said.getvalue()
    assert len(AnswerLog(made.folder).answers()) == 1


def test_images_of_another_run_are_refused(made: SmallRun, tmp_path: Path) -> None:
    other = small_run(tmp_path / "other", images=9)
    with pytest.raises(RunError, match="images of the run"):
        session_of(SmallRun(made.folder, other.images, made.verdicts))


def test_no_browser_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    serving._open("http://127.0.0.1:1/", said.append)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda _url: False)
    serving._open("http://127.0.0.1:1/", said.append)
    assert said == ["no browser was found; open the address above"] * 2


def test_names_with_html_are_text_in_the_page(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    made = small_run(tmp_path, names=(evil, "<b>dog</b>", "fox"))
    with served(session_of(made), reviewer=evil) as address:
        page = Client(address).open("/")[1].decode()
        assert evil not in page and page.count("<script") == 2
        assert evil in json.loads(Client(address).open("/classes")[1])["names"]


@pytest.mark.slow
def test_50_000_classes(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(50_000)]
    made = small_run(tmp_path, names=names, images=30, flagged=20)
    with served(session_of(made)) as address:
        client = Client(address)
        assert len(json.loads(client.open("/classes")[1])["names"]) == 50_000
        card = client.cards(1)[0]
        assert client.answer(card, "label", "class 49999")["kept"] == 1
        assert client.post("/precision")["flags"] == {"answered": 1, "wrong": 1}


_SERVER = """
import sys
# to import torch would take longer than all else before a review can begin
sys.addaudithook(lambda event, given: sys.exit("torch!") if event == "import" and given[0] == "torch" else None)
from labelsieve.cli import main
sys.exit(main(["review", {run!r}, "--no-browser", "--no-audit", "--reviewer", "ann"]))
"""


def started(made: SmallRun) -> tuple[subprocess.Popen[str], Client]:
    """Starts the command itself, and returns it with a client."""
    code = _SERVER.format(run=str(made.folder))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("open http"):
            address, _, token = line.split()[1].partition("/?token=")
            return process, Client(address, headers={"Authorization": f"Bearer {token}"})
    raise AssertionError("the server did not start")


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill_of_the_server(made: SmallRun) -> None:
    process, client = started(made)
    acknowledged = [card["id"] for card in client.cards(3) if client.answer(card)["kept"]]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [name for name, _, _ in log_of(made)] == acknowledged == ["img-00", "img-01", "img-02"]
    with served(session_of(made)) as address:
        assert rows(Client(address).cards(1)) == [3]


def test_stopping_is_how_a_review_ends(
    run: Callable[..., tuple[int, str, str]], made: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "serve", stopped)
    code, said, _ = run("review", made.folder)
    assert code == 0 and "0 new answers, 0 in all" in said


def test_a_card_says_what_each_annotator_gave(made: SmallRun) -> None:
    said = np.stack([made.images.labels, np.full(12, 2), np.where(np.arange(12) == 0, -1, made.images.labels)], axis=1)
    images = dataclasses.replace(made.images, annotations=Annotations(names=("ann", "bob", "eve"), labels=said))
    with served(session_of(dataclasses.replace(made, images=images))) as address:
        first, second, *_ = Client(address).cards()
        (audited,) = Client(address, client="other").cards(1, queue="audit")
    assert first["votes"] == [{"label": 0, "by": ["ann"]}, {"label": 2, "by": ["bob"]}], "eve labelled no such image"
    assert second["votes"] == [{"label": 1, "by": ["ann", "eve"]}, {"label": 2, "by": ["bob"]}]
    assert "votes" not in audited, "an audit is blind"


def test_a_second_server_on_one_run_says_so(made: SmallRun) -> None:
    progress, said = heard()
    with note_other_server(made.folder, progress):
        assert said.getvalue() == ""
        with note_other_server(made.folder, progress):
            note = said.getvalue()
            assert note.startswith("note: another labelsieve review serves this run")
    with note_other_server(made.folder, progress):
        assert said.getvalue() == note, "the first one has ended"
