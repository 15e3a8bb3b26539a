"""`labelsieve noise`: put wrong labels in on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, arg

from labelsieve.commands.base import Command, Flag, OptionalText, Source, TagSource, refuse_own
from labelsieve.core.errors import RunError, SettingsError, UsageError, shown
from labelsieve.core.progress import Progress
from labelsieve.core.validation import Rate, Seed
from labelsieve.data.noise_kinds import NOISE, TAGS

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[(*NOISE, TAGS)]


@dataclass(frozen=True, kw_only=True)
class Noise(Command):
    """Puts wrong labels into a data set on purpose, to measure a detector with.

    Writes one Parquet file with the images, the noisy labels (`label`) and the given ones (`clean_label`), for
    `labelsieve scan FILE --truth-column clean_label`; or with the labels alone, which others put on their copy of the
    same images: `labelsieve scan SOURCE --noise FILE`. The file says what noise it is and of which images.

    With `--kind tags` the images have several labels each, and the columns are `tags` and `clean_tags`, for
    `labelsieve scan-tags`.

    Attributes:
        data: The images; their given labels count as right.
        kind: Which class a wrong label names: any other, the next, or one that depends on the pixels; or tags.
        rate: Share of wrong labels, from 0 to below 1.
        omit: For tags: share of the tags that are left out.
        add: For tags: share of the tags of the result that are wrong.
        tag_column: For tags: their column, or one a class.
        separator: For tags: what stands between two tags of a text.
        out: Parquet file to write.
        seed: Every random choice is drawn from it.
        paper_rate: Draw each image on its own, symmetric noise from all classes with the right one among them, as the
            usual benchmarks do. By default the share of wrong labels is exact.
        labels_only: Leave the images out.
        overwrite: Replace a file that is there.
    """

    data: OmitArgPrefixes[Source]
    kind: Kind
    rate: Annotated[Rate | None, arg(metavar="X", help_behavior_hint="(but for tags)")] = None
    omit: Rate = 0.0
    add: Rate = 0.0
    tag_column: Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(optional)")] = ()
    separator: OptionalText = None
    out: Path
    seed: Seed = 0
    paper_rate: Flag = False
    labels_only: Flag = False
    overwrite: Flag = False

    def run(self, console: Console) -> None:
        """Loads, changes labels, writes."""
        from labelsieve.core.provenance import target_of

        if self.out.suffix.lower() != ".parquet":
            raise SettingsError(f"expected --out to end in .parquet, got {shown(self.out.name)}")
        refuse_own(self.out, source=self.data.source)
        target_of(self.out)
        if self.out.exists() and not self.overwrite:
            raise RunError(f"{self.out} is there already; choose another name or pass --overwrite")
        self._refuse_others()
        write = self._write_tags if self.kind == TAGS else self._write_labels
        progress = Progress(console)
        path, verb, column = write(progress)
        advice = f"scan it with --truth-column {column}"
        if self.labels_only:
            advice = f"{verb} SOURCE --noise {path}"
        elif self.kind == TAGS:
            advice = f"labelsieve {verb} {path} --truth-column {column}"
        progress.say(f"wrote {path}; {advice}")

    def _refuse_others(self) -> None:
        """Refuses options of the other kinds.

        Raises:
            UsageError: There are some, or one is missing.
        """
        data = self.data
        of_tags: dict[str, object] = {
            "--omit": self.omit,
            "--add": self.add,
            "--tag-column": self.tag_column,
            "--separator": self.separator,
        }
        of_labels: dict[str, object] = {
            "--rate": self.rate,
            "--paper-rate": self.paper_rate,
            "--label-column": data.label_column,
            "--box-margin": data.box_margin,
        }
        others = of_labels if self.kind == TAGS else of_tags
        given = [name for name, value in others.items() if value not in (None, 0.0, (), False)]
        if given:
            goes = "the other kinds" if self.kind == TAGS else "--kind tags"
            raise UsageError(f"{given[0]} goes with {goes} only, got --kind {self.kind}; leave it out")
        if self.kind != TAGS and self.rate is None:
            raise UsageError(f"missing --rate, the share of wrong labels, with --kind {self.kind}")
        if self.kind == TAGS and not (self.omit or self.add):
            raise UsageError("expected --omit or --add above 0 with --kind tags, the shares of tags to change; add one")

    def _write_labels(self, progress: Progress) -> tuple[Path, str, str]:
        from labelsieve.data.noise import inject
        from labelsieve.data.noise_files import write_noisy

        rate, exact = self.rate or 0.0, not self.paper_rate
        if len(self.data.label_column) > 1:
            raise SettingsError("expected one --label-column, whose labels count as right, got several; name one")
        images = self.data.load(seed=self.seed, progress=progress)
        noisy = inject(images, kind=self.kind, rate=rate, seed=self.seed, exact=exact, progress=progress)
        made = {"kind": self.kind, "rate": rate, "seed": self.seed, "exact": exact}
        for note in noisy.notes:
            progress.say(f"note: {note}")
        path = write_noisy(noisy, self.out, made=made, with_images=not self.labels_only, progress=progress)
        return path, "scan", "clean_label"

    def _write_tags(self, progress: Progress) -> tuple[Path, str, str]:
        from labelsieve.data.noise import with_tag_noise
        from labelsieve.data.tags.noise_files import CLEAN_TAGS, write_tag_noise

        data = self.data
        source = TagSource(
            source=data.source,
            tag_column=self.tag_column,
            separator=self.separator,
            image_column=data.image_column,
            image_folder=data.image_folder,
            class_names=data.class_names,
            split=data.split,
            limit=data.limit,
        )
        made = {"omit": self.omit, "add": self.add, "seed": self.seed}
        images = source.load(seed=self.seed, progress=progress)
        noisy = with_tag_noise(images, omit=self.omit, add=self.add, seed=self.seed)
        for note in noisy.notes:
            progress.say(f"note: {note}")
        path = write_tag_noise(noisy, self.out, made=made, with_images=not self.labels_only, progress=progress)
        return path, "scan-tags", CLEAN_TAGS
