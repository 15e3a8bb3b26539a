"""Boxes as a person sees them: in their surroundings, in their image, and never another part of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

import labelsieve as ls
from labelsieve.app.thumbnails import Thumbnails
from labelsieve.data.images import UnreadableImageError
from labelsieve.detect.scores import Scores
from labelsieve.report.box_views import Area, BoxView, in_context, in_full_image, outlined, window_around
from labelsieve.report.label_report import write_report
from labelsieve.report.thumbnails import make_thumbnails
from labelsieve.verdicts import decide
from small_browser import watch
from small_reviews import SmallRun
from small_server import TOKEN, Client, served, session_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GROUND, RED, BLUE = (0, 160, 0), (220, 0, 0), (0, 0, 220)
# Two boxes of one image of 300 x 200 pixels, one outside of it, and one in an image that its file stores on its side.
SIDES = [(200, 120, 40, 30), (20, 20, 60, 60), (900, 20, 10, 10), (20, 230, 60, 40)]
ROTATE_90_RIGHT = 6


def scene() -> Image.Image:
    image = Image.new("RGB", (300, 200), GROUND)
    draw = ImageDraw.Draw(image)
    draw.rectangle((200, 120, 239, 149), fill=RED)
    draw.rectangle((20, 20, 79, 79), fill=BLUE)
    return image


def write_scene(folder: Path) -> Path:
    """Writes a COCO file of the two images and four boxes."""
    scene().save(folder / "scene.png")
    upright = Image.new("RGB", (200, 300), GROUND)
    ImageDraw.Draw(upright).rectangle((20, 230, 79, 269), fill=RED)
    exif = Image.Exif()
    exif[0x0112] = ROTATE_90_RIGHT
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "portrait.jpg", quality=95, exif=exif)
    names = ["scene.png", "portrait.jpg"]
    found = {
        "images": [{"id": index, "file_name": name} for index, name in enumerate(names)],
        "annotations": [
            {"id": 70 + row, "image_id": row // 3, "category_id": 1 + row % 2, "bbox": list(sides)}
            for row, sides in enumerate(SIDES)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "boxes.json").write_text(json.dumps(found))
    return folder / "boxes.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run of the boxes in which all that can be read are flagged."""
    folder = tmp_path_factory.mktemp("boxes")
    images = ls.load_images(str(write_scene(folder)))
    scores = Scores(
        label_quality=np.array([0.1, 0.2, np.nan, 0.3], dtype=np.float32),
        predicted=np.array([1, 0, -1, 0], dtype=np.int64),
        confidence=np.array([0.9, 0.9, np.nan, 0.9], dtype=np.float32),
        errors={2: "72: the box lies outside of its image of 300 x 200 pixels"},
    )
    record = {"data": {"fingerprint": images.fingerprint}, "threshold": 0.5, "out": str(folder / "run")}
    verdicts = decide(images, scores, record={**record, "source": str(folder / "boxes.json")})
    verdicts.save(folder / "run")
    return SmallRun(folder / "run", images, verdicts)


def is_near(pixel: Any, colour: tuple[int, int, int], *, by: int = 30) -> bool:
    return bool(np.abs(np.asarray(pixel, dtype=int) - np.array(colour)).max() <= by)


def dimmed(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (round(0.62 * value) for value in colour)
    return red, green, blue


def share_of(image: Image.Image, colour: tuple[int, int, int]) -> float:
    """Returns how much of an image has about a colour."""
    pixels = np.asarray(image.convert("RGB"), dtype=int)
    return float((np.abs(pixels - np.array(colour)).max(axis=-1) <= 30).mean())


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def from_uri(uri: str) -> Image.Image:
    return opened(base64.b64decode(uri.partition(",")[2]))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param((100, 100, 150, 140), (75, 80, 175, 160), id="twice the box"),
        pytest.param((200, 100, 206, 106), (187, 87, 219, 119), id="tiny"),
        pytest.param((200, 50, 210, 150), (155, 0, 255, 200), id="tall"),
        pytest.param((0, 100, 50, 140), (0, 80, 100, 160), id="at the left edge"),
        pytest.param((350, 260, 400, 300), (300, 220, 400, 300), id="in a corner"),
        pytest.param((0, 0, 400, 300), (0, 0, 400, 300), id="all of its image"),
        pytest.param((10.5, 10.5, 100.25, 90.0), (0, 0, 180, 160), id="parts of pixels"),
    ],
)
def test_a_window_holds_the_box_and_some_of_what_is_around(box: Any, expected: Any) -> None:
    window = window_around(Area(*box), size=(400, 300))
    assert np.abs(np.array(window) - expected).max() <= 1
    assert window.left <= box[0] and window.top <= box[1] and window.right >= box[2] and window.bottom >= box[3]


