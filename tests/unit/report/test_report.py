"""The report: what it says, that user data cannot do harm in it, and that its size is bounded."""

from __future__ import annotations

import json
import re
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.quantities import duration, percent
from labelsieve.data.images import LabelledImages
from labelsieve.detect.scores import Scores
from labelsieve.metrics import OTHER_METRICS, Interval
from labelsieve.report import MAX_IMAGES, label_report, panels
from labelsieve.report.figures import MAX_BARS, MAX_PAIRS, confusions, histogram
from labelsieve.report.label_report import NEAR_MISSES, gallery_rows, write_report
from labelsieve.report.pages import MAX_UNREADABLE, THUMBNAIL_BUDGET
from labelsieve.report.panels import MAX_CLASS_ROWS
from labelsieve.report.texts import moment, score
from labelsieve.report.thumbnails import make_thumbnails
from labelsieve.review.statement import Sentence, Statement
from labelsieve.verdicts import Verdicts, decide
from small_pictures import encoded, plain

EVIL = "<script>alert(1)</script>"
QUOTED = "a\"b'c</script><!-- & {{ 7*7 }}"

ESTIMATE = {
    "wrong_labels": {"value": 1.7, "low": 1.0, "high": 2.6},
    "right_flags": {"value": 0.85, "low": 0.7, "high": 0.95},
    "missed_labels": {"value": 0.4, "low": 0.0, "high": 1.0},
}
RECORD: dict[str, Any] = {
    "labelsieve": "0.1.0",
    "created": "2026-11-22T11:33:00+00:00",
    "source": "photos/",
    "data": {"images": 6, "classes": 2, "fingerprint": "feedfeedfeedfeed"},
    "model": {"name": "some/clip", "fingerprint": "0123456789abcdef"},
    "detector": {"name": "deft", "recipe": "phase1", "settings": {"epochs": 10}},
    "threshold": 0.5,
    "seconds": 75.0,
    "hardware": "two cores",
    "zero_shot_agreement": 0.71,
    "findings": [
        {"code": "n", "level": "info", "figure": "71 % agree", "message": "All is well.", "advice": "Go on."},
        {"code": "p", "level": "problem", "figure": "9 twins", "message": EVIL, "advice": "Look at them."},
    ],
}


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    return plain((200, 30, 30), size=size)


def make(
    given: list[int],
    quality: list[float],
    *,
    predicted: list[int] | None = None,
    names: tuple[str, ...] = ("cat", "dog"),
    ids: list[str] | None = None,
    pictures: list[bytes] | None = None,
    truth: list[int] | None = None,
    record: dict[str, Any] | None = None,
) -> tuple[Verdicts, LabelledImages]:
    """Builds images and verdicts; a quality of NaN makes an image unreadable."""
    n = len(given)
    pictures = pictures or [png()] * n
    images = LabelledImages(
        dataset=Dataset.from_dict({"image": [{"bytes": data, "path": None} for data in pictures]}),
        ids=tuple(ids or [f"img-{row}" for row in range(n)]),
        labels=np.array(given, np.int64),
        class_names=names,
        contents=np.arange(n, dtype=np.uint64),
        truth=None if truth is None else np.array(truth, np.int64),
    )
    unreadable = np.isnan(quality)
    predicted = predicted or [
        (label + 1) % len(names) if q <= 0.5 else label for label, q in zip(given, quality, strict=True)
    ]
    scores = Scores(
        label_quality=np.array(quality, np.float32),
        predicted=np.where(unreadable, -1, predicted).astype(np.int64),
        confidence=np.where(unreadable, np.nan, 0.9).astype(np.float32),
        errors={int(row): f"{images.ids[row]}: the file is empty" for row in np.flatnonzero(unreadable)},
    )
    return decide(images, scores, record=RECORD if record is None else record), images


