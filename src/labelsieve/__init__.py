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
    from labelsieve.core.errors import LabelsieveError
    from labelsieve.data.features import LabelledFeatures, load_features
    from labelsieve.data.images import LabelledImages
    from labelsieve.data.loading import load_images
    from labelsieve.data.noise import inject
    from labelsieve.data.tags.loading import load_tags
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.detect.aum import AUM
    from labelsieve.detect.clip_cleaner import CLIPCleaner
    from labelsieve.detect.clip_margin import ClipMargin
    from labelsieve.detect.confident_learning import ConfidentLearning
    from labelsieve.detect.deft.detector import DeFT
    from labelsieve.detect.fine import FINE
    from labelsieve.detect.gmm import GMM
    from labelsieve.detect.joint import Joint
    from labelsieve.detect.knn import KNN
    from labelsieve.detect.label_match import LabelMatch
    from labelsieve.detect.lemon import Lemon
    from labelsieve.detect.prototype import PrototypeGMM
    from labelsieve.detect.simifeat import SimiFeat
    from labelsieve.detect.small_loss import SmallLoss
    from labelsieve.finetune.result import Adapted
    from labelsieve.finetune.run import adapt
    from labelsieve.finetune.settings import Adaptation
    from labelsieve.pipeline import scan
    from labelsieve.report.export import export
    from labelsieve.report.html import write_report
    from labelsieve.report.tag_report import write_tag_report
    from labelsieve.tags.scan import scan_tags
    from labelsieve.tags.verdicts import TagVerdicts
    from labelsieve.verdicts import Verdicts
    from labelsieve.vlm.loading import load_vlm

    __version__: str

__all__ = [
    "AUM",
    "FINE",
    "GMM",
    "KNN",
    "Adaptation",
    "Adapted",
    "CLIPCleaner",
    "ClipMargin",
    "ConfidentLearning",
    "DeFT",
    "Joint",
    "LabelMatch",
    "LabelledFeatures",
    "LabelledImages",
    "LabelsieveError",
    "Lemon",
    "PrototypeGMM",
    "SimiFeat",
    "SmallLoss",
    "TagVerdicts",
    "TaggedImages",
    "Verdicts",
    "__version__",
    "adapt",
    "export",
    "inject",
    "load_features",
    "load_images",
    "load_tags",
    "load_vlm",
    "scan",
    "scan_tags",
    "write_report",
    "write_tag_report",
]

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
    "PrototypeGMM": "detect.prototype",
    "SimiFeat": "detect.simifeat",
    "SmallLoss": "detect.small_loss",
    "TagVerdicts": "tags.verdicts",
    "TaggedImages": "data.tagged",
    "Verdicts": "verdicts",
    "adapt": "finetune.run",
    "export": "report.export",
    "inject": "data.noise",
    "load_features": "data.features",
    "load_images": "data.sources",
    "load_tags": "data.tags",
    "load_vlm": "vlm.huggingface",
    "scan": "pipeline",
    "scan_tags": "tags.scan",
    "write_report": "report.html",
    "write_tag_report": "report.tag_report",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("labelsieve")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"labelsieve.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
