"""The diagnosis: each finding appears on data that have the defect, and none on healthy data."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray

from labelsieve.core.quantities import percent
from labelsieve.data.images import LabelledImages
from labelsieve.detect.scores import Scores
from labelsieve.diagnosis import checks
from labelsieve.diagnosis.checks import CHECKS, Diagnosis, diagnose
from labelsieve.diagnosis.statistics import MAX_NAMES, shortened
from labelsieve.flagging import FlagRule
from labelsieve.verdicts import decide

NO_PICTURES = Dataset.from_dict({"image": []})


class Case:
    """A healthy scan of N images in K classes with some wrong labels, all of them found; tests then break it."""

    def __init__(self, n: int = 400, classes: int = 8, *, noise: float = 0.1, agreement: float = 0.7) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(n) % classes
        self.names = tuple(f"class {k}" for k in range(classes))
        wrong = rng.permutation(n) < noise * n
        self.predicted = np.where(wrong, (self.labels + 1) % classes, self.labels)
        self.quality = np.where(wrong, rng.uniform(0, 0.3, n), rng.uniform(0.7, 1, n)).astype(np.float32)
        self.confidence = rng.uniform(0.7, 1, n).astype(np.float32)
        self.contents = rng.permutation(n).astype(np.uint64)
        self.settings: dict[str, Any] = {
            "zero_shot_agreement": agreement,
            "zero_shot_per_class": np.full(classes, agreement),
            "history": tuple({"epoch": e, "loss": 1 / e, "selected": 0.9} for e in range(1, 11)),
        }

    def unread(self, rows: NDArray[np.int64], reason: str = "the file is empty") -> None:
        self.quality[rows] = self.confidence[rows] = np.nan
        self.predicted[rows] = -1
        self.settings["errors"] = {int(row): f"img-{row}: {reason}" for row in rows}

    def images(self) -> LabelledImages:
        return LabelledImages(
            dataset=NO_PICTURES,
            ids=tuple(f"img-{row}" for row in range(len(self.labels))),
            labels=self.labels.astype(np.int64),
            class_names=self.names,
            contents=self.contents,
        )

    def findings(self) -> list[Diagnosis]:
        scores = Scores(
            label_quality=self.quality, predicted=self.predicted, confidence=self.confidence, **self.settings
        )
        return diagnose(self.images(), scores, decide(self.images(), scores))

    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.findings()]

    def finding(self, code: str) -> Diagnosis:
        return next(finding for finding in self.findings() if finding["code"] == code)


def per_class(shares: list[float]) -> dict[str, Any]:
    return {"zero_shot_per_class": np.array(shares), "zero_shot_agreement": float(np.nanmean(shares))}


@pytest.mark.parametrize(
    ("n", "classes", "noise", "agreement"),
    [(400, 8, 0.1, 0.7), (40, 2, 0.1, 0.95), (6, 2, 0.1, 1.0), (4000, 100, 0.4, 0.3), (4000, 100, 0.02, 0.9)],
)
def test_healthy_scans_have_no_findings(n: int, classes: int, noise: float, agreement: float) -> None:
    assert Case(n, classes, noise=noise, agreement=agreement).codes() == []


def test_findings_are_whole_and_sorted() -> None:
    case = Case()
    case.unread(np.arange(3))
    case.contents[10:12] = case.contents[12]  # labels differ: a problem
    few = np.flatnonzero(case.labels == 7)[1:]  # a class of one image: two notes
    case.labels[few], case.predicted[few] = 0, np.where(case.predicted[few] == 7, 0, case.predicted[few])
    findings = case.findings()
    assert [finding["level"] for finding in findings] == ["problem", "warning", "info", "info"]
    for finding in findings:
        assert list(finding) == ["code", "level", "figure", "message", "advice"]
        assert all(isinstance(text, str) and text for text in finding.values())


def test_truth_is_never_read() -> None:
    class Blind(LabelledImages):
        def __getattribute__(self, name: str) -> Any:
            if name == "truth":
                raise RuntimeError("the diagnosis read the true labels")
            return super().__getattribute__(name)

    case = Case()
    case.unread(np.arange(3))
    images = case.images()
    scores = Scores(label_quality=case.quality, predicted=case.predicted, confidence=case.confidence, **case.settings)
    verdicts = decide(images, scores)
    blind = Blind(**{name: getattr(images, name) for name in ("dataset", "ids", "labels", "class_names", "contents")})
    assert diagnose(blind, scores, verdicts)


def test_each_check_is_listed_once() -> None:
    written = [
        each
        for each in vars(checks).values()
        if getattr(each, "__annotations__", {}).get("return") == "Diagnosis | None"
    ]
    assert set(CHECKS) == set(written) and len(set(CHECKS)) == len(CHECKS) > 0


@pytest.mark.parametrize(("agreement", "level"), [(0.125, "problem"), (0.02, "problem"), (0.2, "warning")])
def test_agreement_near_chance(agreement: float, level: str) -> None:
    finding = Case(agreement=agreement).finding("zero-shot-near-chance")
    assert finding["level"] == level
    assert percent(agreement) in finding["figure"] and percent(1 / 8) in finding["figure"]


def test_a_model_that_always_names_the_commonest_class_is_guessing() -> None:
    case = Case()
    case.labels = np.where(np.arange(400) < 350, 0, case.labels)
    case.predicted = case.labels.copy()
    case.settings |= {"zero_shot_agreement": 0.89, "zero_shot_per_class": np.array([1.0] + [0.0] * 7)}
    assert case.finding("zero-shot-near-chance")["level"] == "problem"


def test_few_images_need_more_agreement() -> None:
    assert "zero-shot-near-chance" in Case(8, 2, agreement=0.65).codes()
    assert "zero-shot-near-chance" not in Case(800, 2, agreement=0.65).codes()
    assert "zero-shot-near-chance" not in Case(2, 2, noise=0, agreement=1.0).codes()


def test_a_detector_that_did_not_ask_the_model_has_no_agreement() -> None:
    case = Case()
    case.settings |= {"zero_shot_agreement": None, "zero_shot_per_class": None}
    assert case.codes() == []


def test_one_class_has_no_agreement_to_speak_of() -> None:
    assert "zero-shot-near-chance" not in Case(20, 1, noise=0, agreement=1.0).codes()


def test_classes_not_understood_are_named_worst_first() -> None:
    case = Case(4000, 100)
    shares = np.full(100, 0.7)
    shares[[3, 50]] = 0.025, 0.0
    case.settings |= per_class(shares.tolist())
    figure = case.finding("class-not-understood")["figure"]
    assert figure.index('"class 50" (0 of 40)') < figure.index('"class 3" (1 of 40)')
    shares[:20] = 0
    case.settings |= per_class(shares.tolist())
    figure = case.finding("class-not-understood")["figure"]
    assert figure.count('"class') == MAX_NAMES and "and 16 more" in figure


def test_no_agreement_in_a_class_of_few_images_can_be_bad_luck() -> None:
    case = Case(24, 8, noise=0.05)
    case.settings |= per_class([0.0] + [0.7] * 7)
    assert "class-not-understood" not in case.codes()


def test_a_weak_model_has_no_single_lost_classes() -> None:
    case = Case(4000, 100)
    case.settings |= per_class([0.0] * 10 + [0.15] * 90)
    assert "class-not-understood" not in case.codes()


def test_classes_without_images_are_not_lost() -> None:
    case = Case()
    case.labels = np.where(case.labels == 7, 0, case.labels)
    case.predicted = case.labels.copy()
    case.settings |= per_class([0.7] * 7 + [float("nan")])
    assert not {"class-not-understood", "zero-shot-near-chance"} & set(case.codes())


def test_nothing_flagged() -> None:
    case = Case(noise=0)
    assert case.codes() == ["nothing-flagged"]
    assert case.finding("nothing-flagged")["level"] == "info"


def test_everything_flagged_is_one_finding() -> None:
    case = Case()
    case.quality[:] = 0.1
    assert case.codes() == ["everything-flagged"]


def test_over_filtering() -> None:
    case = Case(noise=0.02)
    case.quality[np.arange(0, 400, 7)] = 0.2  # one in seven flagged, though the model agrees
    finding = case.finding("over-filtering")
    assert percent(0.16) in finding["figure"]


def test_what_trains_nothing_is_not_to_train_longer_or_less() -> None:
    case = Case(noise=0.02)
    case.quality[np.arange(0, 400, 7)] = 0.2
    piled = Case()
    piled.quality = np.random.default_rng(1).uniform(0.35, 0.65, 400).astype(np.float32)
    found = [(case, "over-filtering"), (piled, "quality-near-threshold")]
    assert all("--epochs" in each.finding(code)["advice"] for each, code in found)
    for each, code in found:
        each.settings["history"] = ()
        assert "--epochs" not in each.finding(code)["advice"]


def test_many_wrong_labels_are_not_over_filtering() -> None:
    case = Case(noise=0.4)
    case.quality[np.arange(0, 400, 17)] = 0.2
    assert "over-filtering" not in case.codes()


def test_a_few_flagged_images_are_not_over_filtering() -> None:
    case = Case(20, 2, noise=0)
    case.quality[:4] = 0.2
    assert "over-filtering" not in case.codes()


def test_unsure_suggestions() -> None:
    case = Case(noise=0.3)
    case.confidence[:] = 0.3
    assert percent(0.3) in case.finding("unsure-suggestions")["figure"]
    case.confidence[case.quality < 0.5] = 0.7
    assert "unsure-suggestions" not in case.codes()


def test_emptied_classes_are_named() -> None:
    case = Case()
    case.quality[case.labels == 3] = 0.1
    finding = case.finding("emptied-classes")
    assert (
        finding["level"] == "problem" and '1 class is left all but empty: "class 3" (0 of 50 left)' in finding["figure"]
    )
    case.quality[np.flatnonzero(case.labels == 3)[:2]] = 0.9  # 2 of 50 are 4 %
    assert case.finding("emptied-classes")["level"] == "warning"
    case.quality[np.flatnonzero(case.labels == 3)[:3]] = 0.9
    assert "emptied-classes" not in case.codes() and "classes-hard-hit" in case.codes()


def test_small_classes_that_lost_nothing_are_not_emptied() -> None:
    case = Case()
    case.labels = np.where((case.labels == 7) & (np.arange(400) > 7), 0, case.labels)
    case.predicted, case.quality[7] = case.labels.copy(), 0.9
    assert "emptied-classes" not in case.codes()


def test_classes_hard_hit_are_named_worst_first() -> None:
    case = Case(noise=0)
    for k, count in ((2, 31), (5, 40), (6, 30)):  # of 50; 30 are not more than 60 %
        case.quality[np.flatnonzero(case.labels == k)[:count]] = 0.1
    figure = case.finding("classes-hard-hit")["figure"]
    assert figure.endswith('"class 5" (40 of 50), "class 2" (31 of 50)')
    assert "emptied-classes" not in case.codes()


def test_losing_much_by_chance_is_not_being_hard_hit() -> None:
    assert "classes-hard-hit" not in Case(4000, 100, noise=0.45).codes()
    assert "classes-hard-hit" in Case(4000, 100, noise=0.7).codes()


def test_few_images_left() -> None:
    case = Case(160, 8, noise=0.6)
    assert "64 of 160 images are left, 8.0 for each class" in case.finding("few-images-left")["figure"]
    assert "few-images-left" not in Case(320, 8, noise=0.6).codes()
    assert "few-images-left" not in Case(64, 8, noise=0.1).codes()  # few from the start, hardly fewer now


def test_wrong_labels_survive() -> None:
    case = Case(noise=0.3)
    case.quality[np.flatnonzero(case.quality < 0.5)[:40]] = 0.8
    case.confidence[:] = 0.95
    assert "For 40 images that were kept" in case.finding("wrong-labels-survive")["figure"]
    assert "--detector deft --evidence threshold" in case.finding("wrong-labels-survive")["advice"]
    case.confidence[:] = 0.6
    assert "wrong-labels-survive" not in case.codes()
    case.confidence[:] = 0.95
    case.settings["rule"] = FlagRule(demand_agreement=True)
    assert "wrong-labels-survive" not in case.codes()


def test_quality_piled_up_at_the_threshold() -> None:
    case = Case()
    case.quality = np.random.default_rng(1).uniform(0.35, 0.65, 400).astype(np.float32)
    assert "quality-near-threshold" in case.codes()
    case.quality = np.random.default_rng(1).uniform(0, 1, 400).astype(np.float32)
    assert "quality-near-threshold" not in case.codes()


def test_clear_cases_near_a_threshold_at_the_end_of_the_scale_are_not_piled_up() -> None:
    case = Case(noise=0.4)
    case.quality[case.quality < 0.5] = 0
    case.settings["rule"] = FlagRule(threshold=0.01)
    assert "quality-near-threshold" not in case.codes()


@pytest.mark.parametrize(("last", "level"), [(0.0, "problem"), (0.5, "warning")])
def test_selection_that_collapses(last: float, level: str) -> None:
    case = Case()
    shares = (None, 0.6, 0.01, last)  # none is selected during warm-up
    case.settings["history"] = tuple({"loss": 1.0} | ({} if share is None else {"selected": share}) for share in shares)
    finding = case.finding("selection-collapsed")
    assert finding["level"] == level and f"in epoch {4 if last == 0 else 3} of 4" in finding["figure"]


def test_history_without_a_selection_is_no_finding() -> None:
    case = Case()
    case.settings["history"] = ({"loss": 1.0}, {"loss": 0.5, "selected": None}, {"selected": float("nan")})
    assert case.codes() == []


def test_copies_with_different_labels() -> None:
    case = Case()
    case.contents[[100, 101, 102]] = 1000
    case.contents[[40, 48, 45]] = 2000  # 40 and 48 share a label
    finding = case.finding("duplicates-conflict")
    assert "2 images occur more than once with different labels (6 images)" in finding["figure"]
    assert 'img-40 is "class 0", img-45 is "class 5"' in finding["figure"]


def test_copies_with_the_same_label_are_left_to_the_findings_about_images() -> None:
    case = Case()
    case.contents[[8, 16, 24]] = 1000
    assert not case.codes()


def test_unreadable_files_are_not_copies_of_each_other() -> None:
    case = Case()
    case.contents[:5] = 1000
    case.unread(np.arange(5))
    assert case.codes() == ["unreadable-images"]


def test_unreadable_images() -> None:
    case = Case()
    case.unread(np.arange(2, 5))
    finding = case.finding("unreadable-images")
    assert finding["level"] == "warning"
    assert "3 images (0.8\u00a0%) could not be read, for example img-2: the file is empty" in finding["figure"]
    case.unread(np.arange(100))
    assert case.finding("unreadable-images")["level"] == "problem"


def test_a_scan_without_any_readable_image() -> None:
    case = Case(6, 2)
    case.unread(np.arange(6))
    assert case.codes() == ["unreadable-images"]


def test_a_scan_without_images() -> None:
    assert Case(0, 2).codes() == []


def test_class_imbalance() -> None:
    case = Case()
    case.labels = np.where((case.labels == 7) & (np.arange(400) > 20), 0, case.labels)  # 98 and 2
    case.predicted, case.quality = case.labels.copy(), np.full(400, 0.9, np.float32)
    figure = case.finding("class-imbalance")["figure"]
    assert '49 times the images of the smallest: "class 0" (98), "class 7" (2)' in figure


def test_classes_with_one_image_or_none() -> None:
    case = Case()
    case.labels[case.labels == 6] = 5
    case.labels[np.flatnonzero(case.labels == 7)[1:]] = 5
    case.predicted, case.quality = case.labels.copy(), np.full(400, 0.9, np.float32)
    figure = case.finding("tiny-classes")["figure"]
    assert figure == '1 class has one readable image: "class 7"; 1 class has no readable image: "class 6"'


def test_long_names_are_cut() -> None:
    case = Case()
    case.names = ("x" * 500, *case.names[1:])
    case.quality[case.labels == 0] = 0.1
    figure = case.finding("emptied-classes")["figure"]
    assert len(figure) < 200 and "…" in figure
    assert len(shortened("y" * 61)) == 60 and shortened("y" * 60) == "y" * 60


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1e-5, "< 0.1 %"), (0.041, "4.1 %"), (0.5, "50 %"), (0.99999, "> 99.9 %"), (1, "100 %")],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share).replace("\u00a0", " ") == text


def test_ten_thousand_classes() -> None:
    case = Case(200_000, 10_000)
    case.contents[:1000] = 5_000_000
    images = case.images()
    scores = Scores(label_quality=case.quality, predicted=case.predicted, confidence=case.confidence, **case.settings)
    verdicts = decide(images, scores)
    started = time.perf_counter()
    tracemalloc.start()
    found = [finding["code"] for finding in diagnose(images, scores, verdicts)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["duplicates-conflict"]
    assert peak < 100e6  # K x K numbers of 8 bytes would be 800 MB
    assert time.perf_counter() - started < 10


def test_diagnosing_changes_nothing() -> None:
    case = Case()
    case.unread(np.arange(3))

    def arrays() -> list[NDArray[Any]]:
        return [case.quality, case.predicted, case.labels, case.contents]

    before = [array.copy() for array in arrays()]
    first = case.findings()
    assert case.findings() == first
    for old, new in zip(before, arrays(), strict=True):
        assert np.array_equal(old, new, equal_nan=old.dtype.kind == "f")


def test_diagnosis_does_not_load_torch() -> None:
    code = "import sys, labelsieve.diagnosis.checks; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_verdicts_of_another_threshold_are_respected() -> None:
    case = Case()
    scores = Scores(label_quality=case.quality, predicted=case.predicted, confidence=case.confidence, **case.settings)
    verdicts = decide(case.images(), replace(scores, rule=FlagRule(threshold=0.99999)))
    assert [finding["code"] for finding in diagnose(case.images(), scores, verdicts)] == ["everything-flagged"]
