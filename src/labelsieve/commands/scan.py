"""`labelsieve scan`: find the wrong labels of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Self, TypeVar, cast

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes

from labelsieve.commands.base import (
    Flag,
    OptionalText,
    OtherSplit,
    RunOptions,
    Source,
    TestSet,
    load_model,
)
from labelsieve.commands.output_checks import check_outside_source
from labelsieve.commands.parsing import last_value, read
from labelsieve.core.errors import UsageError, look_up
from labelsieve.core.progress import Progress, is_main_process
from labelsieve.core.validation import FalseFlags, LogitScale, field_names
from labelsieve.detect.base import Detector
from labelsieve.detect.deft.detector import RECIPES
from labelsieve.detect.registry import DEFAULT, DETECTORS, detector_class
from labelsieve.vlm.names import DEFAULT_MODEL

if TYPE_CHECKING:
    from labelsieve.data.images import LabelledImages
    from labelsieve.verdicts import Verdicts

SettingsT = TypeVar("SettingsT", bound=Detector)
_METAVAR, _RECIPES = ("{" + ",".join(names) + "}" for names in (DETECTORS, RECIPES))


@dataclass(frozen=True, kw_only=True)
class Scan(RunOptions, Generic[SettingsT]):
    """Finds the wrong labels of a data set and writes a run folder with a report.

    The options of the detector come last; `--detector NAME --help` shows those of another one, `labelsieve list` all
    detectors.

    Instead of images, SOURCE may be precomputed features: a .npz file, or a Parquet file with a column `features` of
    lists of numbers and no column of images.

    Attributes:
        data: The images, or the features.
        truth_column: Column of the true labels, if they are known; used for metrics only.
        noise: A file of `labelsieve noise` for the same images: its wrong labels replace the given labels, which are
            taken as right.
        text_features: For features: a .npy file with a text feature of each class, if the source holds none.
        logit_scale: For features: the factor of the model from cosine similarity to logit, with text features.
        model: Hub id or folder of a CLIP-like model.
        detector: Method that scores the labels.
        test_set: Images to test the model on after the detector has run: trained, or zero-shot if nothing is trained.
            A detector without a model says so.
        reviewed: Folder of an earlier run on the same images, which may have moved: answers of its review are used as
            known labels, are never asked again, and improve the ranking of the other images.
        false_flags: A share, such as 10%: flag labels so that, by the audit of the run of --reviewed, at most this
            share of the flags is false, instead of by the rule of the detector.
        other_split: Images of another split, to find images that are in both.
        image_defects: Also find dark, bright, blurred and empty images, and odd shapes and sizes. Needs cleanvision,
            the extra `defects`.
        recipe: Settings of deft to start from: of this project, or of the paper for synthetic, real or severe noise.
        out: Run folder to write.
        settings: Options of the detector.
    """

    data: OmitArgPrefixes[Source]
    truth_column: OptionalText = None
    noise: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    text_features: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    logit_scale: Annotated[LogitScale | None, tyro.conf.arg(metavar="X")] = None
    model: Annotated[str, tyro.conf.arg(metavar="MODEL")] = DEFAULT_MODEL
    detector: Annotated[str, tyro.conf.arg(metavar=_METAVAR)] = DEFAULT
    recipe: Annotated[str, tyro.conf.arg(metavar=_RECIPES)] = "default"
    test_set: OmitArgPrefixes[TestSet] = field(default_factory=TestSet)
    reviewed: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    false_flags: FalseFlags | None = None
    other_split: OmitArgPrefixes[OtherSplit] = field(default_factory=OtherSplit)
    image_defects: Flag = False
    out: Path
    settings: OmitArgPrefixes[SettingsT]

    @classmethod
    def parse(cls, args: Sequence[str], *, prog: str) -> Self:
        """Parses the arguments in two stages: detector and recipe first, since they determine the options."""
        detector = last_value(args, "--detector", default=DEFAULT)
        recipe = last_value(args, "--recipe", default="default")
        settings = _settings(detector, recipe)
        default = cls(
            data=Source(source=tyro.MISSING), detector=detector, recipe=recipe, out=tyro.MISSING, settings=settings
        )
        kind: Any = Scan[type(settings)]  # type: ignore[misc]  # created at run time
        try:
            return read(kind, args, prog=prog, default=default)  # type: ignore[no-any-return]
        except UsageError as error:
            raise UsageError(f"{error}{_hint_on_detectors(args, settings)}") from None

    def run(self, console: Console) -> None:
        """Loads the data, scans them, and writes the report."""
        from labelsieve.core.output_folders import exclusive_folder
        from labelsieve.run_folder import check_run_folder, lacks_report

        check_outside_source(self.data.source, self.out)
        self._check_reviewed()
        with exclusive_folder(self.out):
            stopped_at_report = self.resume and lacks_report(self.out)
            if not stopped_at_report:
                check_run_folder(self.out, overwrite=self.overwrite, resume=self.resume)  # before minutes of loading
            self._load_and_scan(console, stopped_at_report=stopped_at_report)

    def _check_reviewed(self) -> None:
        """Checks that there are reviews, and an audit if the flags need one, before minutes of loading."""
        from labelsieve.review.earlier_audit import read_audit
        from labelsieve.review.earlier_review import check_reviewed

        if self.reviewed is None:
            if self.false_flags is not None:
                raise UsageError(
                    "--false-flags goes with --reviewed RUN, a run that was audited; add it or leave it out"
                )
        elif self.false_flags is None:
            check_reviewed(self.reviewed)
        else:
            read_audit(self.reviewed, false_flags=self.false_flags)

    def _load_and_scan(self, console: Console, *, stopped_at_report: bool) -> None:
        from labelsieve.report.label_report import write_report
        from labelsieve.report.terminal import summarize
        from labelsieve.run_folder import finished_scan
        from labelsieve.verdicts import REPORT, Verdicts

        progress = Progress(console if is_main_process() else None)
        images, test = self._load(progress), self.test_set.load(seed=self.seed, progress=progress)
        progress.say_notes(images.notes)
        against = self.other_split.load(seed=self.seed, progress=progress)
        verdicts = None
        if stopped_at_report:
            is_requested = partial(self._is_requested, images, test, against)
            verdicts = finished_scan(self.out, Verdicts.load, is_requested, overwrite=self.overwrite)
        if verdicts is None:
            verdicts = self._scan(images, test, against, progress)
        if is_main_process():
            write_report(verdicts, images, self.out / REPORT, progress=progress)
            summarize(verdicts, console)

    def _is_requested(self, images: Any, test: LabelledImages | None, against: Any, verdicts: Verdicts) -> bool:
        from labelsieve.core.provenance import fingerprint
        from labelsieve.vlm.names import absolute_name

        run, names = verdicts.run, ("data", "test", "against", "reviewed", "detector")
        parts = {name: getattr(getattr(run, name), "fingerprint", None) for name in names}
        requested = {
            "data": images.fingerprint,
            "test": None if test is None else test.fingerprint,
            "against": None if against is None else against.fingerprint,
            "reviewed": self._review_fingerprint(images),
            "detector": fingerprint(asdict(cast(Any, self.settings))),
        }
        recorded = (run.seed, run.rule.false_flags, bool(run.image_defects))
        options = (self.seed, self.false_flags, self.image_defects)
        is_of_model = run.model.name in (None, absolute_name(self.model))  # features have none
        return (parts, recorded) == (requested, options) and is_of_model

    def _review_fingerprint(self, images: Any) -> str | None:
        """Returns the fingerprint of the labels known from an earlier review."""
        from labelsieve.review.earlier_review import read_earlier_review

        return (
            None
            if self.reviewed is None
            else str(read_earlier_review(self.reviewed, images).to_record()["fingerprint"])
        )

    def _load(self, progress: Progress) -> Any:
        from labelsieve.data.features import load_features
        from labelsieve.data.sources.feature_files import holds_features

        if not holds_features(self.data.source):
            if self.text_features is not None or self.logit_scale is not None:
                raise UsageError("--text-features and --logit-scale go with features only; leave them out for images")
            return self.data.load(seed=self.seed, progress=progress, truth_column=self.truth_column, noise=self.noise)
        if self.noise is not None:
            raise UsageError("--noise goes with images only; leave it out for features")
        return load_features(
            self.data.source,
            **self.data.feature_options(),
            truth_column=self.truth_column,
            text=self.text_features,
            logit_scale=self.logit_scale,
            seed=self.seed,
        )

    def _scan(self, images: Any, test: LabelledImages | None, against: Any, progress: Progress) -> Verdicts:
        from labelsieve.pipeline import scan

        return scan(
            images,
            self._model(images, progress),
            detector=self.settings,
            test=test,
            reviewed=self.reviewed,
            false_flags=self.false_flags,
            against=against,
            image_defects=self.image_defects,
            **self.run_options(),
            progress=progress,
        )

    def _model(self, images: Any, progress: Progress) -> Any:
        """Loads the model; precomputed features do not need it."""
        from labelsieve.data.features import LabelledFeatures

        return None if isinstance(images, LabelledFeatures) else load_model(self.model, progress)


def _hint_on_detectors(args: Sequence[str], settings: Detector) -> str:
    """Returns a hint on options that only other detectors have, empty without any."""
    used = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in args if word.startswith("--")}
    owners = {name: set(field_names(detector_class(name))) - set(field_names(type(settings))) for name in DETECTORS}
    remarks = []
    for option in sorted(used):
        names = [name for name, options in owners.items() if option in options]
        if names:
            remarks.append(f"; --{option.replace('_', '-')} is an option of --detector {', '.join(names)}")
    return "".join(remarks)


def _settings(detector: str, recipe: str) -> Any:
    look_up(DETECTORS, detector, what="--detector", error=UsageError)
    if detector != "deft":
        if recipe != "default":
            raise UsageError(f"--recipe goes with --detector deft only, got {detector}; leave it out")
        return detector_class(detector)()
    return look_up(RECIPES, recipe, what="--recipe", error=UsageError)
