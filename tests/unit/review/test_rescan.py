"""Scanning again out of a review: the plan, the process beside the server, and the step into the new run."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import labelsieve as ls
from labelsieve.app.rescan import Rescan
from labelsieve.commands import rescan_process as child
from labelsieve.core.errors import RunError
from labelsieve.data.images import LabelledImages
from labelsieve.data.loading import load_images
from labelsieve.demo import MINI_CLIP
from labelsieve.review import AnswerLog
from labelsieve.verdicts import Verdicts
from small_answers import answer
from small_reviews import SmallRun, small_run
from small_server import TOKEN, Client, rescan_of, served, session_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Scans that tell what a scan tells, without one: the first waits for a file, and its run is a copy of another.
_PLAN = "import json, pathlib, shutil, sys, time; plan = json.loads(sys.stdin.readline()); out = plan['out']"
_WORKS = f"""{_PLAN}
print("a library says something"); print(json.dumps(dict(task="encoding", done=3, total=12, unit="images")), flush=True)
while not pathlib.Path(plan["go"]).exists(): time.sleep(0.01)
shutil.copytree(plan["like"], out, dirs_exist_ok=True)
"""
_FAILS = f"{_PLAN}; (pathlib.Path(out) / 'run.json').touch(); sys.exit('labelsieve: no model is there; check --model')"


@pytest.fixture
def made(tmp_path: Path) -> SmallRun:
    return small_run(tmp_path, size=(8, 8))


def scans(made: SmallRun, script: str, **plan: Any) -> Rescan:
    return rescan_of(session_of(made), plan, script=script)


def waited(client: Client, state: str) -> Any:
    """Returns the status of a scan once it is in a state."""
    for _ in range(2000):
        found = client.post("/rescan", do="status")
        if found["state"] == state:
            return found
        time.sleep(0.005)
    raise AssertionError(found)


def test_a_review_goes_on_in_the_new_run(made: SmallRun, tmp_path: Path) -> None:
    like, go = tmp_path / "like", tmp_path / "go"
    shutil.copytree(made.folder, like)
    rescan = scans(made, _WORKS, like=str(like), go=str(go))
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    with served(rescan) as address:
        client = Client(address)
        assert client.post("/rescan", do="start")["error"].startswith("no answer says")
        cards = client.cards()
        client.answer(cards[0]), client.answer(cards[1])
        looked = client.post("/rescan", do="look")
        assert (looked["new"], looked["why_not"], looked["state"]) == (2, "", "idle")
        assert client.post("/rescan", do="start")["run"] == "run-again"
        assert client.post("/rescan", do="start")["run"] == "run-again", "one scan at a time"
        while (found := client.post("/alive", number=0)["rescan"])["share"] is None:
            time.sleep(0.005)
        assert (found["line"], found["share"]) == ("encoding: 3 of 12 images", 0.25)
        # the review goes on while it runs, here with the answers that the scan is thought to know in the new log
        shutil.copy(made.folder / "reviews.jsonl", like)
        carried_as_a_scan_does(made, like)
        client.undo()
        client.answer(cards[2], "label", "fox")
        go.touch()
        assert waited(client, "done")["flagged"] == 8
        assert client.post("/rescan", do="go-on", number=0)["state"] == "idle"
        # a page of the old run is told to load again, and nothing of it is kept
        assert client.post("/answers", number=0, answers=[])["status"] == 409
        assert [each["id"] for each in client.cards(number=1)][:2] == ["img-01", "img-03"]
        assert client.post("/rescan", do="look")["new"] == 1, "the answer that came while it was scanned"
        start = json.loads(client.open("/")[1].decode().split('id="start">')[1].split("</script>")[0])
        assert start["number"] == 1
    new = made.folder.with_name("run-again")
    kinds = [(each.id, each.kind) for each in AnswerLog(new).answers()]
    assert kinds == [("img-00", "none"), ("img-01", "none"), ("img-02", "label"), ("img-01", "undo")]
    assert rescan.session.run_folder == new and rescan.number == 1
    after = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    assert {name: data for name, data in after.items() if before.get(name) != data}.keys() == {"reviews.jsonl"}


def carried_as_a_scan_does(made: SmallRun, like: Path) -> None:
    from labelsieve.review.earlier_review import read_earlier_review

    (like / "reviews.jsonl").unlink()
    AnswerLog(like).append_all(read_earlier_review(made.folder, made.images).answers)


def test_a_scan_that_ends_early_leaves_nothing(made: SmallRun, tmp_path: Path) -> None:
    waits = scans(made, _WORKS, like="", go=str(tmp_path / "never"))
    new = made.folder.with_name("run-again-2")
    made.folder.with_name("run-again").mkdir()
    with served(waits) as address:
        client = Client(address)
        client.answer(client.cards()[0])
        assert client.post("/rescan", do="go-on")["status"] == 400
        client.post("/rescan", do="start")
        assert new.is_dir()
        assert client.post("/rescan", do="cancel")["state"] == "stopping"
        assert waited(client, "idle")["error"] == "" and not new.exists()
        client.post("/rescan", do="start")
        assert new.is_dir()
    waits.close()  # as the server does
    assert not new.exists()
    with served(scans(made, _FAILS)) as address:
        client = Client(address)
        client.post("/rescan", do="start")
        assert waited(client, "failed")["error"] == "no model is there; check --model"
        assert not new.exists() and client.post("/rescan", do="cancel")["state"] == "idle"
        assert client.post("/rescan", do="fly")["status"] == 400
    with served(scans(made, "1 / 0")) as address:
        client = Client(address)
        client.post("/rescan", do="start")
        assert waited(client, "failed")["error"] == "the scan ended with ZeroDivisionError: division by zero"
    with served(scans(made, _PLAN)) as address:  # it ends as if all were well, and writes nothing
        client = Client(address)
        client.post("/rescan", do="start")
        found = waited(client, "failed")
        assert "expected a finished run" in found["error"] and found["run"] == ""


@pytest.mark.slow
def test_the_page_starts_a_scan_and_goes_on(browser: Browser, made: SmallRun, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with served(scans(made, _WORKS, like=str(made.folder), go=str(go))) as address:
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.goto(f"{address}/?token={TOKEN}")
        page.wait_for_selector("#about .facts")
        page.keyboard.press("g")
        page.wait_for_selector("#about .id:text-is('img-01')")
        page.keyboard.press("p")
        page.click("#stats .again button:text-is('Scan again')")
        page.wait_for_selector("#rescan :text('encoding: 3 of 12 images')")
        assert not page.locator("#stats").is_visible()
        go.touch()
        with page.expect_navigation():  # the page loads itself again
            page.click("#rescan button:text-is('Go on in run-again')")
        page.wait_for_selector("#about .id:text-is('img-01')")
        assert not page.locator("#rescan").is_visible()
        page.close()


@pytest.fixture(scope="module")
def scanned(drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LabelledImages]:
    """A run of a model, with test images and images to compare with, and two answers."""
    run = tmp_path_factory.mktemp("runs") / "run"
    images = load_images(str(drawn_folder), limit=20, seed=3)
    settings: dict[str, Any] = {
        "detector": ls.LabelMatch(),
        "test": images,
        "against": images,
        "seed": 5,
        "device": "cpu",
    }
    ls.scan(images, ls.load_vlm(MINI_CLIP), out=run, **settings)
    answer(run, images, {images.ids[0]: images.class_names[0], images.ids[1]: "<none>"})
    return run, images


def test_a_plan_has_all_that_a_scan_may_be_asked_for(scanned: tuple[Path, LabelledImages]) -> None:
    run, images = scanned
    plan = {*child.plan_of(Verdicts.load(run), images), "reviewed", "out"}  # which the server adds
    asked = {*inspect.signature(ls.scan).parameters} - {"resume", "overwrite", "progress"}
    assert plan == {{"images": "data", "vlm": "model"}.get(name, name) for name in asked}


def test_a_scan_again_is_the_scan_with_its_answers(scanned: tuple[Path, LabelledImages], tmp_path: Path) -> None:
    run, images = scanned
    plan = json.loads(json.dumps(child.plan_of(Verdicts.load(run), images)))
    assert child._scan({**plan, "reviewed": str(run), "out": str(tmp_path / "new")}) == 0
    old, new = Verdicts.load(run), Verdicts.load(tmp_path / "new")
    assert new.run.reviewed is not None and new.run.reviewed.images == 2 and (tmp_path / "new/report.html").is_file()
    for name in ("data", "origin", "model", "seed", "precision", "test", "against", "image_defects"):
        assert getattr(new.run, name) == getattr(old.run, name)
    assert new.run.detector.settings == old.run.detector.settings
    assert new.is_issue[1] and not new.table["label_quality"][1].as_py()
    assert len(AnswerLog(tmp_path / "new").answers()) == 2


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("test", {"origin": {}}, "the run does not say where the test images lie"),
        ("against", {"origin": None}, "the run does not say where the images to compare with lie"),
        ("model", None, "does not say which model"),
        ("detector", {"name": "Mine"}, "made with Mine, which is none"),
        ("detector", {"settings": {"threshold_of_old": 1}}, "another version of labelsieve"),
        ("detector", {"fingerprint": "0"}, "another version of labelsieve"),
    ],
)
def test_a_record_that_says_too_little(
    part: str, value: dict[str, Any] | None, said: str, scanned: tuple[Path, LabelledImages]
) -> None:
    run, images = scanned
    verdicts = Verdicts.load(run)
    changed = None if value is None else {**verdicts.record[part], **value}
    with pytest.raises(RunError, match=said):
        child.plan_of(dataclasses.replace(verdicts, record={**verdicts.record, part: changed}), images)


def test_images_in_memory_are_not_scanned_again(made: SmallRun) -> None:
    in_memory = dataclasses.replace(made, images=dataclasses.replace(made.images, origin={}))
    rescan = Rescan(session_of(in_memory), plan_of=child.plan_of, command=(), say=lambda _line: None)
    with served(rescan) as address:
        assert "were in memory" in Client(address).post("/rescan", do="look")["why_not"]


@pytest.mark.slow
def test_the_scan_ends_with_a_server_that_is_killed(scanned: tuple[Path, LabelledImages], tmp_path: Path) -> None:
    run, images = scanned
    out = tmp_path / "new"
    out.mkdir()
    plan = {**child.plan_of(Verdicts.load(run), images), "reviewed": str(run), "out": str(out)}
    pipe = subprocess.PIPE
    with subprocess.Popen(child.COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(plan) + "\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 1
    assert not out.exists()
