"""What a cell measures. A new task is one class and one line in `TASKS`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from labelsieve.core.errors import CheckpointError, RunError, SettingsError, look_up
from labelsieve.core.provenance import fingerprint
from labelsieve.core.validation import check_keys, field_names
from labelsieve.metrics import METRIC_TITLES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.bench.parts import Method
    from labelsieve.core.progress import Progress
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.labelled import Labelled
    from labelsieve.finetune.settings import Adaptation
    from labelsieve.verdicts import Verdicts
    from labelsieve.vlm.base import VisionLanguageModel

_DETECTION = {
    **METRIC_TITLES,
    "flagged_rate": "flagged",
    "noise_rate": "noise rate",
    "estimated_noise_rate": "estimated noise rate",
    "noise_rate_error": "error of the estimated noise rate",
    "predicted_accuracy": "predicted label = true label",
    "brier": "Brier score",
    "ece": "calibration error",
    "even_odds": "p_clean from which on every other label is right",
}
SECONDS, MEMORY, DEVICE_MEMORY = "seconds", "memory", "device_memory"
COST = {SECONDS: "seconds", MEMORY: "peak memory, GB", DEVICE_MEMORY: "peak memory of the GPU, GB"}
_TEST = {"test_accuracy": "test accuracy", "test_balanced_accuracy": "test balanced accuracy"}
_ADAPTATION = {
    **_TEST,
    "test_accuracy_start": "test accuracy before fine-tuning",
    "test_accuracy_best": "test accuracy of the best epoch, chosen on the test set",
    "used_rate": "trained on",
    "used_clean": "of these, right",
}
TITLES = {
    **_DETECTION,
    **_ADAPTATION,
    **COST,
}


NO_IMAGES = "task adapt trains on images, which features computed before come without; use task detect"
NO_TEST = "expected test images to measure a classifier on, found none; name them: test = ..."


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a cell is measured on.

    Attributes:
        method: The row of the table.
        images: Images, or rows of features, with their noisy labels and the truth.
        vlm: The model, None with features.
        seed: Of training.
        test: Clean images to test on, None where the experiment names none.
        runs: Folder that keeps the verdicts of every scan.
        progress: Where to show how far it is.
    """

    method: Method
    images: LabelledImages | LabelledFeatures
    vlm: VisionLanguageModel | None
    seed: int
    test: LabelledImages | None
    runs: Path
    progress: Progress

    @property
    def truth(self) -> NDArray[np.int64]:
        """True labels, (N,)."""
        return true_labels(self.images)

    @property
    def noise_rate(self) -> float:
        """True share of wrong labels."""
        return float((self.truth != self.images.labels).mean())

    @property
    def model_fingerprint(self) -> str | None:
        """Fingerprint of the model, or of class text features; None where there are neither."""
        return getattr(self.images, "text_fingerprint", None) if self.vlm is None else self.vlm.fingerprint


