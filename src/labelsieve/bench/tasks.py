"""What a cell measures. A new task is one class and one line in `TASKS`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from labelsieve.bench.cell_inputs import Given, scan_once
from labelsieve.core.errors import SettingsError, look_up
from labelsieve.core.registry import Entry, Registry
from labelsieve.core.validation import check_keys, field_names
from labelsieve.metrics import CALIBRATION, CLASSIFICATION, COST, DETECTION, ESTIMATES, FINE_TUNING, RATES, TEST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.bench.config import Method
    from labelsieve.finetune.settings import Adaptation
    from labelsieve.metrics import Interval
    from labelsieve.verdicts import Verdicts

NO_TEST = "expected test images to measure a classifier on, found none; name them: test = ..."


class Task(Protocol):
    """A kind of measurement."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what :meth:`measure` returns, to choose tables from."""
        ...

    @property
    def tables(self) -> tuple[tuple[str, ...], ...]:
        """Those that are shown if the experiment names none."""
        ...

    @property
    def has_tags(self) -> bool:
        """Whether it is of images with several labels each."""
        ...

    @property
    def needs_test(self) -> bool:
        """Whether nothing can be measured without test images."""
        ...

    def check(self, method: Method) -> None:
        """Checks a method before anything is measured.

        Raises:
            SettingsError: Something in it is unknown, missing or out of range.
        """
        ...

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns all settings of a method, with the defaults of now where it says nothing."""
        ...

    def measure(self, given: Given) -> dict[str, Any]:
        """Measures one cell; of the result, the names in `metrics` are numbers or None."""
        ...


class Detect:
    """Scans, compares the verdicts with the truth, and tests what was trained where there are test images.

    Without a detector, verdicts are by the losses of a classifier that was trained on all images.
    """

    metrics = (*DETECTION, *RATES, *ESTIMATES, *CALIBRATION, *TEST, *COST)
    has_tags = False
    needs_test = False
    tables: tuple[tuple[str, ...], ...] = (
        ("clean_precision", "clean_recall"),
        ("clean_f1",),
        ("issue_f1",),
        ("auroc",),
        ("average_precision",),
    )

    def check(self, method: Method) -> None:
        """Makes the detector, or the settings of the classifier, once, which checks them."""
        if method.detector is None:
            if method.train_on != "all":
                raise SettingsError('expected a detector, found none; or train_on = "all", to select by a classifier')
            _check_alone(method)
            return
        if method.adapt or method.train_on != "selected" or method.backbone:
            raise SettingsError(
                "adapt, train_on and backbone go with task adapt only, or without a detector; leave them out"
            )
        method.make_detector(noise_rate=0.5)

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns the settings of the detector, or those of the classifier as `adapt.NAME`."""
        if method.detector is None:
            return _of_phase_2(method)
        # as the file has them where it does, so that a rate that is given stays the word for it
        return {**vars(method.make_detector(noise_rate=0.5)), **method.settings}

    def measure(self, given: Given) -> dict[str, Any]:
        """Returns the metrics of a selection and its seconds, without reading the images.

        Seconds are those of the scan wherever it was made, or of training the classifier and evaluating its losses;
        memory is known only of what is made now.
        """
        from labelsieve.bench.peak_memory import PeakMemory
        from labelsieve.metrics import calibration

        with PeakMemory() as peak:
            verdicts, is_new = _verdicts_of(given)
        metrics, notes, readable = verdicts.metrics or {}, verdicts.record["notes"], verdicts.is_readable
        return {
            **_defined(metrics),
            **_estimate(verdicts, given.labelled.labels, given.truth),
            "predicted_accuracy": float((verdicts.predicted == given.truth)[readable].mean()),
            **calibration(verdicts.label_quality[readable], (given.labelled.labels == given.truth)[readable]),
            **_tested(verdicts.record.get("test") or {}),
            "seconds": verdicts.record["seconds"],
            "memory": peak.gigabytes if is_new else None,
            "device_memory": peak.on_device if is_new else None,
            "note": notes[-1] if notes else "",
        }


def _verdicts_of(given: Given) -> tuple[Verdicts, bool]:
    """Returns the verdicts of the detector or, without one, of the classifier, and whether they are new."""
    from labelsieve.bench.selection import by_losses

    if given.method.detector is not None:
        return scan_once(given, tests=True)
    return by_losses(given, adaptation(given.method), test=given.test), True


