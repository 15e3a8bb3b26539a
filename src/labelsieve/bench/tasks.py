"""The tasks that cells measure. A new task is one class and one line in `TASKS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from labelsieve.bench.cell_inputs import CellInputs, scan_once
from labelsieve.core.errors import SettingsError, look_up
from labelsieve.core.registry import Entry, Registry
from labelsieve.core.validation import check_keys, field_names
from labelsieve.metrics import CALIBRATION, CLASSIFICATION, COST, DETECTION, ESTIMATES, FINE_TUNING, RATES, TEST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.bench.config import Method
    from labelsieve.bench.peak_memory import PeakMemory
    from labelsieve.finetune.settings import Adaptation
    from labelsieve.metrics import Interval
    from labelsieve.verdicts import Verdicts


class Task:
    """A kind of measurement.

    Attributes:
        metrics: Names of the metrics that :meth:`measure` returns.
        tables: The default tables.
        has_tags: Whether images have tags.
        needs_test: Whether test images are required.
    """

    metrics: ClassVar[tuple[str, ...]]
    tables: ClassVar[tuple[tuple[str, ...], ...]]
    has_tags: ClassVar[bool] = False
    needs_test: ClassVar[bool] = False

    def check(self, method: Method) -> None:
        """Checks a method before anything is measured.

        Raises:
            SettingsError: Something in it is unknown, missing or out of range.
        """
        raise NotImplementedError

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns all settings of a method, including the current defaults."""
        raise NotImplementedError

    def measure(self, inputs: CellInputs) -> dict[str, Any]:
        """Measures one cell; of the result, the names in `metrics` are numbers or None."""
        raise NotImplementedError


def cost_of(record: Mapping[str, Any], peak: PeakMemory, *, is_new: bool = True) -> dict[str, Any]:
    """Returns seconds and memory of a scan or a training.

    Args:
        record: The record of the run.
        peak: The memory while it ran.
        is_new: Whether it ran; the memory of an earlier run is None.
    """
    return {
        "seconds": record["seconds"],
        "memory": peak.gigabytes if is_new else None,
        "device_memory": peak.on_device if is_new else None,
    }


def last_note(record: Mapping[str, Any]) -> str:
    """Returns the last note of a run; empty without notes."""
    return record["notes"][-1] if record["notes"] else ""


class Detect(Task):
    """Scans, compares the verdicts with the truth, and evaluates the trained model on test images, if there are any.

    Without a detector, the verdicts are from the losses of a classifier that was trained on all images.
    """

    metrics = (*DETECTION, *RATES, *ESTIMATES, *CALIBRATION, *TEST, *COST)
    tables = (
        ("clean_precision", "clean_recall"),
        ("clean_f1",),
        ("issue_f1",),
        ("auroc",),
        ("average_precision",),
    )

    def check(self, method: Method) -> None:
        """Creates the detector, or the settings of the classifier, which checks them."""
        if method.detector is None:
            if method.train_on != "all":
                raise SettingsError('expected a detector, found none; or train_on = "all", to select by a classifier')
            _check_without_detector(method)
            return
        if method.adapt or method.train_on != "selected" or method.backbone:
            raise SettingsError(
                "adapt, train_on and backbone go with task adapt only, or without a detector; leave them out"
            )
        method.make_detector(noise_rate=0.5)

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns the settings of the detector, or those of the classifier as `adapt.NAME`."""
        if method.detector is None:
            return _adaptation_settings(method)
        # settings of the file last, so that a placeholder of the noise rate remains
        return {**vars(method.make_detector(noise_rate=0.5)), **method.settings}

    def measure(self, inputs: CellInputs) -> dict[str, Any]:
        """Returns the metrics of a selection and its seconds, without reading the images.

        Seconds are those of the scan, also of an earlier one, or of training the classifier and evaluating its losses;
        memory is None for an earlier scan.
        """
        from labelsieve.bench.peak_memory import PeakMemory
        from labelsieve.metrics import calibration

        with PeakMemory() as peak:
            verdicts, is_new = _verdicts_of(inputs)
        metrics, readable = verdicts.metrics or {}, verdicts.is_readable
        return {
            **_defined(metrics),
            **_estimate(verdicts, inputs.labelled.labels, inputs.truth),
            "predicted_accuracy": float((verdicts.predicted == inputs.truth)[readable].mean()),
            **calibration(verdicts.label_quality[readable], (inputs.labelled.labels == inputs.truth)[readable]),
            **_test_metrics(verdicts.record.get("test") or {}),
            **cost_of(verdicts.record, peak, is_new=is_new),
            "note": last_note(verdicts.record),
        }


def _verdicts_of(inputs: CellInputs) -> tuple[Verdicts, bool]:
    """Returns the verdicts of the detector or, without one, of the classifier, and whether they are new."""
    from labelsieve.bench.selection import by_losses

    if inputs.method.detector is not None:
        return scan_once(inputs, tests=True)
    return by_losses(inputs, adaptation(inputs.method), test=inputs.test), True


def _defined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Sets precision, recall and F1 to None for wrong labels if there are none, and for right ones likewise."""
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


