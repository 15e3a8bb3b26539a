"""`labelsieve review`: review labels in the browser."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import arg

from labelsieve.commands.base import Command, Flag, OptionalText, RunFolder
from labelsieve.core.errors import UsageError
from labelsieve.core.locks import locked
from labelsieve.core.progress import Progress
from labelsieve.core.validation import Range, Share

Port = Annotated[int | None, Range(1, 65_535)]


@dataclass(frozen=True, kw_only=True)
class Review(Command):
    """Opens a page in the browser on which you answer, image by image, which labels are wrong.

    Each answer is saved in reviews.jsonl of the run before the next image is shown. Several people may review a run at
    the same time, each with a name.

    Attributes:
        run_folder: Folder of the run.
        reviewer: Your name in the log; by default that of your account. Can be changed on the page.
        overlap: Share of the images that two reviewers see, such as 10%.
        no_audit: Draw no image at random. Otherwise one in five is drawn at random and shown blind: bounds for all
            labels are computed from these.
        source: Where the images lie now, if not where the run found them.
        port: Port of the server; by default 8765, or a free one.
        no_browser: Print the address and open no browser.
    """

    run_folder: RunFolder
    reviewer: OptionalText = None
    overlap: Share = 0.0
    no_audit: Flag = False
    source: OptionalText = None
    port: Annotated[Port, arg(metavar="N")] = None
    no_browser: Flag = False

    def run(self, console: Console) -> None:
        """Loads the run and its images, and serves the page until it is stopped."""
        from labelsieve.app.rescan import Rescan
        from labelsieve.app.serving import serve
        from labelsieve.app.session import Session
        from labelsieve.app.thumbnails import Thumbnails
        from labelsieve.commands.rescan_process import COMMAND, plan_of
        from labelsieve.commands.run_data import compared_with, images_of
        from labelsieve.review.answers import MAX_NAME_LENGTH
        from labelsieve.verdicts import Verdicts

        reviewer = (self.reviewer or "").strip() or _account_name()
        if len(reviewer) > MAX_NAME_LENGTH:
            raise UsageError(f"expected at most {MAX_NAME_LENGTH} characters for --reviewer, got {len(reviewer):,}")
        verdicts, progress = Verdicts.load(self.run_folder), Progress(console)
        images = images_of(verdicts, source=self.source, progress=progress)
        compared = compared_with(verdicts, progress=progress)
        session = Session(
            verdicts,
            images,
            self.run_folder,
            overlap=self.overlap,
            audit=not self.no_audit,
            other_split=None if compared is None else Thumbnails(compared.read_like(images)),
            progress=progress,
        )
        rescan = Rescan(session, plan_of=plan_of, command=COMMAND, say=progress.say)
        with suppress(KeyboardInterrupt), note_other_server(self.run_folder, progress):  # the regular end of a review
            serve(
                rescan,
                reviewer=reviewer,
                port=self.port,
                say=progress.say,
                browser=not self.no_browser,
            )
        progress.say(rescan.session.summary())


@contextmanager
def note_other_server(run: Path, progress: Progress) -> Iterator[None]:
    """Yields, and says before if another server shows the same run: each knows the screens of its own pages alone."""
    from labelsieve.verdicts import RECORD

    with ExitStack() as stack:
        try:
            stack.enter_context(locked(run / RECORD))
        except BlockingIOError:
            progress.say(
                "note: another labelsieve review serves this run, and the same image may be on two screens at once; "
                "several people can use the address that it printed, each with a name"
            )
        yield


def _account_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, for instance in a container
        return "reviewer"