def true_labels(images: Labelled) -> NDArray[np.int64]:
    """Returns the true labels, (N,); the given ones where the truth is not known."""
    return images.labels if images.truth is None else images.truth


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
    """Scans, compares the verdicts with the truth, and tests what was trained where there are test images."""

    metrics = (*_DETECTION, *_TEST, *COST)
    needs_test = False
    tables: tuple[tuple[str, ...], ...] = (
        ("clean_precision", "clean_recall"),
        ("clean_f1",),
        ("issue_f1",),
        ("auroc",),
        ("average_precision",),
    )

    def check(self, method: Method) -> None:
        """Makes the detector once, which checks its settings."""
        if method.detector is None:
            raise SettingsError("expected a detector, found none")
        if method.adapt or method.train_on != "selected" or method.backbone:
            raise SettingsError("adapt, train_on and backbone go with task adapt only; leave them out")
        method.make_detector(noise_rate=0.5)

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns the settings of the detector."""
        # as the file has them where it does, so that a rate that is given stays the word for it
        return {**vars(method.make_detector(noise_rate=0.5)), **method.settings}

    def measure(self, given: Given) -> dict[str, Any]:
        """Returns the metrics of a scan and its seconds, without reading the images.

        Seconds are those of the scan wherever it was made; memory is known only of a scan that is made now.
        """
        from labelsieve.bench.peak_memory import PeakMemory
        from labelsieve.metrics import calibration

        with PeakMemory() as peak:
            verdicts, is_new = scan_once(given, tests=True)
        metrics, notes, readable = verdicts.metrics or {}, verdicts.record["notes"], verdicts.is_readable
        return {
            **_defined(metrics),
            **_estimate(verdicts),
            "predicted_accuracy": float((verdicts.predicted == given.truth)[readable].mean()),
            **calibration(verdicts.label_quality[readable], (given.images.labels == given.truth)[readable]),
            **_test_metrics(verdicts),
            SECONDS: verdicts.record["seconds"],
            MEMORY: peak.gigabytes if is_new else None,
            DEVICE_MEMORY: peak.on_device if is_new else None,
            "note": notes[-1] if notes else "",
        }


def _defined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves precision, recall and F1 empty for wrong labels where there are none, and for right ones likewise."""
    rate = metrics.get("noise_rate")
    empty = {0.0: "issue_", 1.0: "clean_"}.get(-1.0 if rate is None else rate, " ")
    return {name: None if name.startswith(empty) else value for name, value in metrics.items()}


def _estimate(verdicts: Verdicts) -> dict[str, float | None]:
    """Returns the noise rate that a calibrated detector estimates, and its distance from the true one."""
    wrong, rate = verdicts.run.estimate.wrong_labels, (verdicts.metrics or {}).get("noise_rate")
    readable = int(verdicts.is_readable.sum())
    estimated = None if wrong is None or not readable else wrong.value / readable
    error = None if estimated is None or rate is None else abs(estimated - rate)
    return {"estimated_noise_rate": estimated, "noise_rate_error": error}


def _test_metrics(verdicts: Verdicts) -> dict[str, float | None]:
    found = verdicts.record.get("test") or {}
    return {name: found.get(name.removeprefix("test_")) for name in _TEST}


def scan_once(given: Given, *, tests: bool) -> tuple[Verdicts, bool]:
    """Scans with the detector of a method, or loads the verdicts if the same scan was made before.

    Args:
        given: What to scan.
        tests: Whether to test what was trained, if there are test images and the detector can be tested. Where this is
            not asked for, a scan that was tested serves as well: its verdicts are the same.

    Returns:
        The verdicts, and whether they are new.
    """
    from labelsieve.core.engine import make_engine
    from labelsieve.pipeline import scan
    from labelsieve.verdicts import RECORD, Verdicts
    from labelsieve.vlm.features import image_features

    detector = given.method.make_detector(noise_rate=given.noise_rate)
    test = given.test if detector.predicts_test else None
    tested = _run_folder(given, detector, test)
    folder = tested if tests else _run_folder(given, detector, None)
    for each in dict.fromkeys((folder, tested)):
        if (each / RECORD).is_file():
            with suppress(RunError):  # damaged: made again
                return Verdicts.load(each), False
    if tests and test is not None and given.vlm is not None and getattr(detector, "peft", "none") == "none":
        # seen once, so that no method is timed with that; an adapted tower has to look at them itself
        engine = make_engine(progress=given.progress)
        image_features(test, given.vlm.to(engine.device), engine=engine)

    def scanned(*, resume: bool) -> Verdicts:
        return scan(
            given.images,
            given.vlm,
            detector=detector,
            test=test if tests else None,
            seed=given.seed,
            out=folder,
            overwrite=True,
            resume=resume,
            progress=given.progress,
        )

    try:
        return scanned(resume=True), True
    except CheckpointError:  # of another version or precision: nothing is lost but its few epochs
        return scanned(resume=False), True


