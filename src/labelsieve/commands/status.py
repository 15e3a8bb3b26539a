"""`labelsieve status`: the progress of a review."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from labelsieve.commands.base import Command, OptionalText, RunFolder
from labelsieve.commands.run_data import load_reviews
from labelsieve.core.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Status(Command):
    """Prints the progress of the review of a run: images reviewed, wrong labels left, time per card.

    Attributes:
        run_folder: Folder of the run.
        source: Where the images lie now, if not where the run found them.
    """

    run_folder: RunFolder
    source: OptionalText = None

    def run(self, console: Console) -> None:
        """Reads the run and its answers, and prints the progress."""
        from labelsieve.review.status_lines import status_lines
        from labelsieve.verdicts import Verdicts

        verdicts, progress = Verdicts.load(self.run_folder), Progress(console)
        reviews, contents = load_reviews(self.run_folder, verdicts, source=self.source, progress=progress)
        for line in status_lines(verdicts, reviews, contents=contents):
            progress.say(line)
