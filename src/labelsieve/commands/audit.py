"""`labelsieve audit`: what the reviews of a run prove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import arg

from labelsieve.commands.base import Command, OptionalText, Percentage, RunFolder, percentage
from labelsieve.commands.runs import contents_of
from labelsieve.core.errors import RunError
from labelsieve.core.progress import Progress

if TYPE_CHECKING:
    from labelsieve.review.statement import Statement


@dataclass(frozen=True, kw_only=True)
class Audit(Command):
    """Says how many labels are wrong at most, from the images that were audited in a review.

    The numbers go to `audit.json` in the folder of the run, too.

    Attributes:
        run_folder: Folder of the run.
        confidence: How often each number holds, such as 95%.
        at_most: A share of wrong labels, such as 1%: says how many more images to look at until no more are left.
        false_flags: A share of false flags, such as 10%: says where to flag for it.
        source: Where the images lie now, if not where the run found them.
    """

    run_folder: RunFolder
    confidence: Annotated[str, arg(metavar="SHARE")] = "95%"
    at_most: Percentage = None
    false_flags: Percentage = None
    source: OptionalText = None

    def run(self, console: Console) -> None:
        """Reads the run and its reviews, prints the sentences and writes the numbers."""
        from labelsieve import review
        from labelsieve.report.audit import print_statement
        from labelsieve.review.audit import statement
        from labelsieve.verdicts import AUDIT, Verdicts

        confidence = percentage(self.confidence, "--confidence")
        at_most = None if self.at_most is None else percentage(self.at_most, "--at-most")
        false_flags = None if self.false_flags is None else percentage(self.false_flags, "--false-flags")
        verdicts, progress = Verdicts.load(self.run_folder), Progress(console)
        reviews = review.load(self.run_folder, progress=progress)
        found = statement(
            verdicts,
            reviews,
            confidence=confidence,
            contents=contents_of(verdicts, source=self.source, progress=progress) if len(reviews) else None,
            at_most=at_most,
            false_flags=false_flags,
        )
        print_statement(found, console, run=self.run_folder)
        progress.say(self._written(found) or f"wrote {self.run_folder / AUDIT}")

    def _written(self, found: Statement) -> str:
        """Writes the numbers; returns a note where the folder cannot be written to, as they were printed already."""
        from labelsieve.core.provenance import write_json
        from labelsieve.verdicts import AUDIT

        try:
            write_json(self.run_folder / AUDIT, found.to_record())
        except RunError as error:
            return f"note: {error}"
        return ""