def test_a_box_is_shown_bright_in_the_middle_of_its_dimmed_surroundings(made: SmallRun) -> None:
    shown = in_context(made.images, 0).drawn(400)
    assert shown.size == (400, 300)
    assert is_near(shown.getpixel((200, 150)), RED) and is_near(shown.getpixel((110, 85)), RED)
    assert is_near(shown.getpixel((5, 5)), dimmed(GROUND)) and is_near(shown.getpixel((395, 295)), dimmed(GROUND))
    assert share_of(shown, RED) == pytest.approx(0.25, abs=0.02) and share_of(shown, BLUE) == 0
    assert share_of(shown, dimmed(RED)) == share_of(shown, GROUND) == 0, "the line is not around the box"
    assert scene().tobytes() == made.images.full_image(0).tobytes(), "drawing has changed the image that is kept"


def test_the_line_is_seen_on_any_ground_and_at_the_edges(subtests: pytest.Subtests) -> None:
    boxes = ((40, 40, 60, 60), (0, 0, 100, 100), (0, 30, 4, 34), (97, 97, 100, 100))
    for ground, box in product(("white", "black", "gray"), boxes):
        with subtests.test(ground=ground, box=box):
            image = Image.new("RGB", (100, 100), ground)
            view = BoxView.around(image, Area(*box))
            for shown in (view.drawn(200), outlined(image, Area(*box))):
                levels = np.asarray(shown.convert("L"), dtype=int)
                for side in (levels, levels.T):  # a light line beside a dark one, across and down
                    assert ((side[:, 1:] == 255) & (side[:, :-1] == 16)).any()
                    assert ((side[:, 1:] == 16) & (side[:, :-1] == 255)).any()


def test_a_tiny_box_is_enlarged_and_found_in_its_image() -> None:
    image = Image.new("RGB", (2000, 1500), GROUND)
    ImageDraw.Draw(image).rectangle((1400, 300, 1405, 305), fill=RED)
    box = Area(1400, 300, 1406, 306)
    shown = BoxView.around(image, box).drawn(256)
    assert share_of(shown, RED) * 256 * 256 > 30 * 30
    found = np.argwhere((np.asarray(outlined(image, box)) == 255).all(axis=-1))
    assert np.abs(found.mean(axis=0) - (303, 1403)).max() < 2 and np.ptp(found, axis=0).min() > 100


def test_the_whole_image_has_the_box_outlined_and_keeps_its_pixels(made: SmallRun) -> None:
    shown = np.asarray(in_full_image(made.images, 0))
    changed = np.argwhere((shown != np.asarray(scene())).any(axis=-1))
    assert changed.min(axis=0).tolist() == [116, 196] and changed.max(axis=0).tolist() == [153, 243]
    assert (shown[120:150, 200:240] == RED).all()


