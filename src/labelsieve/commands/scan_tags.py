"""`labelsieve scan-tags`: find the wrong and the missing tags of a data set with several labels per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Self, TypeVar, cast

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes

from labelsieve.commands.base import OptionalText, RunOptions, TagSource, load_model
from labelsieve.commands.output_checks import check_outside_source
from labelsieve.commands.parsing import last_value, read
from labelsieve.core.errors import SettingsError, UsageError
from labelsieve.core.progress import Progress, is_main_process
from labelsieve.detect.tags.base import TagDetector
from labelsieve.detect.tags.registry import DEFAULT, TAG_DETECTORS, tag_detector_class
from labelsieve.vlm.names import DEFAULT_MODEL

if TYPE_CHECKING:
    from labelsieve.data.tags.records import TaggedImages
    from labelsieve.tags.verdicts import TagVerdicts

SettingsT = TypeVar("SettingsT", bound=TagDetector)
_METAVAR = "{" + ",".join(TAG_DETECTORS) + "}"


@dataclass(frozen=True, kw_only=True)
class ScanTags(RunOptions, Generic[SettingsT]):
    """Finds wrong and missing tags, where images have several labels, and writes a run folder with a report.

    The options of the detector come last; `--detector NAME --help` shows those of another one.

    Attributes:
        data: The images.
        truth_column: Column of the true tags, if they are known; used for metrics only.
        noise: A file of `labelsieve noise --kind tags` for the same images: its tags replace the given tags, which are
            taken as right.
        model: Hub id or folder of a CLIP-like model.
        detector: Method that scores the pairs of image and class.
        out: Run folder to write.
        settings: Options of the detector.
    """

    data: OmitArgPrefixes[TagSource]
    truth_column: OptionalText = None
    noise: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    model: Annotated[str, tyro.conf.arg(metavar="MODEL")] = DEFAULT_MODEL
    detector: Annotated[str, tyro.conf.arg(metavar=_METAVAR)] = DEFAULT
    out: Path
    settings: OmitArgPrefixes[SettingsT]

    @classmethod
    def parse(cls, args: Sequence[str], *, prog: str) -> Self:
        """Parses the arguments in two stages: the detector first, since it determines the options."""
        name = last_value(args, "--detector", default=DEFAULT)
        try:
            settings = tag_detector_class(name)()
        except SettingsError as error:
            raise UsageError(str(error)) from None
        default = cls(data=TagSource(source=tyro.MISSING), detector=name, out=tyro.MISSING, settings=settings)
        kind: Any = ScanTags[type(settings)]  # type: ignore[misc]  # created at run time
        return read(kind, args, prog=prog, default=default)  # type: ignore[no-any-return]

    def run(self, console: Console) -> None:
        """Loads the data, scans them, and writes the report."""
        from labelsieve.core.output_folders import exclusive_folder
        from labelsieve.report.tag_report import write_tag_report
        from labelsieve.report.terminal import summarize_tags
        from labelsieve.run_folder import check_run_folder, finished_scan, lacks_report
        from labelsieve.tags.verdicts import TAG_FILES, TagVerdicts
        from labelsieve.verdicts import REPORT

        check_outside_source(self.data.source, self.out)
        with exclusive_folder(self.out):
            stopped_at_report = self.resume and lacks_report(self.out)
            if not stopped_at_report:
                check_run_folder(self.out, overwrite=self.overwrite, resume=self.resume, files=TAG_FILES)
            progress = Progress(console if is_main_process() else None)
            images = self.data.load(seed=self.seed, progress=progress, truth_column=self.truth_column, noise=self.noise)
            progress.say_notes(images.notes)
            verdicts = None
            if stopped_at_report:
                is_requested = partial(self._is_requested, images)
                verdicts = finished_scan(self.out, TagVerdicts.load, is_requested, overwrite=self.overwrite)
            if verdicts is None:
                verdicts = self._scan(images, progress)
            if is_main_process():
                write_tag_report(verdicts, images, self.out / REPORT, progress=progress)
                summarize_tags(verdicts, console)

    def _is_requested(self, images: TaggedImages, verdicts: TagVerdicts) -> bool:
        from labelsieve.core.provenance import fingerprint
        from labelsieve.vlm.names import absolute_name

        run, settings = verdicts.run, fingerprint(asdict(cast(Any, self.settings)))
        requested = (images.fingerprint, settings, absolute_name(self.model), self.seed)
        return (run.data.fingerprint, run.detector.fingerprint, run.model.name, run.seed) == requested

    def _scan(self, images: TaggedImages, progress: Progress) -> TagVerdicts:
        from labelsieve.tags.scan import scan_tags

        vlm = load_model(self.model, progress)
        return scan_tags(images, vlm, detector=self.settings, **self.run_options(), progress=progress)
