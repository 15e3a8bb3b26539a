"""Find the wrong labels in an image data set with a vision-language model, and correct them.

Every name below is loaded when it is first used, so that `import labelsieve` costs nothing.

Example:
    >>> import labelsieve as ls
    >>> images = ls.load_images("photos/")  # doctest: +SKIP
    >>> vlm = ls.load_vlm("openai/clip-vit-base-patch16")  # doctest: +SKIP
    >>> verdicts = ls.scan(images, vlm, detector=ls.DeFT(epochs=10))  # doctest: +SKIP
    >>> verdicts.save("runs/photos")  # doctest: +SKIP
    >>> ls.write_report(verdicts, images, "runs/photos/report.html")  # doctest: +SKIP
    >>> ls.adapt(images, verdicts, out="models/photos")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelsieve.core.errors import LabelsieveError as LabelsieveError
    from labelsieve.data.features import LabelledFeatures as LabelledFeatures
    from labelsieve.data.features import load_features as load_features
    from labelsieve.data.images import LabelledImages as LabelledImages
    from labelsieve.data.loading import load_images as load_images
    from labelsieve.data.noise import inject as inject
    from labelsieve.data.tags.loading import load_tags as load_tags
    from labelsieve.data.tags.records import TaggedImages as TaggedImages
    from labelsieve.detect.aum import AUM as AUM
    from labelsieve.detect.clip_cleaner import CLIPCleaner as CLIPCleaner
    from labelsieve.detect.clip_margin import ClipMargin as ClipMargin
    from labelsieve.detect.confident_learning import ConfidentLearning as ConfidentLearning
    from labelsieve.detect.deft.detector import DeFT as DeFT
    from labelsieve.detect.fine import FINE as FINE
    from labelsieve.detect.gmm import GMM as GMM
    from labelsieve.detect.joint import Joint as Joint
    from labelsieve.detect.knn import KNN as KNN
    from labelsieve.detect.label_match import LabelMatch as LabelMatch
    from labelsieve.detect.lemon import Lemon as Lemon
    from labelsieve.detect.prototype_gmm import PrototypeGMM as PrototypeGMM
    from labelsieve.detect.simifeat import SimiFeat as SimiFeat
    from labelsieve.detect.small_loss import SmallLoss as SmallLoss
    from labelsieve.finetune.result import Adapted as Adapted
    from labelsieve.finetune.run import adapt as adapt
    from labelsieve.finetune.settings import Adaptation as Adaptation
    from labelsieve.pipeline import scan as scan
    from labelsieve.report.exports.export import export as export
    from labelsieve.report.label_report import write_report as write_report
    from labelsieve.report.tag_report import write_tag_report as write_tag_report
    from labelsieve.tags.scan import scan_tags as scan_tags
    from labelsieve.tags.verdicts import TagVerdicts as TagVerdicts
    from labelsieve.verdicts import Verdicts as Verdicts
    from labelsieve.vlm.loading import load_vlm as load_vlm

    __version__: str

_HOME = {
    "AUM": "detect.aum",
    "CLIPCleaner": "detect.clip_cleaner",
    "ClipMargin": "detect.clip_margin",
    "ConfidentLearning": "detect.confident_learning",
    "Adaptation": "finetune.settings",
    "Adapted": "finetune.result",
    "DeFT": "detect.deft.detector",
    "FINE": "detect.fine",
    "GMM": "detect.gmm",
    "Joint": "detect.joint",
    "KNN": "detect.knn",
    "LabelMatch": "detect.label_match",
    "LabelledFeatures": "data.features",
    "LabelledImages": "data.images",
    "LabelsieveError": "core.errors",
    "Lemon": "detect.lemon",
    "PrototypeGMM": "detect.prototype_gmm",
    "SimiFeat": "detect.simifeat",
    "SmallLoss": "detect.small_loss",
    "TagVerdicts": "tags.verdicts",
    "TaggedImages": "data.tags.records",
    "Verdicts": "verdicts",
    "adapt": "finetune.run",
    "export": "report.exports.export",
    "inject": "data.noise",
    "load_features": "data.features",
    "load_images": "data.loading",
    "load_tags": "data.tags.loading",
    "load_vlm": "vlm.loading",
    "scan": "pipeline",
    "scan_tags": "tags.scan",
    "write_report": "report.label_report",
    "write_tag_report": "report.tag_report",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("labelsieve")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"labelsieve.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