def _test_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Renames the metrics of a classifier to those of test images."""
    return {f"test_{name}": metrics.get(name) for name in CLASSIFICATION}


class Adapt(Task):
    """Trains a classifier on all images, or on the selection of a detector, a probe or the truth, and evaluates it.

    The accuracy is that of the last epoch on the test set. If `train_on` is `nothing`, it is that of the model that the
    scan has trained: the method without phase 2.
    """

    metrics = (*TEST, *FINE_TUNING, *COST)
    needs_test = True
    tables = (("test_accuracy",), ("used_rate", "used_clean"))

    def check(self, method: Method) -> None:
        """Creates detector and settings, which checks them."""
        from labelsieve.detect.compatibility import check_predicts_test

        if method.train_on in ("selected", "nothing"):
            if method.detector is None:
                alternatives = "" if method.train_on == "nothing" else ', or train_on = "all", "probe" or "truth"'
                raise SettingsError(f"expected a detector{alternatives}, found none")
            detector = method.make_detector(noise_rate=0.5)
            if method.train_on == "nothing":
                check_predicts_test(type(detector), method.detector)
                if method.backbone:
                    raise SettingsError("train_on nothing trains no backbone; leave it out")
            adaptation(method)
        else:
            _check_without_detector(method)

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns the settings of the detector, if there is one, and those of phase 2 as `adapt.NAME`."""
        detector_settings = {} if method.detector is None else Detect().resolved(method)
        return (
            detector_settings if method.train_on == "nothing" else {**detector_settings, **_adaptation_settings(method)}
        )

    def measure(self, inputs: CellInputs) -> dict[str, Any]:
        """Returns the accuracy on the test set, and size and precision of the selection.

        Seconds and memory are those of training the classifier, without the scan; if `train_on` is `nothing`, those of
        the scan as in :meth:`Detect.measure`.
        """
        from labelsieve.bench.peak_memory import PeakMemory
        from labelsieve.bench.selection import selection_of
        from labelsieve.finetune.run import adapt
        from labelsieve.finetune.selection import choose

        images = inputs.only_images
        if inputs.method.train_on == "nothing":
            measured = Detect().measure(inputs)
            return dict.fromkeys(self.metrics) | {name: measured[name] for name in (*TEST, *COST, "note")}
        settings = adaptation(inputs.method)
        verdicts = selection_of(inputs, settings)
        with PeakMemory() as peak:
            adapted = adapt(
                images,
                verdicts,
                backbone=inputs.method.backbone,
                settings=settings,
                test=inputs.test,
                seed=inputs.seed,
                progress=inputs.progress,
            )
        used, metrics = choose(verdicts, settings), adapted.metrics
        return {
            **_test_metrics(metrics["test"]),
            "test_accuracy_start": metrics["test_accuracy_start"],
            "test_accuracy_best": metrics["test_accuracy_best"],
            "used_rate": len(used.rows) / len(verdicts),
            "used_clean": float((inputs.truth == used.labels)[used.rows].mean()),
            **cost_of(adapted.record, peak),
            "note": "; ".join(adapted.record["notes"]),
        }


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


def _adaptation_settings(method: Method) -> dict[str, Any]:
    return {f"adapt.{name}": value for name, value in vars(adaptation(method)).items()}


def _check_without_detector(method: Method) -> None:
    """Checks a method without a detector."""
    if method.detector is not None or method.settings or method.recipe != "default":
        raise SettingsError(f"train_on {method.train_on} takes no detector, settings or recipe; leave them out")
    adaptation(method)


TASKS: Registry[type[Task], Entry] = Registry(
    "task",
    Entry("detect", f"{__name__}:Detect", "scans, and compares the verdicts with the truth"),
    Entry("adapt", f"{__name__}:Adapt", "trains a classifier on what is selected, and tests it"),
    Entry("tags", "labelsieve.bench.tag_task:Tags", "scans several labels per image, and compares them with the truth"),
)
