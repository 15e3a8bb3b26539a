"""The task of finding wrong and missing tags."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from labelsieve.bench.tasks import Task, cost_of, last_note
from labelsieve.core.errors import RunError, SettingsError
from labelsieve.core.provenance import fingerprint
from labelsieve.metrics import COST, SIDE_SCORES, TAG_DETECTION, TAG_RATES

if TYPE_CHECKING:
    from labelsieve.bench.cell_inputs import CellInputs
    from labelsieve.bench.config import Method
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.tags.verdicts import TagVerdicts


class Tags(Task):
    """Scans images with tags, and compares the verdicts with the truth."""

    metrics = (*TAG_DETECTION, *TAG_RATES, *COST)
    has_tags = True
    tables = (
        ("wrong_auroc",),
        ("missing_auroc",),
        ("wrong_f1",),
        ("missing_f1",),
        ("map",),
    )

    def check(self, method: Method) -> None:
        """Creates the detector of tags, which checks its settings."""
        if method.detector is None:
            raise SettingsError("expected a detector, found none")
        if method.adapt or method.train_on != "selected" or method.backbone or method.recipe != "default":
            raise SettingsError("task tags takes a detector and its settings only; leave the others out")
        method.make_tag_detector()

    def resolved(self, method: Method) -> dict[str, Any]:
        """Returns the settings of the detector."""
        return dict(vars(method.make_tag_detector()))

    def measure(self, inputs: CellInputs) -> dict[str, Any]:
        """Returns the metrics of both kinds, the share of flags, rates and seconds, without reading the images.

        Seconds and memory are those of :meth:`labelsieve.bench.tasks.Detect.measure`.
        """
        from labelsieve.bench.peak_memory import PeakMemory

        with PeakMemory() as peak:
            verdicts, is_new = _scan_tags_once(inputs)
        return {
            **_defined(verdicts.metrics or {}),
            **_flagged(verdicts),
            **_rates(inputs.tagged, verdicts),
            **cost_of(verdicts.record, peak, is_new=is_new),
            "note": last_note(verdicts.record),
        }


def _scan_tags_once(inputs: CellInputs) -> tuple[TagVerdicts, bool]:
    """Scans, or loads the verdicts of an earlier identical scan; returns them and whether they are new."""
    from labelsieve.tags.scan import scan_tags
    from labelsieve.tags.verdicts import TagVerdicts
    from labelsieve.verdicts import RECORD

    detector, images = inputs.method.make_tag_detector(), inputs.tagged
    settings = [inputs.method.detector, vars(detector), inputs.seed]
    folder = inputs.runs / fingerprint(images.fingerprint, inputs.model_fingerprint, settings)
    if (folder / RECORD).is_file():
        with suppress(RunError):  # damaged: made again
            return TagVerdicts.load(folder), False
    verdicts = scan_tags(
        images, inputs.vlm, detector=detector, seed=inputs.seed, out=folder, overwrite=True, progress=inputs.progress
    )
    return verdicts, True


def _defined(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Sets precision, recall and F1 of a kind to None if no tag is wrong, or none is missing."""
    empty = {f"{kind}_{each}" for kind in ("wrong", "missing") if not metrics[f"{kind}_rate"] for each in SIDE_SCORES}
    return {name: None if name in empty else metrics[name] for name in TAG_DETECTION if name in metrics}


def _flagged(verdicts: TagVerdicts) -> dict[str, float | None]:
    """Returns the share of given tags flagged as wrong, and of absent tags flagged as missing."""
    given = verdicts.given[verdicts.is_readable]
    wrong, missing = (len(verdicts.of_kind(kind)) for kind in ("wrong", "missing"))
    return {"wrong_flagged": _share(wrong, given.sum()), "missing_flagged": _share(missing, (~given).sum())}


def _rates(images: TaggedImages, verdicts: TagVerdicts) -> dict[str, float | None]:
    """Returns true and estimated shares: of the given tags that are wrong, and of the right ones that are missing."""
    is_readable = verdicts.is_readable
    given, truth = images.tags[is_readable], images.true_tags[is_readable]
    estimated = verdicts.estimated()
    rates = {
        "commission": _share((given & ~truth).sum(), given.sum()),
        "omission": _share((truth & ~given).sum(), truth.sum()),
    }
    if estimated is None:
        return rates
    right = given.sum() - estimated["wrong"] + estimated["missing"]
    return {
        **rates,
        "estimated_commission": _share(estimated["wrong"], given.sum()),
        "estimated_omission": _share(estimated["missing"], right),
    }


def _share(count: float, total: float) -> float | None:
    return float(count / total) if total > 0 else None
