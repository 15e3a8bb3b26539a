"""`labelsieve noise`: inject wrong labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, arg

from labelsieve.commands.base import Command, Flag, OptionalText, Source, TagSource, source_of_options
from labelsieve.commands.output_checks import check_not_input
from labelsieve.core.errors import SettingsError, UsageError, shown
from labelsieve.core.files import quoted
from labelsieve.core.output_folders import check_file
from labelsieve.core.progress import Progress
from labelsieve.core.validation import Rate, Seed
from labelsieve.data.noise_kinds import NOISE, SHARES, kinds_for

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(NOISE)]


@dataclass(frozen=True, kw_only=True)
class Noise(Command):
    """Injects wrong labels into a data set, to evaluate detectors.

    Writes one Parquet file with the images, the noisy labels (`label`) and the given ones (`clean_label`), for
    `labelsieve scan FILE --truth-column clean_label`; or only the labels, for other copies of the same images:
    `labelsieve scan SOURCE --noise FILE`. The file records the kind of noise and the fingerprint of the images.

    With `--kind tags` the images have several labels each, and the columns are `tags` and `clean_tags`, for
    `labelsieve scan-tags`.

    Attributes:
        data: The images; their given labels are taken as right.
        kind: Which class a wrong label names: any other, the next, or one that depends on the pixels; or tags.
        rate: Share of wrong labels, from 0 to below 1.
        omit: For tags: share of the tags that are left out.
        add: For tags: share of the tags of the result that are wrong.
        tag_column: For tags: their column, or one a class.
        separator: For tags: separator between two tags of a text.
        out: Parquet file to write.
        seed: Seed of all random choices.
        paper_rate: Draw each image independently, symmetric noise from all classes including the right one, as the
            usual benchmarks do. By default, the share of wrong labels is exact.
        labels_only: Leave the images out.
        overwrite: Replace an existing file.
    """

    data: OmitArgPrefixes[Source]
    kind: Kind
    rate: Annotated[Rate | None, arg(help_behavior_hint="(but for tags)")] = None
    omit: Rate = 0.0
    add: Rate = 0.0
    tag_column: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    separator: OptionalText = None
    out: Path
    seed: Seed = 0
    paper_rate: Flag = False
    labels_only: Flag = False
    overwrite: Flag = False

    def run(self, console: Console) -> None:
        """Loads the images, changes labels, and writes the file."""
        if self.out.suffix.lower() != ".parquet":
            raise SettingsError(f"expected --out to end in .parquet, got {shown(self.out.name)}")
        check_not_input(self.out, source=self.data.source)
        check_file(self.out, overwrite=self.overwrite)
        self._refuse_others()
        write = self._write_tags if NOISE.entries[self.kind].for_tags else self._write_labels
        progress = Progress(console)
        path, verb, advice = write(progress)
        progress.say(f"wrote {path}; {f'{verb} SOURCE --noise {path}' if self.labels_only else advice}")

    def _refuse_others(self) -> None:
        """Checks that the options fit the kind of noise.

        Raises:
            UsageError: An option belongs to other kinds, or one is missing.
        """
        for option, value, kinds in self._options():
            if self.kind not in kinds and value not in (None, 0.0, (), False):
                fitting = " or ".join(kinds)
                raise UsageError(f"{option} goes with --kind {fitting} only, got --kind {self.kind}; leave it out")
        kind = NOISE.entries[self.kind]
        if "rate" in kind.takes and self.rate is None:
            raise UsageError(f"missing --rate, the share of wrong labels, with --kind {self.kind}")
        if kind.for_tags and not any(self._shares().values()):
            options = " or ".join(f"--{name}" for name in kind.takes)
            raise UsageError(
                f"expected {options} above 0 with --kind {self.kind}, the shares of tags to change; add one"
            )

    def _options(self) -> Iterator[tuple[str, object, list[str]]]:
        """Yields options that not every kind accepts: their names, their values, and the kinds that accept them."""
        shares = [(f"--{name}", name, getattr(self, name)) for name in SHARES]
        for option, setting, value in (*shares, ("--paper-rate", "exact", self.paper_rate)):
            yield option, value, [name for name, kind in NOISE.entries.items() if setting in kind.takes]
        yield "--label-column", self.data.label_column, kinds_for(tags=False)
        yield "--box-margin", self.data.box_margin, kinds_for(tags=False)
        yield "--tag-column", self.tag_column, kinds_for(tags=True)
        yield "--separator", self.separator, kinds_for(tags=True)

    def _shares(self) -> dict[str, Any]:
        """Returns the shares that the kind takes, by name."""
        return {name: getattr(self, name) or 0.0 for name in NOISE.entries[self.kind].shares}

    def _write_labels(self, progress: Progress) -> tuple[Path, str, str]:
        from labelsieve.data.noise import inject
        from labelsieve.data.noise_files import write_noise

        shares, exact = self._shares(), not self.paper_rate
        if len(self.data.label_column) > 1:
            raise SettingsError("expected one --label-column, whose labels count as right, got several; name one")
        images = self.data.load(seed=self.seed, progress=progress)
        noisy = inject(images, kind=self.kind, seed=self.seed, exact=exact, progress=progress, **shares)
        made = {"kind": self.kind, **shares, "seed": self.seed, "exact": exact}
        progress.say_notes(noisy.notes)
        path = write_noise(noisy, self.out, parameters=made, with_images=not self.labels_only, progress=progress)
        return path, "scan", "scan it with --truth-column clean_label"

    def _write_tags(self, progress: Progress) -> tuple[Path, str, str]:
        from labelsieve.data.noise_files import CLEAN_TAGS, write_noise
        from labelsieve.data.tags.noise import with_tag_noise

        source = source_of_options(TagSource, self.data.source, self.data)
        source = replace(source, tag_column=self.tag_column, separator=self.separator)
        images = source.load(seed=self.seed, progress=progress)
        noisy = with_tag_noise(images, kind=self.kind, seed=self.seed, **self._shares())
        progress.say_notes(noisy.notes)
        made = {**self._shares(), "seed": self.seed}
        path = write_noise(noisy, self.out, parameters=made, with_images=not self.labels_only, progress=progress)
        return path, "scan-tags", f"labelsieve scan-tags {quoted(path)} --truth-column {CLEAN_TAGS}"