def _defined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves precision, recall and F1 empty for wrong labels where there are none, and for right ones likewise."""
    rate = metrics.get("noise_rate")
    empty = {0.0: "issue_", 1.0: "clean_"}.get(-1.0 if rate is None else rate, " ")
    return {name: None if name.startswith(empty) else value for name, value in metrics.items()}


def _estimate(verdicts: Verdicts, labels: NDArray[np.int64], truth: NDArray[np.int64]) -> dict[str, float | None]:
    """Returns the noise rate that a calibrated detector estimates, its error, and what its interval covers."""
    estimate, readable = verdicts.run.estimate, verdicts.is_readable
    if estimate.wrong_labels is None or not readable.any():
        return dict.fromkeys(ESTIMATES)
    is_wrong, flagged = (labels != truth) & readable, verdicts.is_issue
    estimated, rate = estimate.wrong_labels.value / readable.sum(), is_wrong.sum() / readable.sum()
    missed, right = float((is_wrong & ~flagged).sum()), float(is_wrong[flagged].mean()) if flagged.any() else None
    return {
        "estimated_noise_rate": estimated,
        "noise_rate_error": abs(estimated - rate),
        "wrong_labels_covered": _covers(estimate.wrong_labels, float(is_wrong.sum()), tolerance=0.5),
        "right_flags_covered": _covers(estimate.right_flags, right, tolerance=0.0),
        "missed_labels_covered": _covers(estimate.missed_labels, missed, tolerance=0.5),
    }


def _covers(interval: Interval | None, value: float | None, *, tolerance: float) -> float | None:
    """Returns whether an interval covers the true value, 0 or 1; None where there is none."""
    if interval is None or value is None:
        return None
    return float(interval.low - tolerance <= value <= interval.high + tolerance)


def _tested(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the metrics of test images out of those of a classifier."""
    return {f"test_{name}": found.get(name) for name in CLASSIFICATION}


class Adapt:
    """Trains a classifier on all images, or on what a detector, a probe or the truth left of them, and tests it.

    The accuracy is that of the last epoch, on the test set. Where nothing is trained on, it is that of the model that
    the scan has trained: the method without phase 2.
    """

    metrics = (*TEST, *FINE_TUNING, *COST)
    has_tags = False
    needs_test = True
    tables: tuple[tuple[str, ...], ...] = (("test_accuracy",), ("used_rate", "used_clean"))

    def check(self, method: Method) -> None:
        """Makes detector and settings once, which checks them."""
        from labelsieve.detect.registry import check_predicts_test

        if method.train_on in ("selected", "nothing"):
            if method.detector is None:
                others = "" if method.train_on == "nothing" else ', or train_on = "all", "probe" or "truth"'
                raise SettingsError(f"expected a detector{others}, found none")
            detector = method.make_detector(noise_rate=0.5)
            if method.train_on == "nothing":
                check_predicts_test(type(detector), method.detector)
                if method.backbone:
                    raise SettingsError("train_on nothing trains no backbone; leave it out")
            adaptation(method)
        else:
            _check_alone(method)

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns the settings of the detector, if there is one, and those of phase 2 as `adapt.NAME`."""
        of_detector = {} if method.detector is None else Detect().resolved(method)
        return of_detector if method.train_on == "nothing" else {**of_detector, **_of_phase_2(method)}

    def measure(self, given: Given) -> dict[str, Any]:
        """Returns the accuracy on the test set, and how much and how right the training part was.

        Seconds and memory are those of training the classifier, without the scan; where nothing is trained on, those of
        the scan, memory as in :meth:`Detect.measure`.
        """
        from labelsieve.bench.peak_memory import PeakMemory
        from labelsieve.bench.selection import selection_of
        from labelsieve.finetune.run import adapt
        from labelsieve.finetune.selection import choose

        images = given.only_images
        if given.test is None:
            raise SettingsError(NO_TEST)
        if given.method.train_on == "nothing":
            return dict.fromkeys(self.metrics) | _only(Detect().measure(given), (*TEST, *COST, "note"))
        settings = adaptation(given.method)
        verdicts = selection_of(given, settings)
        with PeakMemory() as peak:
            adapted = adapt(
                images,
                verdicts,
                backbone=given.method.backbone,
                settings=settings,
                test=given.test,
                seed=given.seed,
                progress=given.progress,
            )
        used, found = choose(verdicts, settings), adapted.metrics
        return {
            **_tested(found["test"]),
            "test_accuracy_start": found["test_accuracy_start"],
            "test_accuracy_best": found["test_accuracy_best"],
            "used_rate": len(used.rows) / len(verdicts),
            "used_clean": float((given.truth == used.labels)[used.rows].mean()),
            "seconds": adapted.record["seconds"],
            "memory": peak.gigabytes,
            "device_memory": peak.on_device,
            "note": "; ".join(adapted.record["notes"]),
        }


def _only(found: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: found[name] for name in names}


def adaptation(method: Method) -> Adaptation:
    """Returns the settings of phase 2 of a method.

    Raises:
        SettingsError: One is unknown or out of range.
    """
    from labelsieve.finetune.settings import RECIPES, Adaptation

    changes = dict(method.adapt)
    recipe = look_up(RECIPES, changes.pop("recipe", "default"), what="recipe of adapt")
    check_keys(changes, field_names(Adaptation), what="adapt")
    return replace(recipe, **changes)


def _of_phase_2(method: Method) -> dict[str, Any]:
    return {f"adapt.{name}": value for name, value in vars(adaptation(method)).items()}


def _check_alone(method: Method) -> None:
    """Checks a method without a detector."""
    if method.detector is not None or method.settings or method.recipe != "default":
        raise SettingsError(f"train_on {method.train_on} takes no detector, settings or recipe; leave them out")
    adaptation(method)


TASKS: Registry[type[Task], Entry] = Registry(
    "task",
    Entry("detect", f"{__name__}:Detect", "scans, and compares the verdicts with the truth"),
    Entry("adapt", f"{__name__}:Adapt", "trains a classifier on what is selected, and tests it"),
    Entry("tags", "labelsieve.bench.tag_task:Tags", "scans several labels an image, and compares them with the truth"),
)
