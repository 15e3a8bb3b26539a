"""The report in a real browser, opened from the file system as a user does."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from labelsieve import load_tags
from labelsieve.data.images import LabelledImages
from labelsieve.detect.scores import Scores
from labelsieve.detect.tags.scores import TagScores
from labelsieve.report.label_report import write_report
from labelsieve.report.tag_report import write_tag_report
from labelsieve.tags.verdicts import decide_tags
from labelsieve.verdicts import decide
from small_browser import EVIL, watch
from small_pictures import plain

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NO_STORAGE = (
    "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }});"
)
_STORED = "JSON.stringify(Object.entries(localStorage).sort())"


def wait_until(page: Any, condition: str) -> None:
    """Waits for a condition, asked from outside: the page's policy lets no script in it evaluate text later on."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"this did not come true: {condition}")


def reload(page: Any) -> None:
    """Loads the page again, until it finds what it stored: another process of the browser keeps it and may lose it."""
    stored = page.evaluate(_STORED)
    for _ in range(50):
        page.wait_for_timeout(50)
        page.reload()
        found = page.evaluate(_STORED)
        if found == stored:
            return
        page.evaluate(
            "entries => { localStorage.clear(); for (const each of entries) localStorage.setItem(...each) }",
            json.loads(stored),
        )
    pytest.fail(f"this was not stored: {stored}, but {found}")


@dataclass
class Opened:
    """A page with what went wrong in it and what it asked of the network."""

    page: Page
    problems: list[str] = field(default_factory=list)

    def ids(self) -> list[str]:
        """The ids of the visible cards, as they stand on the page."""
        return [text.strip() for text in self.page.locator("#gallery > li:not([hidden]) .id").all_text_contents()]

    def choose(self, name: str, value: str) -> None:
        self.page.locator(f"#filter [name={name}]").select_option(value)

    def fill(self, name: str, value: str) -> None:
        self.page.locator(f"#filter [name={name}]").fill(value)

    def focused(self) -> str:
        """The id of the card that has the focus."""
        return str(self.page.evaluate("document.activeElement.closest('li')?.querySelector('.id').textContent"))


Open = Callable[..., Opened]


def watched(page: Page) -> Opened:
    """Returns a page of which all that goes wrong is written down."""
    result = Opened(page)
    problems, local = result.problems, ("about:", "file:", "data:", "blob:")
    watch(page, problems, milliseconds=5000)  # all is local: what takes longer does not come
    page.on("request", lambda request: problems.extend([] if request.url.startswith(local) else [request.url]))
    return result


@pytest.fixture(scope="module")
def usual(browser: Browser) -> Opened:
    """The page of all tests that ask for nothing special: a new one for each would take most of their time."""
    return watched(browser.new_page())


@pytest.fixture
def open_page(browser: Browser, usual: Opened) -> Iterator[Open]:
    opened: list[Opened] = []

    def start(
        path: Path, *, size: tuple[int, int] = (1280, 720), dark: bool = False, before: str = "", **settings: Any
    ) -> Opened:
        result = watched(browser.new_page(**settings)) if before or settings else usual
        opened.append(result)
        page = result.page
        if before:
            page.add_init_script(before)
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto(path.as_uri())
        while result is usual and page.evaluate(_STORED) != "[]":  # see reload()
            page.goto(path.as_uri())
        return result

    yield start
    found = [problem for each in opened for problem in each.problems]
    for each in opened:
        if each is usual:
            each.problems.clear()
            each.page.evaluate("localStorage.clear()")
        else:
            each.page.close()
    assert found == []


