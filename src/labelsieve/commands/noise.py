"""`labelsieve noise`: put wrong labels in on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import OmitArgPrefixes

from labelsieve.commands.base import Command, Flag, Source, refuse_own
from labelsieve.core.errors import RunError, SettingsError, shown
from labelsieve.core.progress import Progress
from labelsieve.core.validation import Rate, Seed
from labelsieve.data.noise_kinds import NoiseKind


@dataclass(frozen=True, kw_only=True)
class Noise(Command):
    """Puts wrong labels into a data set on purpose, to measure a detector with.

    Writes one Parquet file with the images, the noisy labels (`label`) and the given ones (`clean_label`), for
    `labelsieve scan FILE --truth-column clean_label`; or with the labels alone, which others put on their copy of the
    same images: `labelsieve scan SOURCE --noise FILE`. The file says what noise it is and of which images.

    Attributes:
        data: The images; their given labels count as right.
        kind: Which class a wrong label names: any other, the next, or one that depends on the pixels.
        rate: Share of wrong labels, from 0 to below 1.
        out: Parquet file to write.
        seed: Every random choice is drawn from it.
        paper_rate: Draw each image on its own, symmetric noise from all classes with the right one among them, as the
            usual benchmarks do. By default the share of wrong labels is exact.
        labels_only: Leave the images out.
        overwrite: Replace a file that is there.
    """

    data: OmitArgPrefixes[Source]
    kind: NoiseKind
    rate: Rate
    out: Path
    seed: Seed = 0
    paper_rate: Flag = False
    labels_only: Flag = False
    overwrite: Flag = False

    def run(self, console: Console) -> None:
        """Loads, changes labels, writes."""
        from labelsieve.core.provenance import target_of
        from labelsieve.data.noise import inject
        from labelsieve.data.noise_files import write_noisy

        if self.out.suffix.lower() != ".parquet":
            raise SettingsError(f"expected --out to end in .parquet, got {shown(self.out.name)}")
        refuse_own(self.out, source=self.data.source)
        target_of(self.out)
        if self.out.exists() and not self.overwrite:
            raise RunError(f"{self.out} is there already; choose another name or pass --overwrite")
        exact, progress = not self.paper_rate, Progress(console)
        if len(self.data.label_column) > 1:
            raise SettingsError("expected one --label-column, whose labels count as right, got several; name one")
        images = self.data.load(seed=self.seed, progress=progress)
        noisy = inject(images, kind=self.kind, rate=self.rate, seed=self.seed, exact=exact, progress=progress)
        made = {"kind": self.kind, "rate": self.rate, "seed": self.seed, "exact": exact}
        for note in noisy.notes:
            progress.say(f"note: {note}")
        path = write_noisy(noisy, self.out, made=made, with_images=not self.labels_only, progress=progress)
        advice = f"scan SOURCE --noise {path}" if self.labels_only else "scan it with --truth-column clean_label"
        progress.say(f"wrote {path}; {advice}")
