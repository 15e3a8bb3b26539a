"""`labelsieve audit`: what the reviews of a run guarantee."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding

from labelsieve.commands.base import Command, OptionalText, RunFolder
from labelsieve.commands.run_data import load_reviews
from labelsieve.core.errors import RunError
from labelsieve.core.files import quoted, write_json
from labelsieve.core.progress import Progress
from labelsieve.core.quantities import plain
from labelsieve.core.validation import AtMost, Confidence, FalseFlags
from labelsieve.report.printing import Unbroken

if TYPE_CHECKING:
    from labelsieve.review.statement import Statement


@dataclass(frozen=True, kw_only=True)
class Audit(Command):
    """Prints upper bounds on the number of wrong labels, from the images that were audited in a review.

    The numbers are also written to `audit.json` in the folder of the run.

    Attributes:
        run_folder: Folder of the run.
        confidence: Confidence level of each bound, such as 95%.
        at_most: A share of wrong labels, such as 1%: estimates how many more images to review to get below it.
        false_flags: A share of false flags, such as 10%: computes the threshold for it.
        source: Where the images lie now, if not where the run found them.
    """

    run_folder: RunFolder
    confidence: Confidence = 0.95
    at_most: AtMost | None = None
    false_flags: FalseFlags | None = None
    source: OptionalText = None

    def run(self, console: Console) -> None:
        """Reads the run and its reviews, prints the sentences and writes the numbers."""
        from labelsieve.review.audit import statement
        from labelsieve.verdicts import AUDIT, Verdicts

        verdicts, progress = Verdicts.load(self.run_folder), Progress(console)
        reviews, contents = load_reviews(self.run_folder, verdicts, source=self.source, progress=progress)
        result = statement(
            verdicts,
            reviews,
            confidence=self.confidence,
            contents=contents,
            at_most=self.at_most,
            false_flags=self.false_flags,
        )
        self._print(result, console)
        try:
            write_json(self.run_folder / AUDIT, result.to_record())
        except RunError as error:  # the numbers are printed all the same
            progress.say(f"note: {error}")
        else:
            progress.say(f"wrote {self.run_folder / AUDIT}")

    def _print(self, result: Statement, console: Console) -> None:
        """Prints the sentences, each with its assumption, and how to audit if there is no audit yet."""
        for sentence in result.sentences:
            console.print(Unbroken(plain(sentence.text)))
            if sentence.assumption:
                console.print(Padding(Unbroken(plain(f"if {sentence.assumption}"), style="dim"), (0, 0, 0, 2)))
        if not result.audited:
            console.print(Unbroken(f"to audit: labelsieve review {quoted(self.run_folder)}"))
