"""What a cell is measured on, and the scan with its detector."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelsieve.core.errors import CheckpointError, RunError, SettingsError
from labelsieve.core.provenance import fingerprint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelsieve.bench.config import Method
    from labelsieve.core.progress import Progress
    from labelsieve.data.features import LabelledFeatures
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.labelled import Labelled
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.verdicts import Verdicts
    from labelsieve.vlm.base import VisionLanguageModel

NO_IMAGES = "a classifier is trained on images, which features come without; use task detect with a detector"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a cell is measured on.

    Attributes:
        method: The row of the table.
        images: Images, or rows of features, with their noisy labels or tags and the truth.
        vlm: The model, None with features.
        seed: Of training.
        test: Clean images to test on, None where the experiment names none.
        runs: Folder that keeps the verdicts of every scan.
        progress: Where to show how far it is.
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
        return true_labels(self.labelled)

    @property
    def only_images(self) -> LabelledImages:
        """The images, for what trains a classifier.

        Raises:
            SettingsError: There are features alone.
        """
        from labelsieve.data.images import LabelledImages

        if not isinstance(self.images, LabelledImages):
            raise SettingsError(NO_IMAGES)
        return self.images

    @property
    def labelled(self) -> LabelledImages | LabelledFeatures:
        """The images or features, for what reads one label of each."""
        from labelsieve.data.features import LabelledFeatures

        images = self.images
        return images if isinstance(images, LabelledFeatures) else one_label(images)

    @property
    def tagged(self) -> TaggedImages:
        """The images, for what reads several labels of each.

        Raises:
            SettingsError: They have one.
        """
        from labelsieve.data.tags.records import TaggedImages

        if not isinstance(self.images, TaggedImages):
            raise SettingsError("these images have one label each; use task detect")
        return self.images

    @property
    def noise_rate(self) -> float:
        """True share of wrong labels."""
        return float((self.truth != self.labelled.labels).mean())

    @property
    def model_fingerprint(self) -> str | None:
        """Fingerprint of the model, or of class text features; None where there are neither."""
        return getattr(self.images, "text_fingerprint", None) if self.vlm is None else self.vlm.fingerprint


def one_label(images: LabelledImages | TaggedImages) -> LabelledImages:
    """Returns images with one label each.

    Raises:
        SettingsError: They have several.
    """
    from labelsieve.data.tags.records import TaggedImages

    if isinstance(images, TaggedImages):
        raise SettingsError("these images have several labels each; use task tags")
    return images


def true_labels(images: Labelled) -> NDArray[np.int64]:
    """Returns the true labels, (N,); the given ones where the truth is not known."""
    return images.labels if images.truth is None else images.truth


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
        # seen once, so that no method is timed with that; an adapted image encoder has to look at them itself
        engine = make_engine(progress=given.progress)
        image_features(test, given.vlm.to(engine.device), engine=engine)

    def scanned(*, resume: bool) -> Verdicts:
        return scan(
            given.labelled,
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
