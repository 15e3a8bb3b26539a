"""The page of a review in a real browser: keys, touch, undo, two browsers, and a server that dies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labelsieve.review import Answer, AnswerLog
from small_browser import EVIL, watch
from small_reviews import SmallRun, copied, small_run
from small_server import TOKEN, served, session_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Response, Route


@dataclass
class Opened:
    """A page of a review, and what went wrong in it."""

    page: Page
    folder: Path = Path()
    problems: list[str] = field(default_factory=list)

    def id(self) -> str:
        """The id on the card."""
        return self.page.locator("#about .id").inner_text()

    def wait_for(self, number: int) -> None:
        """Waits for the card of an image."""
        self.page.wait_for_selector(f"#about .id[title$='-{number:02}']")

    def press(self, *keys: str, then: int | None = None) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        if then is not None:
            self.wait_for(then)

    def answers(self) -> list[Answer]:
        return AnswerLog(self.folder).answers()

    def said(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(each.kind, each.labels) for each in self.answers()]


Open = Callable[..., Opened]


def watched(page: Page) -> Opened:
    """Returns a page of which all that goes wrong is written down."""
    result = Opened(page)
    watch(page, result.problems, milliseconds=8000)
    return result


@pytest.fixture(scope="module")
def usual(browser: Browser) -> Opened:
    """The page of all tests that ask for nothing special: a new one for each would take much of their time."""
    return watched(browser.new_page(viewport={"width": 1280, "height": 720}))


@pytest.fixture
def open_page(browser: Browser, usual: Opened) -> Iterator[Open]:
    opened: list[Opened] = []
    with ExitStack() as stack:

        def start(
            made: SmallRun, *, address: str = "", new: bool = False, clock: bool = False, **settings: Any
        ) -> Opened:
            address = address or stack.enter_context(served(session_of(made)))
            result = watched(browser.new_page(**settings)) if new or clock or settings else usual
            if clock:  # before the page reads a time, or a card would be answered before it was shown
                result.page.clock.install()
            result.folder = made.folder
            opened.append(result)
            result.page.goto(f"{address}/?token={TOKEN}")
            return result

        yield start
        found = [problem for each in opened for problem in each.problems]
        for each in opened:
            if each is usual:
                each.page.evaluate("sessionStorage.clear()")
                each.page.goto("about:blank")
                each.problems.clear()
            else:
                each.page.close()
    assert found == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    return small_run(tmp_path_factory.mktemp("review"))


@pytest.fixture
def made(finished: SmallRun, tmp_path: Path) -> SmallRun:
    return copied(finished, tmp_path)


def test_keys(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    assert opened.page.url.endswith("/"), "the token does not stay in the address"
    opened.press("Enter", then=1)
    opened.press("Space", then=2)
    opened.press("2", then=3)
    opened.press("g", then=4)
    opened.press("n", then=5)
    opened.press("u", then=6)
    opened.press("s", then=7)
    assert opened.said() == [
        ("label", ("dog",)),
        ("label", ("fox",)),
        ("label", ("fox",)),
        ("label", ("cat",)),
        ("none", ()),
        ("unsure", ()),
        ("skip", ()),
    ]


@pytest.mark.slow
def test_one_key_a_card_whose_suggestion_is_right(open_page: Open, tmp_path: Path) -> None:
    """Over more cards than a page fetches at a time."""
    made = small_run(tmp_path, images=24, flagged=20, size=(8, 8), unreadable=False)
    opened = open_page(made)
    opened.wait_for(0)
    for number in range(20):
        opened.press("Enter", then=number + 1 if number < 19 else None)
    opened.page.wait_for_selector("#end:not([hidden])")
    answers = opened.answers()
    assert [each.id for each in answers] == list(made.images.ids[:20])
    assert all(each.labels == (each.shown["suggested_label"],) for each in answers)


def test_undo_brings_cards_back_any_number_of_times(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    assert opened.page.get_by_role("button", name="Undo").is_visible()
    opened.press("Enter", then=1)
    opened.press("n", then=2)
    opened.press("z", then=1)
    opened.press("z", then=0)
    opened.press("z")
    opened.page.wait_for_selector("#toast:not([hidden])")
    opened.press("3", then=1)
    opened.press("g", then=2)
    assert opened.said()[-2:] == [("label", ("fox",)), ("label", ("dog",))]


@pytest.mark.slow
def test_any_class_is_found_by_typing_and_stays_on_a_digit(open_page: Open, tmp_path: Path) -> None:
    made = small_run(tmp_path, images=30, flagged=20, names=[f"class {number}" for number in range(12)])
    opened = open_page(made)
    opened.wait_for(0)
    opened.press("/", "1", "1", "Enter", then=1)
    opened.page.locator("#recent").get_by_text("class 11").wait_for()
    opened.press("4", then=2)
    opened.press("/", "Escape", "n", then=3)
    assert opened.said() == [("label", ("class 11",)), ("label", ("class 11",)), ("none", ())]


@pytest.mark.slow
def test_several_classes_and_a_note(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.press("t")
    opened.page.locator("#note-text").fill("both <b>")
    opened.page.get_by_role("button", name="Keep with the answer").click()
    opened.press("m", "1", "Enter")
    assert opened.said() == [], "one class is not several"
    opened.press("2", "Enter", then=1)
    opened.press("Enter", then=2)
    assert opened.said() == [("several", ("dog", "cat")), ("label", ("fox",))]
    assert [each.note for each in opened.answers()] == ["both <b>", ""]


def test_escape_closes_the_filters_and_gives_the_keys_back(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.press("f")
    assert opened.page.evaluate("document.activeElement.name") == "which"
    opened.press("Escape")
    assert opened.page.locator("#filters").is_hidden()
    assert opened.page.locator("#filter-button").get_attribute("aria-expanded") == "false"
    opened.press("g", then=1)


def test_a_key_keeps_a_note(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.press("t")
    assert "Ctrl+Enter" in opened.page.get_by_role("button", name="Keep with the answer").inner_text()
    opened.press("a", "Enter", "b", "Control+Enter")
    opened.page.wait_for_selector("#note-shown:not([hidden])")
    assert opened.said() == [], "the key is of the note alone"
    opened.press("g", then=1)
    assert [each.note for each in opened.answers()] == ["a\nb"]


def test_a_group_of_one_says_so(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)

    def is_group(response: Response) -> bool:
        return response.url.endswith("/cards") and '"group"' in (response.request.post_data or "")

    with opened.page.expect_response(is_group):
        opened.page.locator("#queue").select_option("group")
    with opened.page.expect_response(is_group):  # the next group, without the images that are given back below
        opened.page.get_by_text("3 of 3 look-alikes").wait_for()
    for number in (6, 3):  # neither belongs to the group of 0
        opened.page.locator(f".member[aria-label$='img-0{number}']").click()
    opened.press("n")
    opened.page.locator(".member[aria-label$='img-01']").wait_for()
    opened.press("n")
    opened.page.locator(".member[aria-label$='img-02']").wait_for()
    opened.press("n")
    opened.page.locator(".member[aria-label$='img-06']").click()
    opened.press("n", then=6)
    badge = "No look-alike of this image is left, so it is answered alone."
    assert opened.page.locator("#about .badge").inner_text() == badge


def test_the_bar_fits_a_phone_and_filters_leave_the_answers_in_place(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made, viewport={"width": 390, "height": 844})
    opened.wait_for(0)
    cut = opened.page.evaluate("""() => {
        const list = document.getElementById("queue");
        const style = getComputedStyle(list);
        const pen = document.createElement("canvas").getContext("2d");
        pen.font = style.font;
        const room = list.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 20;
        const names = [...list.options].map((option) => option.text).concat("Copies with different labels (1,234)");
        return names.filter((name) => pen.measureText(name).width > room);
    }""")
    assert cut == [], "names of queues are cut"
    last = opened.page.locator("[data-do=undo]")
    before = last.bounding_box()
    opened.page.locator("#filter-button").click()
    assert opened.page.locator("#filters").is_visible() and last.bounding_box() == before
    assert before and before["y"] + before["height"] <= 844


def test_filters_queues_and_the_end(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.press("f")
    opened.page.locator("#filters [name=given]").click()
    opened.press("d", "o", "g", "Enter", then=1)
    opened.page.locator("#filters [name=text]").fill("07")
    opened.wait_for(7)
    # the card is the same one in the next queue: once it is shown, keys are no longer those of a field
    opened.page.wait_for_selector("#filters [name=text]:not(:focus)")
    opened.page.locator("#queue").focus()
    opened.page.locator("#queue").select_option("class")
    opened.page.wait_for_selector("#queue:not(:focus)")
    opened.press("n")
    opened.page.wait_for_selector("#end:not([hidden])")
    opened.page.get_by_role("button", name="Reset").click()
    opened.wait_for(0)
    opened.page.reload()
    opened.wait_for(0)
    assert opened.page.locator("#queue").input_value() == "class", "a reload keeps the queue"


@pytest.mark.slow
def test_the_cards_of_a_queue_that_came_too_late_change_nothing(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made, new=True)
    opened.wait_for(0)
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    opened.page.route("**/cards", hold_the_first)
    opened.page.locator("#queue").select_option("class")
    opened.page.locator("#queue").select_option("suspicious")
    opened.wait_for(0)
    with opened.page.expect_response("**/cards"):
        held[0].continue_()
    opened.page.wait_for_timeout(100)
    assert opened.id() == "img-00", "no card of the new queue is passed over"


def test_enter_takes_the_name_that_was_typed(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    for name, ends in (("bob", "Enter"), ("eve", "Escape")):
        opened.page.locator("#reviewer-button").click()
        opened.page.locator("#name-text").fill(name)
        opened.press(ends)
        opened.page.wait_for_selector("#name-dialog", state="hidden")
    opened.page.locator("#reviewer-button").click()
    assert opened.page.locator("#name-text").input_value() == "bob"
    opened.page.get_by_role("button", name="Cancel").click()
    opened.page.wait_for_selector("#name-dialog", state="hidden")
    opened.press("g", then=1)
    assert [each.reviewer for each in opened.answers()] == ["bob"]


@pytest.mark.slow
def test_nothing_that_was_noted_or_chosen_is_lost_by_a_slip(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.press("t")
    opened.page.locator("#note-text").fill("a note")
    box = opened.page.locator("#note-text").bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    opened.page.mouse.down()
    opened.page.mouse.move(3, 300)
    opened.page.mouse.up()
    assert opened.page.locator("#note-dialog").is_visible(), "a press that began inside selects text"
    opened.page.mouse.click(3, 300)
    opened.page.wait_for_selector("#note-shown:not([hidden])")
    assert opened.page.locator("#note-shown").inner_text() == "a note"
    opened.press("m", "1", "n", "g", "Enter", then=1)
    assert opened.said() == [("several", ("dog", "cat"))] and opened.answers()[0].note == "a note"
    opened.press("z", then=0)
    opened.page.wait_for_selector("#note-shown:not([hidden])")
    assert opened.page.locator("#note-shown").inner_text() == "a note", "undone is the answer, not the note"


@pytest.mark.slow
def test_a_copy_of_a_tab_has_cards_of_its_own(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made, new=True)
    opened.wait_for(0)
    with opened.page.expect_popup() as copy:
        opened.page.evaluate("window.open('/', '_blank')")
    copy.value.wait_for_selector("#end:not([hidden])")  # the first has them all
    opened.press("g", then=1)
    opened.page.reload()
    opened.wait_for(1)
    copy.value.close()
    assert opened.said() == [("label", ("cat",))]


@pytest.mark.slow
def test_a_whole_group_is_answered_at_once(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.page.locator("#queue").select_option("group")
    opened.page.wait_for_selector(".member")
    assert opened.page.locator(".member").count() == 3
    opened.page.locator(".member").nth(1).click()
    opened.press("Enter")
    opened.page.wait_for_selector(".member[aria-label*='img-01']")
    assert [(each.id, each.labels) for each in opened.answers()] == [("img-00", ("dog",)), ("img-06", ("dog",))]
    opened.press("z")
    opened.page.wait_for_selector(".member[aria-label*='img-06']")
    assert [each.kind for each in opened.answers()][-2:] == ["undo", "undo"]


@pytest.mark.slow
def test_unreadable_images_and_the_original(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.press("o")
    opened.page.wait_for_selector("#original[open] .strips section")
    size = opened.page.locator("#original .full img").evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert size == 48
    opened.press("Escape", "p")
    opened.page.locator("#stats[open]").get_by_text("Nothing was audited").wait_for()
    opened.press("Escape")
    opened.page.locator("#filter-button").click()
    opened.page.locator("#filters [name=which]").select_option("unreadable")
    opened.wait_for(11)
    assert "cannot be read" in opened.page.locator("#stage").inner_text()


@pytest.mark.slow
def test_an_audit_shows_no_suggestion(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made)
    opened.wait_for(0)
    opened.page.locator("#queue").select_option("audit")
    opened.page.wait_for_selector("main.audit")
    text = opened.page.locator("main").inner_text().lower()
    assert "suggested" not in text and "p_clean" not in text and "flagged" not in text
    opened.press("Enter")
    opened.page.wait_for_selector("#toast:not([hidden])")
    assert opened.said() == []
    first = opened.id()
    opened.press("g")
    opened.page.wait_for_selector(f"#about .id:not([title='{first}'])")
    assert [each.mode for each in opened.answers()] == ["audit"]


@pytest.mark.slow
def test_names_with_html_are_text(open_page: Open, tmp_path: Path) -> None:
    made = small_run(tmp_path, names=(EVIL, "<b>dog</b>", "fox"), prefix="<i>x")
    opened = open_page(made)
    opened.wait_for(0)
    assert opened.id() == "<i>x-00" and opened.page.locator(".facts .given .name").inner_text() == EVIL
    opened.press("/", "i", "m", "g", "Enter", then=1)
    opened.press("p")
    opened.page.wait_for_selector("#stats[open]")
    assert opened.page.locator("main img[src=x], dialog img[src=x], main b, dialog i").count() == 0
    assert opened.said() == [("label", (EVIL,))]


@pytest.mark.slow
def test_touch_on_a_phone(open_page: Open, made: SmallRun) -> None:
    opened = open_page(made, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    opened.wait_for(0)
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "the page is wider than the phone"
    for name in ("keep", "none", "undo"):
        box = opened.page.locator(f"[data-do={name}]").bounding_box()
        assert box and box["height"] >= 40 and box["y"] + box["height"] <= 844, "a button is too small or out of sight"
    opened.page.locator("#top button").first.tap()
    opened.wait_for(1)
    opened.page.locator("[data-do=none]").tap()
    opened.wait_for(2)
    assert opened.said() == [("label", ("dog",)), ("none", ())]


# All in one, since each question to a browser takes its time: other tests press the keys themselves.
_ACCEPT = """async () => {
    const shown = () => document.getElementById("end").hidden ? document.querySelector("#about .id").title : "";
    const before = shown();
    if (before) document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
    for (let wait = 0; before && shown() === before; wait += 1) {
        if (wait === 1000) throw new Error(`${before} stays`);
        await new Promise((next) => setTimeout(next, 5));
    }
    return before;
}"""


@pytest.mark.slow
def test_two_browsers_answer_different_cards(open_page: Open, tmp_path: Path) -> None:
    made = small_run(tmp_path, images=24, flagged=20, size=(8, 8), unreadable=False)
    with served(session_of(made)) as address:
        one, other = open_page(made, address=address), open_page(made, address=address, new=True)
        one.page.wait_for_selector("#top li")
        other.page.wait_for_selector("#top li")
        assert one.id() != other.id()
        while [each for each in (one, other) if each.page.evaluate(_ACCEPT)]:
            pass
    ids = [each.id for each in one.answers()]
    assert len(ids) == len(set(ids)) == 20


@pytest.mark.slow
def test_an_answer_that_was_not_saved_is_said_and_sent_again(
    open_page: Open, made: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_page(made, clock=True)
    opened.wait_for(0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        opened.press("Enter")
        opened.page.get_by_text("Not saved").wait_for()
        opened.press("n")
        assert opened.id() == "img-00" and opened.said() == [], "the card stays until its answer is on the disk"
    opened.page.clock.fast_forward(2000)
    opened.wait_for(1)
    assert opened.said() == [("label", ("dog",))] and opened.page.locator("#problem").is_hidden()
    opened.problems[:] = [each for each in opened.problems if "503" not in each]


def test_a_server_that_is_gone_loses_nothing(open_page: Open, made: SmallRun) -> None:
    with served(session_of(made)) as address:
        opened = open_page(made, address=address)
        opened.wait_for(0)
        opened.press("Enter", then=1)
    opened.press("n")
    opened.page.get_by_text("The server does not answer").wait_for()
    assert opened.id() == "img-01" and opened.said() == [("label", ("dog",))]
    opened.problems.clear()