# Settings that came later, as they were before there was a choice: scans and cells of before have to hold.
LATER = {"context_learns": True, "learns_from": "all", "negative_prompts": True, "negative_weight": 1.0}


def _run_folder(given: Given, detector: Any, test: LabelledImages | None) -> Path:
    """Returns where the verdicts of a scan are kept."""
    told = {key: value for key, value in vars(detector).items() if key not in LATER or value != LATER[key]}
    settings = [given.method.detector, told, given.seed]
    tested = () if test is None else (test.fingerprint,)
    # on features alone, detectors that use no text find the same in each text regime
    model = given.model_fingerprint if given.vlm is not None or detector.uses_text else None
    return given.runs / fingerprint(given.images.fingerprint, model, settings, *tested)


class Adapt:
    """Trains a classifier on all images, or on what a detector, a probe or the truth left of them, and tests it.

    The accuracy is that of the last epoch, on the test set. Where nothing is trained on, it is that of the model that
    the scan has trained: the method without phase 2.
    """

    metrics = (*_ADAPTATION, *COST)
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
        elif method.detector is not None or method.settings or method.recipe != "default":
            raise SettingsError(f"train_on {method.train_on} takes no detector, settings or recipe; leave them out")
        adaptation(method)

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns the settings of the detector, if there is one, and those of phase 2 as `adapt.NAME`."""
        of_detector = {} if method.detector is None else Detect().resolved(method)
        of_phase_2 = {} if method.train_on == "nothing" else vars(adaptation(method))
        return {**of_detector, **{f"adapt.{name}": value for name, value in of_phase_2.items()}}

    def measure(self, given: Given) -> dict[str, Any]:
        """Returns the accuracy on the test set, and how much and how right the training part was.

        Seconds and memory are those of training the classifier, without the scan; where nothing is trained on, those of
        the scan, memory as in :meth:`Detect.measure`.
        """
        from labelsieve.bench.peak_memory import PeakMemory
        from labelsieve.data.images import LabelledImages
        from labelsieve.finetune.run import adapt
        from labelsieve.finetune.selection import choose

        images = given.images
        if not isinstance(images, LabelledImages):
            raise SettingsError(NO_IMAGES)
        if given.test is None:
            raise SettingsError(NO_TEST)
        if given.method.train_on == "nothing":
            return dict.fromkeys(self.metrics) | _only(Detect().measure(given), (*_TEST, *COST, "note"))
        settings = adaptation(given.method)
        verdicts = selection_of(given, images, settings)
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
            "test_accuracy": found["test"]["accuracy"],
            "test_balanced_accuracy": found["test"]["balanced_accuracy"],
            "test_accuracy_start": found["test_accuracy_start"],
            "test_accuracy_best": found["test_accuracy_best"],
            "used_rate": len(used.rows) / len(verdicts),
            "used_clean": float((given.truth == used.labels)[used.rows].mean()),
            SECONDS: adapted.record["seconds"],
            MEMORY: peak.gigabytes,
            DEVICE_MEMORY: peak.on_device,
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


def selection_of(given: Given, images: LabelledImages, settings: Adaptation) -> Verdicts:
    """Returns the verdicts by which a cell selects what it fine-tunes on with these settings."""
    from labelsieve.bench.selection import by_probe, only

    method, right = given.method, given.truth == images.labels
    if method.train_on == "selected":
        return scan_once(given, tests=False)[0]
    kept = right if method.train_on == "truth" else right | True
    found = only(images, kept, truth=given.truth, model=None if given.vlm is None else given.vlm.name)
    if method.train_on != "probe":
        return found
    return by_probe(
        images, found, backbone=method.backbone, settings=settings, seed=given.seed, progress=given.progress
    )


TASKS: dict[str, Task] = {"detect": Detect(), "adapt": Adapt()}
