"""`labelsieve compare`: the differences between two runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import Positional, arg

from labelsieve.commands.base import Command, Flag, OptionalText
from labelsieve.commands.output_checks import check_not_input
from labelsieve.commands.run_data import data_of
from labelsieve.core.errors import LabelsieveError
from labelsieve.core.output_folders import check_file
from labelsieve.core.progress import Progress

if TYPE_CHECKING:
    from labelsieve.verdicts import Verdicts


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Shows which flags are new, removed or changed from one run to another, and metrics side by side.

    Images are matched by their ids or, if the ids of the runs differ, by their content; the images of both runs are
    then read.

    Attributes:
        run_folder: Folder of the earlier run.
        other_run: Folder of the later run.
        out: CSV file to write all changes to.
        overwrite: Replace an existing file.
        source: Where the images of the earlier run lie now, if not where the run found them.
        other_source: The same for the later run.
    """

    run_folder: Annotated[Positional[Path], arg(metavar="RUN1")]
    other_run: Annotated[Positional[Path], arg(metavar="RUN2")]
    out: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    overwrite: Flag = False
    source: OptionalText = None
    other_source: OptionalText = None

    def run(self, console: Console) -> None:
        """Reads both runs and prints their differences."""
        from labelsieve.core.spreadsheets import write_csv
        from labelsieve.report.comparison import compare, needs_contents, print_comparison
        from labelsieve.verdicts import Verdicts

        first, second = Verdicts.load(self.run_folder), Verdicts.load(self.other_run)
        if self.out is not None:
            for run in (self.run_folder, self.other_run):
                check_not_input(self.out, run=run)
            check_file(self.out, overwrite=self.overwrite)
        contents = self._contents(first, second, Progress(console)) if needs_contents(first, second) else None
        comparison = compare(first, second, contents=contents)
        print_comparison(comparison, (str(self.run_folder), str(self.other_run)), console)
        if self.out is not None:
            write_csv(self.out, comparison.table)
            Progress(console).say(f"wrote {self.out}: {comparison.table.num_rows:,} changes")

    def _contents(self, first: Verdicts, second: Verdicts, progress: Progress) -> Any:
        """Returns the hashes of the images of both runs; None, with a note, if they cannot be read any more."""
        try:
            return (
                data_of(first, source=self.source, progress=progress).contents,
                data_of(second, source=self.other_source, progress=progress).contents,
            )
        except LabelsieveError as error:
            if self.source is not None or self.other_source is not None:
                raise
            progress.say(f"note: the images are matched by id, for their content cannot be compared: {error}")
            return None
