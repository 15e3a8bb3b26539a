"""The inputs of a cell, and the scan with its detector."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labelsieve.core.errors import CheckpointError, RunError
from labelsieve.core.provenance import fingerprint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.bench.config import Method
    from labelsieve.core.progress import Progress
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.verdicts import Verdicts
    from labelsieve.vlm.base import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class CellInputs:
    """The inputs of a cell, which the experiment and `run_experiment` have checked to go with its task.

    Attributes:
        method: The row of the table.
        images: Images, or rows of features, with noisy labels or tags and the truth.
        vlm: The model, None with features.
        seed: Seed of training.
        test: Clean test images, None if the experiment has none.
        runs: Folder of the verdicts of all scans.
        progress: Where to show progress.
    """

    method: Method
    images: LabelledImages | LabelledFeatures | TaggedImages
    vlm: VisionLanguageModel | None
    seed: int
    test: LabelledImages | None
    runs: Path
    progress: Progress

    @property
    def truth(self) -> NDArray[np.int64]:
        """True labels, (N,)."""
        return self.labelled.true_labels

    @property
    def only_images(self) -> LabelledImages:
        """The images, for training a classifier."""
        return cast("LabelledImages", self.images)

    @property
    def labelled(self) -> LabelledImages | LabelledFeatures:
        """The images or features with single labels."""
        return cast("LabelledImages | LabelledFeatures", self.images)

    @property
    def tagged(self) -> TaggedImages:
        """The images with tags."""
        return cast("TaggedImages", self.images)

    @property
    def noise_rate(self) -> float:
        """True share of wrong labels."""
        return float((self.truth != self.labelled.labels).mean())

    @property
    def model_fingerprint(self) -> str | None:
        """Fingerprint of the model, or of class text features; None if there are neither."""
        return getattr(self.images, "text_fingerprint", None) if self.vlm is None else self.vlm.fingerprint


def scan_once(inputs: CellInputs, *, tests: bool) -> tuple[Verdicts, bool]:
    """Scans with the detector of a method, or loads the verdicts of an earlier identical scan.

    Args:
        inputs: The inputs of the cell.
        tests: Whether to evaluate the trained model, if there are test images and the detector supports it. Without it,
            an earlier scan with an evaluation is used, too: its verdicts are the same.

    Returns:
        The verdicts, and whether they are new.
    """
    from labelsieve.core.engine import make_engine
    from labelsieve.pipeline import scan
    from labelsieve.verdicts import RECORD, Verdicts
    from labelsieve.vlm.features import image_features

    detector = inputs.method.make_detector(noise_rate=inputs.noise_rate)
    test = inputs.test if detector.predicts_test else None
    test_folder = _run_folder(inputs, detector, test)
    folder = test_folder if tests else _run_folder(inputs, detector, None)
    for path in dict.fromkeys((folder, test_folder)):
        if (path / RECORD).is_file():
            with suppress(RunError):  # damaged: made again
                return Verdicts.load(path), False
    if tests and test is not None and inputs.vlm is not None and getattr(detector, "peft", "none") == "none":
        # cached, so that no method is timed with extracting them; an adapted image encoder has to encode them itself
        engine = make_engine(progress=inputs.progress)
        image_features(test, inputs.vlm.to(engine.device), engine=engine)

    def scanned(*, resume: bool) -> Verdicts:
        return scan(
            inputs.labelled,
            inputs.vlm,
            detector=detector,
            test=test if tests else None,
            seed=inputs.seed,
            out=folder,
            overwrite=True,
            resume=resume,
            progress=inputs.progress,
        )

    try:
        return scanned(resume=True), True
    except CheckpointError:  # of another version or precision: only a few epochs are lost
        return scanned(resume=False), True


def _run_folder(inputs: CellInputs, detector: Any, test: LabelledImages | None) -> Path:
    """Returns the folder of the verdicts of a scan."""
    settings = [inputs.method.detector, vars(detector), inputs.seed]
    test_fingerprint = () if test is None else (test.fingerprint,)
    # on features, detectors without text have the same verdicts in each text regime
    model = inputs.model_fingerprint if inputs.vlm is not None or detector.uses_text else None
    return inputs.runs / fingerprint(inputs.images.fingerprint, model, settings, *test_fingerprint)