def write(
    path: Path,
    *,
    names: tuple[str, ...] = ("cat", "dog", "bird"),
    prefix: str = "img",
    photos: Path | None = None,
    max_images: int = 5_000,
) -> Path:
    """Writes a report of 12 images: 0 to 8 flagged, the lower the more suspicious, 9 and 10 not, 11 unreadable.

    With `photos` the images are files there, and image 1 has a width of 1,200 pixels.
    """
    n = 12
    given = np.arange(n) % 3
    quality = (np.arange(n, dtype=np.float32) + 0.5) / 20
    quality[0] = 0.0001
    quality[9:11], quality[11] = 0.9, np.nan
    predicted = np.where(quality < 0.5, (given + 1) % 3, given)
    predicted[11] = -1
    cells = []
    for row in range(n):
        size = (300, 200) if row % 2 else (32, 32)
        data = plain((20 * row, 90, 200 - 10 * row), size=(1200, 800) if photos and row == 1 else size)
        place = photos / f"a b#{row}.png" if photos else None
        if place:
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
        cells.append({"bytes": None if place else data, "path": str(place) if place else None})
    images = LabelledImages(
        dataset=Dataset.from_dict({"image": cells}),
        ids=tuple(f"{prefix}-{row:02}" for row in range(n)),
        labels=given.astype(np.int64),
        class_names=names,
        contents=np.arange(n, dtype=np.uint64),
        truth=np.where(np.arange(n) < 8, (given + 1) % 3, given),
    )
    scores = Scores(
        label_quality=quality.astype(np.float32),
        predicted=predicted.astype(np.int64),
        confidence=np.where(np.isnan(quality), np.nan, 0.8).astype(np.float32),
        errors={11: "the file is empty"},
    )
    record = {
        "source": "a/very/long/path/of/a/source/that/does/not/fit/on/a/phone/and/must/be/broken.parquet",
        "threshold": 0.5,
        "model": {"name": "organisation/a-model-with-a-very-long-name-that-must-be-broken-somewhere"},
        "findings": [{"level": "warning", "figure": "4 % agree", "message": "Hard names.", "advice": "Rename them."}],
    }
    return write_report(decide(images, scores, record=record), images, path, max_images=max_images)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def tag_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a report on six images and two classes: the first class of each looks wrong, the second one missing."""
    folder, count = tmp_path_factory.mktemp("tags"), 6
    drawn = [np.full((40, 40, 3), 40 * each, dtype=np.uint8) for each in range(count)]
    names = ("=cat", "dog, wet")
    images = load_tags(drawn, tags=np.repeat([[True, False]], count, axis=0), class_names=names)
    present = np.linspace(0.01, 0.12, 2 * count, dtype=np.float32).reshape(count, 2) * [1, -1] + [0, 1]
    nothing = np.full(2, np.nan)
    scores = TagScores(
        tags=images.tags,
        present=present.astype(np.float32),
        thresholds=(0.2, 0.2),
        issue=np.ones_like(images.tags),
        omission=nothing,
        commission=nothing,
    )
    return write_tag_report(decide_tags(images, scores), images, folder / "report.html")


def img(*numbers: int) -> list[str]:
    return [f"img-{number:02}" for number in numbers]


def test_shows_flagged_images_by_rank(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    assert opened.ids() == img(*range(9))
    assert opened.page.locator("#shown").text_content() == "9 of 11 images shown"
    first = opened.page.locator("article img").evaluate_all("all => all.slice(0, 2).map(each => each.naturalWidth)")
    assert first == [32, 256]


@pytest.mark.slow
def test_filters_and_sorts(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    opened.choose("given", "1")
    assert opened.ids() == img(1, 4, 7)
    opened.choose("suggested", "0")
    assert opened.ids() == [] and opened.page.locator("#empty").is_visible()
    opened.page.locator("#clear").click()
    assert opened.ids() == img(*range(9))
    opened.fill("from", "0.1")
    opened.fill("to", "0.3")
    assert opened.ids() == img(2, 3, 4, 5)
    opened.fill("text", "IMG-04")
    assert opened.ids() == img(4)
    opened.page.locator("#clear").click()
    opened.choose("status", "near")
    assert opened.ids() == img(9, 10)
    opened.choose("status", "")
    opened.choose("sort", "-quality")
    assert opened.ids() == img(9, 10, *range(8, -1, -1))


def test_a_figure_filters_the_images(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    opened.fill("text", "nothing has this name")
    opened.page.locator(".matrix a[data-given='0'][data-suggested='1']").click()
    assert opened.ids() == img(0, 3, 6)
    opened.page.locator(".bars a", has_text="bird").click()
    assert opened.ids() == img(2, 5, 8)


# All in one, since each question to a browser takes its time: other tests have the links and lists one at a time.
_SHOWN = "document.querySelectorAll('#gallery > li:not([hidden])').length"
_CLICKED = f"""([links, counts]) => {{
    const told = [...document.querySelectorAll(counts)].map((each) => each.textContent);
    return [...document.querySelectorAll(links)].map((link, place) => {{
        link.click();
        return [told[place], {_SHOWN}];
    }});
}}"""
_CHOSEN = f"""(name) => {{
    const list = document.querySelector(`#filter [name=${{name}}]`);
    const found = [...list.options].map((each) => [each.value, each.textContent]).map(([value, text]) => {{
        list.value = value;
        list.dispatchEvent(new Event("input", {{bubbles: true}}));
        return [text, {_SHOWN}];
    }});
    document.getElementById("clear").click();
    return found;
}}"""


@pytest.mark.slow
def test_counts_are_what_a_click_shows(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    cells = page.evaluate(_CLICKED, [".matrix a[data-given]", ".matrix a[data-given]"])
    bars = page.evaluate(_CLICKED, ["ol.bars a", "ol.bars .value small"])
    assert len(cells) == len(bars) == 3
    assert all(int(count.split(" of ")[0]) == shown > 0 for count, shown in cells + bars), (cells, bars)
    page.locator("#clear").click()
    for name in ("given", "suggested", "status", "mark"):
        chosen = page.evaluate(_CHOSEN, name)
        assert len(chosen) > 2
        assert all(text.endswith(f" ({shown})") for text, shown in chosen), "the count of a list is not what it shows"
    opened.choose("given", "1")
    assert page.locator("#filter [name=suggested] option").all_text_contents() == [
        "All (3)", "bird (3)", "cat (0)", "dog (0)",
    ]  # fmt: skip


@pytest.mark.slow
def test_counts_fit_a_page_that_is_too_small_for_all(open_page: Open, tmp_path: Path) -> None:
    opened = open_page(write(tmp_path / "report.html", max_images=5))
    assert "The 5 most suspicious of 9 flagged images." in (opened.page.locator("#images .lead").text_content() or "")
    assert "labelsieve report RUN --max-images 9" in (opened.page.locator("#images .lead").text_content() or "")
    assert opened.page.locator(".matrix a").all_text_contents() == ["2", "2", "1"]
    opened.page.locator(".bars a", has_text="cat").click()
    assert opened.ids() == img(0, 3)
    assert opened.page.locator(".bars li", has_text="cat").locator(".here").text_content() == "2 on this page"


@pytest.mark.slow
def test_filters_outlive_a_reload(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    opened.page.locator(".matrix a[data-given='0'][data-suggested='1']").click()
    opened.fill("from", "0.1")
    opened.choose("sort", "-quality")
    assert opened.ids() == img(6, 3)
    reload(page)
    assert opened.ids() == img(6, 3) and page.locator("#filter [name=from]").input_value() == "0.1"
    page.locator("nav a[href='#overview']").click()
    reload(page)
    assert opened.ids() == img(6, 3), "a link to a section takes no filter away"
    page.locator("#clear").click()
    reload(page)
    assert opened.ids() == img(*range(9)) and "=" not in page.url
    page.goto(f"{report.as_uri()}#given=77&sort=nonsense&mark=unsure")
    page.reload()
    assert opened.ids() == [] and page.locator("#filter [name=given]").input_value() == ""
    assert page.locator("#filter [name=sort]").input_value() == "rank", "what the page does not know is left out"


@pytest.mark.slow
def test_keys_need_no_click(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    marked = page.locator("#marked")
    page.keyboard.press("w")
    assert marked.text_content() == "0" and opened.focused() == "img-00", "nothing is marked that cannot be seen"
    page.evaluate("document.activeElement.blur()")
    for key in ("w", "ArrowRight", "r"):
        page.keyboard.press(key)
    assert marked.text_content() == "2" and opened.focused() == "img-03"
    page.locator(".matrix a[data-given='0'][data-suggested='1']").click()
    page.locator("#gallery li:not([hidden])").first.scroll_into_view_if_needed()
    page.keyboard.press("u")
    assert page.locator("#count-unsure").text_content() == "1", "the link that was clicked keeps no keys"
    page.locator("#filter [name=text]").fill("")
    page.locator("#filter [name=text]").press("w")
    assert marked.text_content() == "3", "a key in a field is text"


def test_arrows_scroll_the_page_where_no_card_is_seen(open_page: Open, report: Path) -> None:
    page = open_page(report, size=(1280, 400)).page
    page.keyboard.press("ArrowDown")
    wait_until(page, "window.scrollY > 0")
    assert page.evaluate("document.activeElement === document.body")


_LOOK = """(button) => {
    const style = getComputedStyle(button);
    return [button.ariaPressed, button.matches(":hover"), style.color, style.backgroundColor];
}"""


@pytest.mark.slow
def test_the_word_on_a_mark_can_be_read(open_page: Open, report: Path) -> None:
    page = open_page(report).page
    for mark in ("wrong", "right", "unsure"):
        button = page.locator("article").nth(1).locator(f"[data-mark={mark}]")
        for pressed in ("true", "false"):
            button.click()
            *found, color, ground = button.evaluate(_LOOK)
            assert found == [pressed, True] and color != ground, (mark, pressed)


@pytest.mark.slow
def test_enlarges_to_the_image_file(open_page: Open, tmp_path: Path) -> None:
    report = write(tmp_path / "run" / "report.html", photos=tmp_path / "the photos")
    (tmp_path / "the photos" / "a b#3.png").unlink()
    opened = open_page(report)
    page = opened.page
    shown = "document.getElementById('large-image').naturalWidth"
    page.locator(".stage").nth(1).click()
    wait_until(page, f"{shown} === 1200")
    assert page.locator("#large-size").text_content() == "1,200 \u00d7 800 pixels"
    page.locator("#whole").click()
    assert page.locator("#large-image").evaluate("each => each.offsetWidth") == 1200
    page.locator("#large-image").click()
    assert page.locator("#large-image").evaluate("each => each.offsetWidth") < 1200
    page.keyboard.press("ArrowRight")
    wait_until(page, f"{shown} === 32")
    assert page.locator("#whole").is_hidden() and page.locator("#large-size").text_content() == "32 \u00d7 32 pixels"
    page.keyboard.press("ArrowRight")
    wait_until(page, f"{shown} === 256 && document.getElementById('large-size').textContent.includes('from')")
    assert page.locator("#large-size").text_content() == "300 \u00d7 200 pixels, shown from 256 \u00d7 171"
    page.wait_for_timeout(200)
    assert [each for each in opened.problems if "ERR_FILE_NOT_FOUND" not in each] == []
    opened.problems.clear()  # the browser tells of the file that is gone


def test_marks_with_the_keyboard_and_downloads_them(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    page.locator("article").first.focus()
    for key in ("w", "2", "ArrowRight", "u", "End", "1", "Home"):
        page.keyboard.press(key)
    assert opened.focused() == "img-00"
    assert page.locator("#marked").text_content() == "4"
    assert [page.locator(f"#count-{mark}").text_content() for mark in ("wrong", "right", "unsure")] == ["2", "1", "1"]
    with page.expect_download() as waiting:
        page.locator("#download").click()
    assert waiting.value.suggested_filename == "labelsieve-marks.csv"
    rows = list(csv.DictReader(waiting.value.path().read_text("utf-8").splitlines()))
    assert list(rows[0]) == ["id", "given_label", "suggested_label", "label_quality", "mark"]
    assert [(row["id"], row["mark"]) for row in rows] == [
        ("img-00", "wrong"), ("img-01", "right"), ("img-03", "unsure"), ("img-08", "wrong"),
    ]  # fmt: skip
    assert rows[0] == {
        "id": "img-00",
        "given_label": "cat",
        "suggested_label": "dog",
        "label_quality": "0.0001",
        "mark": "wrong",
    }
    reload(page)
    assert page.locator("#marked").text_content() == "4", "marks are kept"
    opened.choose("mark", "wrong")
    assert opened.ids() == img(0, 8)


@pytest.mark.slow
def test_the_right_class_is_typed_beside_the_enlarged_image(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    page.locator("article").first.focus()
    page.keyboard.press("Enter")
    page.locator("#choose").fill("wolfx")
    page.locator("#choose").press("Tab")
    assert page.locator("#marked").text_content() == "0", "there is no such class"
    page.locator("#choose").fill("DOG")
    page.locator("#choose").press("Tab")
    assert page.locator("#count-wrong").text_content() == "1"
    assert page.locator("#choose").input_value() == "dog"
    page.locator("#next").click()
    assert page.locator("#choose").input_value() == ""
    page.locator("#choose").fill(page.locator("#large-given").text_content() or "")
    page.locator("#choose").press("Tab")
    assert page.locator("#count-right").text_content() == "1"
    page.locator("#close").click()
    reload(page)
    with page.expect_download() as waiting:
        page.locator("#download").click()
    rows = list(csv.DictReader(waiting.value.path().read_text("utf-8").splitlines()))
    assert [(row["id"], row["mark"], row["new_label"]) for row in rows] == [
        ("img-00", "wrong", "dog"),
        ("img-01", "right", ""),
    ]
    # another mark takes the class away
    page.locator("article").first.focus()
    page.keyboard.press("u")
    with page.expect_download() as waiting:
        page.locator("#download").click()
    assert "new_label" not in waiting.value.path().read_text("utf-8")


def test_the_suggested_class_is_taken_by_a_key_or_a_button(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    page.locator("article").first.focus()
    for key in ("s", "w", "4", "4", "s", "w"):  # 0 suggested, 1 wrong, 2 suggested, 3 and 4 as well, 5 wrong
        page.keyboard.press(key)
    page.locator("article").nth(1).locator("[data-mark=suggested]").click()  # instead of wrong
    page.locator("article").nth(2).locator("[data-mark=suggested]").click()  # taken away
    assert "apply and export leave the image out" in str(page.locator("[data-mark=wrong]").first.get_attribute("title"))
    page.locator(".stage").nth(3).click()
    assert page.locator("#choose").input_value() == page.locator("#large-suggested").inner_text().split(",")[0]
    page.locator("dialog [data-mark=suggested]").click()
    assert page.locator("#choose").input_value() == "" and page.locator("#count-wrong").text_content() == "4"
    page.locator("#close").click()
    pressed = page.locator("article [aria-pressed=true]").evaluate_all("all => all.map(each => each.dataset.mark)")
    assert pressed == ["suggested", "suggested", "suggested", "wrong"]
    with page.expect_download() as waiting:
        page.locator("#download").click()
    rows = list(csv.DictReader(waiting.value.path().read_text("utf-8").splitlines()))
    assert [(row["id"], row["mark"], row["new_label"] == row["suggested_label"]) for row in rows] == [
        ("img-00", "wrong", True),
        ("img-01", "wrong", True),
        ("img-04", "wrong", True),
        ("img-05", "wrong", False),
    ]
    assert rows[-1]["new_label"] == "", "wrong alone names no class"


@pytest.mark.slow
def test_a_class_is_taken_only_where_it_is_another_one(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    opened.choose("status", "near")  # their labels are those that the model suggests
    assert page.locator("article:visible [data-mark=suggested]").count() == 0
    page.locator("article:visible").first.focus()
    page.keyboard.press("s")
    assert page.locator("#marked").text_content() == "0"
    page.keyboard.press("Enter")
    assert not page.locator("dialog [data-mark=suggested]").is_visible()


@pytest.mark.slow
def test_arrows_move_by_row_and_a_second_press_takes_the_mark_away(open_page: Open, report: Path) -> None:
    opened = open_page(report, size=(700, 900))
    page = opened.page
    page.locator("article").first.focus()
    page.keyboard.press("ArrowDown")
    assert opened.focused() == "img-02"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert opened.focused() == "img-00"
    page.locator("#advance").evaluate("box => { box.checked = false; }")
    page.keyboard.press("r")
    assert opened.focused() == "img-00" and page.locator("#marked").text_content() == "1"
    page.keyboard.press("r")
    assert page.locator("#marked").text_content() == "0" and page.locator("#download").is_disabled()
    page.keyboard.press("Control+r")  # a shortcut of the browser is none of the page
    assert page.locator("#marked").text_content() == "0"


def test_only_one_card_is_in_the_tab_order(open_page: Open, report: Path) -> None:
    page = open_page(report).page
    page.locator("article").nth(2).focus()
    assert page.locator("#gallery [tabindex='0']").count() == 6  # the card, its picture and four marks
    assert page.locator("article[tabindex='0']").count() == 1


def test_marking_under_a_filter_goes_on_with_the_next(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    opened.choose("mark", "none")
    opened.page.locator("article").first.focus()
    for _ in range(3):
        opened.page.keyboard.press("w")
    assert opened.ids() == img(*range(3, 9)) and opened.focused() == "img-03"


def test_marks_with_the_mouse(open_page: Open, report: Path) -> None:
    page = open_page(report).page
    button = page.locator("article").nth(1).locator("[data-mark=unsure]")
    button.click()
    assert button.get_attribute("aria-pressed") == "true" and page.locator("#count-unsure").text_content() == "1"
    assert page.evaluate("document.activeElement.dataset.mark") == "unsure", "the focus stays where it was"


def test_enlarges(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    page.locator(".stage").first.click()
    assert page.evaluate("document.activeElement.id") == "close", "the space bar must not mark what was just opened"
    assert page.locator("#large-quality").text_content() == "<\u00a00.001", "the card and its large view disagree"
    assert page.locator("#large-suggested").text_content() == "dog, 80\u00a0%"
    page.keyboard.press("Escape")
    page.locator(".stage").nth(1).click()
    title = page.locator("#large-title")
    assert title.text_content() == "img-01" and page.locator("#large-place").text_content() == "2 of 9"
    page.keyboard.press("ArrowRight")
    assert title.text_content() == "img-02"
    page.keyboard.press("3")
    assert title.text_content() == "img-03" and page.locator("#count-unsure").text_content() == "1"
    page.locator("#previous").click()
    assert page.locator("dialog [data-mark=unsure]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    wait_until(page, "document.activeElement.closest('li')?.innerText.includes('img-02')")
    assert not page.locator("dialog").is_visible()


@pytest.mark.slow
def test_works_without_storage(open_page: Open, report: Path) -> None:
    page = open_page(report, before=_NO_STORAGE).page
    assert page.locator("#volatile").is_visible()
    page.locator("article").first.focus()
    page.keyboard.press("w")
    assert page.locator("#marked").text_content() == "1"
    page.locator("#theme").click()
    with page.expect_download() as waiting:
        page.locator("#download").click()
    assert "img-00,cat,dog,0.0001,wrong" in waiting.value.path().read_text("utf-8")


@pytest.mark.slow
def test_stored_nonsense_does_no_harm(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    page = opened.page
    page.locator("article").first.focus()
    page.keyboard.press("w")
    key = page.evaluate("Object.keys(localStorage).find(key => key.startsWith('labelsieve-marks-'))")
    for stored in ("no json", "[1]", "null", '{"img-00": "constructor", "img-01": 7}'):
        page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, stored])
        reload(page)
        assert page.locator("#marked").text_content() == "0" and len(opened.ids()) == 9, stored


@pytest.mark.slow
def test_dark_and_light(open_page: Open, report: Path) -> None:
    page = open_page(report, dark=True).page
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.locator("#theme").click()
    light = page.evaluate(ground)
    assert (dark, light) == ("rgb(18, 20, 22)", "rgb(246, 246, 243)")
    reload(page)
    assert page.evaluate(ground) == light, "the choice is kept"
    page.locator("#theme").click()
    assert page.evaluate(ground) == dark


def test_never_scrolls_sideways(open_page: Open, report: Path) -> None:
    page = open_page(report).page
    for width in (360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(".stage").first.click()
        box = page.locator("dialog").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
        page.keyboard.press("Escape")


def right_edge(page: Page, name: str) -> float:
    """Returns the mean brightness of the last pixels of a region that scrolls, on its ground below the header."""
    pixels = np.asarray(Image.open(io.BytesIO(page.locator(f"[aria-label='{name}']").screenshot())).convert("L"))
    return float(np.median(pixels[45:105, -5:-2]))


def test_sections_fit_on_a_phone(open_page: Open, report: Path) -> None:
    page = open_page(report, size=(390, 740)).page
    right = page.locator("nav").evaluate("nav => nav.getBoundingClientRect().right")
    places = page.locator("nav a").evaluate_all("links => links.map(link => link.getBoundingClientRect().right)")
    assert len(places) == 6 and max(places) <= right, "all sections can be seen"
    page.locator("nav a").last.click()
    top = page.locator("#unreadable").evaluate("section => section.getBoundingClientRect().top")
    assert top >= page.locator("#topbar").evaluate("bar => bar.offsetHeight") - 1
    caption = "getComputedStyle(document.querySelector('#unreadable td'), '::before').content"
    assert page.evaluate(caption) == '"Given label: "'
    page.locator("article [data-mark=suggested]").first.click()  # a pressed button has bold text
    for button in page.locator("article").first.locator(".mark").all():
        room = button.evaluate("""button => {
            const range = document.createRange();
            range.selectNodeContents(button);
            return button.clientWidth - range.getBoundingClientRect().width;
        }""")
        assert room >= 6, f"a word touches the edges of its button: {button.inner_text()}, {room}"


def test_an_edge_shows_that_a_table_scrolls(open_page: Open, report: Path) -> None:
    page = open_page(report, size=(390, 740)).page
    table = page.locator("[aria-label='Table of classes']")
    assert table.evaluate("region => region.scrollWidth > region.clientWidth")
    table.evaluate("region => region.scrollIntoView({block: 'center'})")  # clear of the bars
    shaded = right_edge(page, "Table of classes")
    table.evaluate("region => { region.scrollLeft = region.scrollWidth; }")
    assert right_edge(page, "Table of classes") > shaded + 20


@pytest.mark.slow
def test_hostile_names_are_only_text(open_page: Open, tmp_path: Path) -> None:
    names = (EVIL, f"{EVIL} 2", '={{7*7}}, "q"\nline')
    opened = open_page(write(tmp_path / "report.html", names=names, prefix=f'{EVIL},"'))
    page = opened.page
    assert len(opened.ids()) == 9 and page.locator("article .given").first.text_content() == EVIL
    page.locator(".matrix a").first.click()
    assert len(opened.ids()) == 3
    page.locator("#clear").click()
    page.locator("article").first.focus()
    for key in ("w", "w", "w", "Enter"):
        page.keyboard.press(key)
    assert page.locator("#large-title").text_content() == f'{EVIL},"-03'
    page.keyboard.press("Escape")
    with page.expect_download() as waiting:
        page.locator("#download").click()
    rows = list(csv.reader(io.StringIO(waiting.value.path().read_bytes().decode("utf-8"), newline="")))
    assert rows[1][:3] == [f'{EVIL},"-00', names[0], names[1]]
    assert rows[3][1] == f"'{names[2]}", "no formula for a spreadsheet"


@pytest.mark.slow
def test_reads_without_scripts(open_page: Open, report: Path) -> None:
    page = open_page(report, java_script_enabled=False).page
    assert page.locator("article").count() == 11 and page.locator("article").first.is_visible()
    assert not page.locator("#filters").is_visible() and not page.locator("#theme").is_visible()


def test_tags_are_marked_by_key_and_mouse_and_downloaded(open_page: Open, tag_report: Path) -> None:
    page = open_page(tag_report).page
    page.locator("#wrong article").first.focus()
    for key in ("a", "1", "ArrowRight", "u", "ArrowLeft", "3"):  # the last key takes away what the one before said
        page.keyboard.press(key)
    page.locator("#missing article [data-mark=present]").last.click()
    assert page.locator("#marked").text_content() == "3"
    with page.expect_download() as waiting:
        page.locator("#download").click()
    rows = list(csv.DictReader(waiting.value.path().read_text("utf-8").splitlines()))
    assert [(row["id"], row["class_name"], row["kind"], row["mark"]) for row in rows] == [
        ("0000000", "'=cat", "wrong", "absent"),
        ("0000001", "'=cat", "wrong", "present"),
        ("0000005", "dog, wet", "missing", "present"),
    ]
    assert rows[0]["label_quality"] == "0.01"
    reload(page)
    assert page.locator("#marked").text_content() == "3", "marks are kept"
    pressed = page.locator("[data-mark][aria-pressed=true]")
    assert pressed.evaluate_all("found => found.map(each => each.dataset.mark)") == ["absent", "present", "present"]


def test_tags_can_be_marked_on_a_phone(open_page: Open, tag_report: Path) -> None:
    page = open_page(tag_report, size=(390, 844)).page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator("#wrong article [data-mark=unsure]").first.click()
    assert page.locator("#count-unsure").text_content() == "1"
    assert page.locator("#wrong article button").first.bounding_box()["height"] >= 40  # type: ignore[index]
    page.keyboard.press("ArrowDown")
    assert (
        page.evaluate("[...document.querySelectorAll('[data-card]')].indexOf(document.activeElement.closest('li'))")
        == 2
    )
