"""What a cell measures. A new task is one class and one line in `TASKS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from labelsieve.errors import RunError, SettingsError
from labelsieve.provenance import fingerprint

if TYPE_CHECKING:
    from labelsieve.bench.experiment import Method
    from labelsieve.data.images import LabelledImages
    from labelsieve.progress import Progress
    from labelsieve.verdicts import Verdicts
    from labelsieve.vlm.base import VisionLanguageModel

_DETECTION = {
    "clean_precision": "clean P",
    "clean_recall": "clean R",
    "clean_f1": "clean F1",
    "issue_precision": "issue P",
    "issue_recall": "issue R",
    "issue_f1": "issue F1",
    "auroc": "AUROC",
    "average_precision": "AP",
    "flagged_rate": "flagged",
    "noise_rate": "noise rate",
    "predicted_accuracy": "predicted label = true label",
}
SECONDS = "seconds"
TITLES = {
    **_DETECTION,
    "test_accuracy": "test accuracy, last epoch",
    "test_accuracy_best": "test accuracy, best epoch (chosen on the test set, as papers do)",
    SECONDS: "seconds",
}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a cell is measured on.

    Attributes:
        method: The row of the table.
        images: Images with their noisy labels and the truth.
        vlm: The model.
        seed: Of training.
        test: Loads the clean images to test on, None where the experiment names none.
        runs: Folder that keeps the verdicts of every scan.
        progress: Where to show how far it is.
    """

    method: Method
    images: LabelledImages
    vlm: VisionLanguageModel
    seed: int
    test: Callable[[], LabelledImages | None]
    runs: Path
    progress: Progress

    @property
    def noise_rate(self) -> float:
        """True share of wrong labels."""
        truth = self.images.truth
        return 0.0 if truth is None else float((truth != self.images.labels).mean())


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

    def check(self, method: Method) -> None:
        """Checks a method before anything is measured.

        Raises:
            SettingsError: Something in it is unknown, missing or out of range.
        """
        ...

    def measure(self, given: Given) -> dict[str, Any]:
        """Measures one cell; of the result, the names in `metrics` are numbers or None."""
        ...


class Detect:
    """Scans, and compares the verdicts with the truth."""

    metrics = (*_DETECTION, SECONDS)
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
        if method.adapt or method.train_on != "selected":
            raise SettingsError("adapt and train_on go with task adapt only; leave them out")
        method.make_detector(noise_rate=0.5)

    def measure(self, given: Given) -> dict[str, Any]:
        """Returns the metrics of a scan and its seconds, without reading the images."""
        verdicts = scan_once(given)
        metrics, notes, truth = verdicts.metrics or {}, verdicts.record["notes"], given.images.truth
        right = (verdicts.predicted == truth)[verdicts.is_readable]
        return {
            **metrics,
            "predicted_accuracy": float(right.mean()),
            SECONDS: verdicts.record["seconds"],
            "note": notes[-1] if notes else "",
        }


def scan_once(given: Given) -> Verdicts:
    """Scans with the detector of a method, or loads the verdicts if the same scan was made before."""
    from labelsieve.scan import scan
    from labelsieve.verdicts import RECORD, Verdicts

    detector = given.method.make_detector(noise_rate=given.noise_rate)
    settings = [given.method.detector, vars(detector), given.seed]
    folder = given.runs / fingerprint(given.images.fingerprint, given.vlm.fingerprint, settings)
    if (folder / RECORD).is_file():
        try:
            return Verdicts.load(folder)
        except RunError:  # damaged: made again
            pass
    return scan(
        given.images,
        given.vlm,
        detector=detector,
        seed=given.seed,
        out=folder,
        overwrite=True,
        resume=True,
        progress=given.progress,
    )


TASKS: dict[str, Task] = {"detect": Detect()}