def test_boxes_are_those_of_the_image_as_it_is_seen(made: SmallRun) -> None:
    shown = in_context(made.images, 3).drawn(240)
    assert is_near(shown.getpixel((shown.width // 3, shown.height // 2)), RED)
    assert share_of(shown, RED) > 0.2
    full_image = in_full_image(made.images, 3)
    assert full_image.size == (200, 300) and is_near(full_image.getpixel((50, 250)), RED)


def test_a_box_that_cannot_be_shown_says_why(made: SmallRun) -> None:
    for view in (in_context, in_full_image):
        with pytest.raises(UnreadableImageError, match="72: the box lies outside of its image of 300 x 200 pixels"):
            view(made.images, 2)


def test_thumbnails_show_boxes_in_their_surroundings_or_cut_out(made: SmallRun) -> None:
    around, _, outside, _ = make_thumbnails(made.images, range(4), side=256, budget=10**6, surroundings=True)
    assert (around.width, around.height, around.full_size) == (256, 192, (300, 200))
    assert [around.box, around.window] == [(200, 120, 240, 150), (180, 105, 260, 165)]
    assert is_near(from_uri(around.uri).getpixel((128, 96)), RED)
    assert is_near(from_uri(around.uri).getpixel((8, 8)), dimmed(GROUND))
    assert not outside.uri and "outside of its image" in outside.error
    (cut,) = make_thumbnails(made.images, [0], side=256, budget=10**6)
    assert cut.box is None and share_of(from_uri(cut.uri), RED) > 0.6


def test_thumbnails_of_boxes_keep_within_their_budget(tmp_path: Path) -> None:
    path = write_scene(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "scene.png")
    images = ls.load_images(str(path))
    for budget in (8_000, 400_000):
        thumbnails = make_thumbnails(images, [0, 1, 3], side=256, budget=budget, surroundings=True)
        assert sum(len(each.uri) for each in thumbnails) <= budget and all(each.uri for each in thumbnails)


def test_review_serves_each_view_of_a_box(made: SmallRun) -> None:
    with served(session_of(made)) as address:
        client = Client(address)
        large, small, full_image = (
            opened(client.open(path)[1]) for path in ("/thumbnails/large/0", "/thumbnails/small/0", "/images/0")
        )
        status, reason, _ = client.open("/images/2")
        cards = {card["row"]: card for card in client.cards()}
    assert large.size == (720, 540) and is_near(large.getpixel((10, 10)), dimmed(GROUND))
    assert share_of(large, RED) == pytest.approx(0.25, abs=0.02)
    assert small.size == (48, 36) and share_of(small, RED) > 0.6
    assert full_image.size == (300, 200) and is_near(full_image.getpixel((220, 135)), RED)
    assert is_near(full_image.getpixel((5, 195)), GROUND)
    assert status == 404 and b"72: the box lies outside" in reason
    assert cards[0]["box"] == {"image": "scene.png", "middle": [220, 135], "is_relative": False}
    assert cards[3]["box"]["image"] == "portrait.jpg"


def test_kept_thumbnails_are_those_of_the_box_and_its_margin(made: SmallRun) -> None:
    boxes = made.images.boxes
    assert boxes is not None
    first, wider = Thumbnails(made.images), Thumbnails(replace(made.images, boxes=boxes.with_margin(1.0)))
    assert first.folder != wider.folder and first.folder == Thumbnails(made.images).folder
    assert opened(first.get(0, "small")[1]).size == (48, 36)
    assert opened(wider.get(0, "small")[1]).size == (120, 90)
    assert first.get(0, "large") != first.get(1, "large")
    assert share_of(opened(first.get(1, "large")[1]), BLUE) > 0.2


def test_a_report_of_boxes_names_their_images(made: SmallRun, tmp_path: Path) -> None:
    text = write_report(made.verdicts, made.images, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "in scene.png" in text and "in portrait.jpg" in text
    assert '"window": [180, 105, 260, 165]' in text.replace("&#34;", '"')


@pytest.fixture
def screenshot(browser: Browser) -> Any:
    problems: list[str] = []
    pages = []

    def show(address: str) -> Any:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        watch(page, problems, milliseconds=10_000)
        page.goto(address)
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.close()
    assert not problems


def seen(page: Any, place: str) -> Image.Image:
    return opened(page.locator(place).screenshot())


@pytest.mark.slow
def test_the_enlarged_view_of_a_report_shows_the_box_in_the_file(
    made: SmallRun, screenshot: Callable[[str], Any]
) -> None:
    path = write_report(made.verdicts, made.images, made.folder.parent / "report.html")
    page = screenshot(path.as_uri())
    for place in range(3):
        if place:
            page.keyboard.press("ArrowRight")
        else:
            page.locator(".stage").first.click()
        page.locator("#large-cutout img").wait_for()
        page.get_by_text(f"{place + 1} of 3", exact=True).wait_for()
        around = seen(page, "#large-cutout")
        page.locator("#whole").click()
        full_image = seen(page, "#large-cutout")
        left, top, width, height = SIDES[[0, 1, 3][place]]
        size, colour = [((300, 200), RED), ((300, 200), BLUE), ((200, 300), RED)][place]
        assert share_of(around, colour) > 0.18 and share_of(around, GROUND) == 0
        middle = (left + width / 2) / size[0] * full_image.width, (top + height / 2) / size[1] * full_image.height
        assert is_near(full_image.getpixel((int(middle[0]), int(middle[1]))), colour)
        assert full_image.width / full_image.height == pytest.approx(size[0] / size[1], abs=0.02)


@pytest.mark.slow
def test_the_card_of_a_review_says_which_image_a_box_is_from(made: SmallRun, screenshot: Callable[[str], Any]) -> None:
    with served(session_of(made)) as address:
        page = screenshot(f"{address}/?token={TOKEN}")
        page.get_by_text("70 in scene.png").wait_for()
        page.keyboard.press("o")
        page.get_by_text("300").and_(page.locator("#original .head .muted")).wait_for()
        assert share_of(seen(page, "#original .full img"), RED) > 0.002
        page.close()


def test_boxes_of_embedded_images_are_shown_without_a_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    scene().save(buffer, "PNG")
    columns: dict[str, Any] = {"image": [{"bytes": buffer.getvalue()}] * 2, "label": ["cat", "dog"]}
    columns |= {name: [sides[place] for sides in SIDES[:2]] for place, name in enumerate(("x", "y", "width", "height"))}
    pq.write_table(pa.table(columns), tmp_path / "boxes.parquet")
    images = ls.load_images(str(tmp_path / "boxes.parquet"))
    (around,) = make_thumbnails(images, [1], side=128, budget=10**6, surroundings=True)
    assert share_of(from_uri(around.uri), BLUE) > 0.2 and not images.file_name(1)