class Page(HTMLParser):
    """Collects what a browser would see: visible text, tags, attributes, and the content of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts = list[str]()
        self._texts = list[str]()
        self._raw = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts[-1] += data
        elif not self._raw:
            self._texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @cached_property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def render(tmp_path: Path, *args: Any, max_images: int = MAX_IMAGES, **kwargs: Any) -> Page:
    verdicts, images = make(*args, **kwargs)
    return Page(write_report(verdicts, images, tmp_path / "report.html", max_images=max_images).read_text("utf-8"))


def test_says_what_was_scanned_and_found(tmp_path: Path) -> None:
    page = render(tmp_path, [0, 0, 1, 1, 0, 1], [0.1, 0.9, 0.2, 0.8, float("nan"), 0.7], truth=[1, 0, 0, 1, 0, 1])
    for text in (
        "photos/",
        "some/clip",
        "deft · phase1",
        "22 November 2026, 11:33 UTC",
        "1\u00a0min 15\u00a0s on two cores",
    ):
        assert text in page.text, text
    assert "All 2 flagged images. With 3 images just above the threshold" in page.words
    assert "with 71\u00a0% of given labels" in page.text
    assert "1 image could not be read" in page.words and "the file is empty" in page.words
    assert "clean_*" in page.text and "issue_*" in page.text
    assert all(name[1:] in page.text for name in OTHER_METRICS.values())
    assert page.words.index("9 twins") < page.words.index("71 % agree"), "problems come first"


def test_says_that_agreement_decides(tmp_path: Path) -> None:
    by_agreement = {**RECORD, "threshold": 0.0, "demand_agreement": True}
    verdicts, images = make([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8], record=by_agreement)
    page = Page(write_report(verdicts, images, tmp_path / "report.html").read_text("utf-8"))
    assert re.search(r"Flagged\s*where another class is likelier", page.text)
    assert "threshold 0" not in page.words and "Threshold" not in page.words, "no label is flagged by it"
    both = render(tmp_path, [0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8], record={**RECORD, "demand_agreement": True})
    assert re.search(r"Threshold\s*0\.5\s*Also flagged\s*where another class is likelier", both.text)


def test_needs_no_network(tmp_path: Path) -> None:
    verdicts, images = make([0, 1], [0.1, 0.9])
    source = write_report(verdicts, images, tmp_path / "report.html").read_text("utf-8")
    page = Page(source)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links and all(link and link.startswith(("data:", "#")) for link in links)
    assert not any(text in source for text in ("http://", "https://", "url(", "@import"))
    assert "default-src 'none'" in source


@pytest.mark.parametrize("name", [EVIL, QUOTED])
def test_user_data_is_only_text(tmp_path: Path, name: str) -> None:
    record = {**RECORD, "source": name, "model": {"name": name}, "detector": {"name": name, "settings": {name: name}}}
    page = render(
        tmp_path,
        [0, 1, 0, 1],
        [0.1, 0.2, 0.9, float("nan")],
        names=(name, f"{name}2"),
        ids=[f"{name}{row}" for row in range(4)],
        record=record,
    )
    data, program = page.scripts
    assert json.loads(data)["cards"][0]["id"] == f"{name}0"
    assert "alert(1)" not in program
    assert not [attributes for _, attributes in page.tags if any(key.startswith("on") for key in attributes)]
    assert name in page.text
    assert "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", page.text), "a template in user data must not run"


def test_a_record_with_nothing_in_it_is_enough(tmp_path: Path) -> None:
    page = render(tmp_path, [0, 1], [0.1, 0.9], record={})
    assert "labelled images" in page.text
    nulls = dict.fromkeys(RECORD)
    assert "labelled images" in render(tmp_path, [0, 1], [0.1, 0.9], record=nulls).text


@pytest.mark.parametrize("quality", [[0.9, 0.8], [0.1, 0.2], [float("nan")] * 2])
def test_extremes_render(tmp_path: Path, quality: list[float]) -> None:
    page = render(tmp_path, [0, 1], quality)
    assert len(page.all("article")) == int(np.isfinite(quality).sum())


@pytest.mark.parametrize("taken", ["names", "metrics"])
def test_a_panel_takes_no_name_of_the_page_or_of_another(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "unreadable", lambda _page: {taken: ()})
    with pytest.raises(TypeError, match=f"multiple values for keyword argument '{taken}'"):
        render(tmp_path, [0, 1], [0.1, 0.9], truth=[1, 1])


def test_no_images_at_all(tmp_path: Path) -> None:
    verdicts, images = make([0, 1], [0.1, 0.9])
    empty = Verdicts(table=verdicts.table.slice(0, 0), class_names=verdicts.class_names, record={})
    page = Page(write_report(empty, images.take(np.array([], np.int64)), tmp_path / "r.html").read_text("utf-8"))
    assert "No label is flagged." in page.text and not page.all("article")


def test_gallery_goes_by_rank_and_is_bounded(tmp_path: Path) -> None:
    quality = [0.4, 0.9, 0.1, 0.3, 0.2, 0.8]
    verdicts, _ = make([0] * 6, quality)
    assert gallery_rows(verdicts, max_images=3) == [2, 4, 3]
    assert gallery_rows(verdicts, max_images=400) == [2, 4, 3, 0, 5, 1]
    assert gallery_rows(verdicts, max_images=0) == []
    page = render(tmp_path, [0] * 6, quality, max_images=3)
    assert "The 3 most suspicious of 4 flagged images" in page.words
    many, _ = make([0] * 100, [0.9] * 100)
    assert len(gallery_rows(many, max_images=400)) == NEAR_MISSES


def test_says_how_to_see_the_rest(tmp_path: Path) -> None:
    record = {**RECORD, "out": "my runs/photos"}
    page = render(tmp_path, [0] * 6, [0.4, 0.9, 0.1, 0.3, 0.2, 0.8], max_images=3, record=record)
    assert "For all: labelsieve report 'my runs/photos' --max-images 4" in page.words
    assert [row["data-given"] for row in page.all("a") if "data-suggested" in row] == ["0"]
    assert "The flagged images of this page by given label" in page.words and "3 on this page" in page.words
    whole = render(tmp_path, [0] * 6, [0.4, 0.9, 0.1, 0.3, 0.2, 0.8], record=record)
    words = re.sub("read this page|images on this page and", "", whole.words)
    assert "For all" not in words and "on this page" not in words


def test_one_estimate_of_the_wrong_labels(tmp_path: Path) -> None:
    quality = [0.1, 0.9, 0.2, 0.8, float("nan")]
    page = render(tmp_path, [0, 0, 1, 1, 0], quality, record={**RECORD, "estimate": ESTIMATE})
    assert "About 2 (1 to 3) of 4 labels are wrong (estimate); 2 flagged." in page.words
    assert "(estimate)" not in render(tmp_path, [0, 0, 1, 1, 0], quality).words, "not every quality is a probability"


def test_the_audit_leads_and_the_estimate_of_the_model_follows(tmp_path: Path) -> None:
    verdicts, images = make([0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8], record={**RECORD, "estimate": ESTIMATE})
    counts: dict[str, Any] = {"confidence": 0.95, "images": 4, "flagged": 2, "answered": 1, "found": 1, "unsure": 0}
    audited = Statement(**counts, audited=3, left=Interval(1, 0, 2), at_most=2, sentences=(Sentence("At most 2."),))
    unaudited = Statement(**counts, audited=0, sentences=(Sentence("Nothing was audited."),))

    def words_with(audit: Statement) -> str:
        path = write_report(verdicts, images, tmp_path / "report.html", audit=audit)
        return Page(path.read_text("utf-8")).words

    words = words_with(audited)
    estimate = "The model's own estimate, before the audit: about 2 (1 to 3) of 4 labels are wrong; 2 flagged"
    assert 0 < words.index("At most 2.") < words.index(estimate)
    assert "About 2 (1 to 3)" not in words
    words = words_with(unaudited)
    assert words.index("About 2 (1 to 3) of 4 labels are wrong (estimate)") < words.index("Nothing was audited.")


@pytest.mark.parametrize(("source", "file"), [("photos", ""), ("labels.csv", ".csv"), (None, None)])
def test_what_comes_next_can_be_run_with_the_marks(tmp_path: Path, source: str | None, file: str | None) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels.csv").write_text("image,label\n")
    origin = {} if source is None else {"origin": {"source": str(tmp_path / source)}}
    words = render(tmp_path, [0, 1], [0.1, 0.9], record={**RECORD, "out": "a run", **origin}).words
    marks = "--marks labelsieve-marks.csv"
    assert "labelsieve review 'a run'" in words
    assert (f"labelsieve apply 'a run' --out CORRECTED{file} {marks}" in words) is (source is not None)
    assert ("labelsieve apply" in words) is (source is not None), "only where labels can be written back"
    assert f"labelsieve export 'a run' --format imagefolder --out CLEAN {marks}" in words
    assert f"labelsieve adapt 'a run' --out MODEL {marks}" in words


def test_features_are_only_exported_as_a_table(tmp_path: Path) -> None:
    words = render(tmp_path, [0, 1], [0.1, 0.9], record={**RECORD, "model": {}}).words
    assert "labelsieve export RUN --format csv --out CLEAN.csv --marks labelsieve-marks.csv" in words
    assert not any(f"labelsieve {verb}" in words for verb in ("review", "apply", "adapt"))


def test_one_number_for_the_agreement_of_the_model(tmp_path: Path) -> None:
    record = {**RECORD, "zero_shot_agreement": 0.72, "zero_shot_balanced_agreement": 0.85}
    page = render(tmp_path, [0, 1], [0.1, 0.9], record=record)
    assert "with 85\u00a0% of given labels (mean over classes)" in page.text and "72\u00a0%" not in page.text


def test_a_picture_that_is_gone_leaves_its_card(tmp_path: Path) -> None:
    page = render(tmp_path, [0, 1], [0.1, 0.2], pictures=[png(), b"no picture"])
    assert len(page.all("article")) == 2 and len(page.all("img")) == 2  # one card and the enlarged view
    assert "No image: img-1" in page.text


def test_tiny_pictures_keep_their_pixels(tmp_path: Path) -> None:
    pictures = [png(size=(32, 32)), png(size=(400, 100))]
    _, images = make([0, 1], [0.1, 0.2], pictures=pictures)
    tiny, large = make_thumbnails(images, [0, 1], side=256, budget=1_000_000)
    assert tiny.tiny and (tiny.width, tiny.height) == (32, 32)
    assert not large.tiny and (large.width, large.height) == (256, 64)


def test_thumbnails_keep_within_their_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    _, images = make([0] * 4, [0.1] * 4, pictures=[encoded(Image.fromarray(noise))] * 4)
    for budget in (16_000, 400_000):
        made = make_thumbnails(images, range(4), side=256, budget=budget)
        assert sum(len(each.uri) for each in made) <= budget and all(each.uri for each in made)


@pytest.mark.parametrize("shown", [500, pytest.param(MAX_IMAGES, marks=pytest.mark.slow)])
def test_many_images_and_classes_give_a_small_file(tmp_path: Path, shown: int) -> None:
    n, classes = 50_000, 1_000
    rng = np.random.default_rng(0)
    quality = rng.random(n)
    quality[:500] = np.nan
    verdicts, images = make(
        rng.integers(0, classes, n).tolist(),
        quality.tolist(),
        predicted=rng.integers(0, classes, n).tolist(),
        names=tuple(f"a class with a rather long name {k}" for k in range(classes)),
        ids=[f"some/folder/with/images/of/some/length/{row:08}.jpg" for row in range(n)],
        pictures=[png()] * n,
    )
    path = write_report(verdicts, images, tmp_path / "report.html", max_images=shown)
    text = path.read_text("utf-8")
    page = Page(re.sub("<article.*?</article>", "", text, flags=re.DOTALL))  # to read all of them takes seconds
    pictures = sum(map(len, re.findall('<img [^>]*src="([^"]*)"', text)))
    assert path.stat().st_size - pictures + THUMBNAIL_BUDGET < 40_000_000, "whatever the pictures are"
    assert text.count("<article") == shown and pictures > 0
    assert f"The top {MAX_BARS}, and {classes - MAX_BARS} more." in page.words
    assert f"the top {MAX_PAIRS}, and" in page.words
    assert f"and {classes - MAX_CLASS_ROWS} more" in page.words
    assert f"The first {MAX_UNREADABLE} are listed" in page.words
    assert re.search(
        rf"The {shown:,} most suspicious of ([\d,]+) flagged images\. For all: labelsieve report RUN --max-images "
        r"20000; a report shows no more, the rest is in verdicts\.csv",
        page.words,
    )


def test_refuses_images_of_another_run(tmp_path: Path) -> None:
    verdicts, images = make([0, 1], [0.1, 0.9])
    _, others = make([0, 1], [0.1, 0.9], ids=["x", "y"])
    with pytest.raises(RunError, match="other ids"):
        write_report(verdicts, others, tmp_path / "report.html")
    with pytest.raises(RunError, match="expected the 2 images"):
        write_report(verdicts, images.take(np.array([0])), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_report_replaces_reports_only(tmp_path: Path) -> None:
    verdicts, images = make([0, 1], [0.1, 0.9])
    path = tmp_path / "page.html"
    path.write_text("<html>mine</html>")
    with pytest.raises(RunError, match=r"page\.html is no report of labelsieve, so it is not replaced; choose another"):
        write_report(verdicts, images, path)
    assert path.read_text() == "<html>mine</html>"
    with pytest.raises(RunError, match="it is a folder, and only a regular file"):
        write_report(verdicts, images, tmp_path)
    path.unlink()
    first = write_report(verdicts, images, path, max_images=1).read_text()
    assert write_report(verdicts, images, path, max_images=2).read_text() != first


@pytest.mark.parametrize("setting", [{"max_images": -1}, {"max_images": 0}, {"max_images": 10**6}, {"thumbnail_px": 4}])
def test_refuses_settings_out_of_range(tmp_path: Path, setting: dict[str, Any]) -> None:
    verdicts, images = make([0, 1], [0.1, 0.9])
    with pytest.raises(SettingsError, match="expected"):
        write_report(verdicts, images, tmp_path / "report.html", **setting)


def test_histogram_counts_every_readable_image() -> None:
    verdicts, _ = make([0] * 5, [0.0, 0.1, 0.5, 1.0, float("nan")])
    figure = histogram(verdicts)
    assert sum(bar.count for bar in figure.bars) == 4 and sum(bar.flagged for bar in figure.bars) == 3
    assert figure.threshold == 0.5 and all(0 <= bar.flagged_height <= bar.height <= 1 for bar in figure.bars)


def test_histogram_ticks_are_few_and_reach_the_top(subtests: pytest.Subtests) -> None:
    for count in (1, 2, 4, 7, 10, 60, 99, 101, 250):
        with subtests.test(count=count):
            verdicts, _ = make([0] * count, [0.9] * count)
            ticks = [value for value, _ in histogram(verdicts).ticks]
            assert 1 <= len(ticks) <= 5 and ticks[-1] >= count


def test_a_steep_histogram_is_logarithmic() -> None:
    verdicts, _ = make([0] * 503, [0.99] * 500 + [0.1, 0.3, 0.6])
    figure = histogram(verdicts)
    assert figure.logarithmic and figure.bars[4].height > 0.1


def test_confusions_count_pairs() -> None:
    verdicts, _ = make([0, 0, 1, 1], [0.1, 0.1, 0.1, 0.9])
    found = confusions(verdicts)
    assert [(pair.given, pair.suggested, pair.count) for pair in found.pairs] == [(0, 1, 2), (1, 0, 1)]
    assert found.matrix[0][1].count == 2 and found.matrix[1][1].count == 0
    assert np.array_equal([[pair.count for pair in row] for row in found.matrix], verdicts.confusion())


def _themes() -> list[dict[str, str]]:
    style = Path(label_report.__file__).with_name("templates").joinpath("report.css").read_text("utf-8")
    blocks = re.findall(r":root[^{]*\{([^{}]*color-scheme: (?:light|dark);)", style.split("@media print")[0])
    return [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in blocks]


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_in_both_themes() -> None:
    light, by_system, by_choice = _themes()
    assert by_system == by_choice, "dark is dark, whoever asks for it"
    texts = ("text", "muted", "accent", "flagged-text", "wrong", "right", "unsure")
    pairs = [(text, ground) for text in texts for ground in ("page", "surface")]
    pairs += [("on-mark", tone) for tone in ("wrong", "right", "unsure")] + [
        ("on-accent", "accent"),
        ("muted", "sunken"),
    ]
    for theme in (light, by_choice):
        for text, ground in pairs:
            low, high = sorted((_luminance(theme[text]), _luminance(theme[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_numbers_read_well() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.034, 0.314, 0.9995, 1, None)] == [
        "0\u00a0%", "<\u00a00.1\u00a0%", "3.4\u00a0%", "31\u00a0%", ">\u00a099.9\u00a0%", "100\u00a0%", "\u2013",
    ]  # fmt: skip
    assert [duration(value) for value in (0.25, 12, 59.7, 75, 7265, None)] == [
        "0.2\u00a0s", "12\u00a0s", "1\u00a0min 0\u00a0s", "1\u00a0min 15\u00a0s", "2\u00a0h 1\u00a0min", "",
    ]  # fmt: skip
    assert score(float("nan")) == "\u2013" and score(0.12345) == "0.123" and score(0.0001) == "<\u00a00.001"
    assert moment("yesterday") == "yesterday" and moment(None) == ""
