"""The log of answers: one file in the run folder that only grows. What was acknowledged survives any crash."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, RunError, shown
from labelsieve.core.locks import locked
from labelsieve.core.progress import Progress
from labelsieve.core.provenance import target_of
from labelsieve.review.answers import Answer

LOG = "reviews.jsonl"
FORMAT = 1


class AnswerLog:
    """The answers in a run folder: UTF-8, one JSON object a line, below a line that says the format.

    Several processes may append at once. A torn last line, which a crash leaves, is dropped with one note and cut off
    before the next answer is appended.

    Args:
        run_folder: Folder of the run; a log that is not there is made by the first answer.
        progress: Where to say that a torn line was dropped.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = AnswerLog(folder)
        ...     answer = Answer(token="1", key="00000000000000ff", id="a.jpg", given_label="cat", kind="none",
        ...                     reviewer="ann", time="2026-11-28T10:00:00+00:00", mode="review", shown={})
        ...     log.append(answer), log.append(answer), len(AnswerLog(folder).answers())
        (True, False, 1)
    """

    def __init__(self, run_folder: str | Path, *, progress: Progress | None = None) -> None:
        self.path = Path(run_folder) / LOG
        self._progress = progress or Progress()
        self._lock = threading.RLock()
        self._answers: list[Answer] = []
        self._tokens: set[str] = set()
        # of the file: bytes and lines that are read, and whether what follows them is torn
        self._read, self._lines, self._has_told = 0, 0, False
        self._followed = 0

    def answers(self) -> list[Answer]:
        """Returns all answers in the order of the file, those that were taken back and what took them back included.

        Raises:
            RunError: The file cannot be read, or a line before its last one is broken.
        """
        with self._lock:
            self._refresh()
            return list(self._answers)

    def follow(self) -> list[Answer]:
        """Returns the answers that came since the last call, whoever appended them.

        It costs no more than a look at the size of the file where nothing came.

        Raises:
            RunError: See :meth:`answers`.
        """
        with self._lock:
            self._refresh()
            new = self._answers[self._followed :]
            self._followed = len(self._answers)
            return new

    def _refresh(self) -> None:
        if self._size() != self._read:
            with self._opened("rb") as file:
                self._catch_up(file)

    def prepare(self) -> None:
        """Makes sure that answers can be written, before anybody gives one; makes the log if there is none.

        Raises:
            RunError: See :meth:`append`.
        """
        with self._lock, self._opened("ab+") as file:
            torn = self._catch_up(file)
            if not self._read:
                self._write(file, [], torn=torn)

    def append(self, answer: Answer) -> bool:
        """Appends an answer; it is on the disk when this returns.

        Returns:
            False if an answer with its token is there already, which is then not appended again.

        Raises:
            RunError: The folder cannot be written to or the disk is full; the log stays as it was.
        """
        return self.append_all([answer]) == 1

    def append_all(self, answers: list[Answer]) -> int:
        """Appends some answers, all of them or none: a whole group of look-alikes, for one.

        Returns:
            How many of them were new, by their tokens.

        Raises:
            RunError: See :meth:`append`.
        """
        with self._lock, self._opened("ab+") as file:
            torn = self._catch_up(file)
            new = list({each.token: each for each in answers if each.token not in self._tokens}.values())
            if new:
                self._write(file, new, torn=torn)
            return len(new)

    def _write(self, file: FileIO, new: list[Answer], *, torn: bool) -> None:
        lines = [] if self._read else [json.dumps(_header())]
        data = "".join(f"{line}\n" for line in [*lines, *(each.to_line() for each in new)]).encode()
        size = len(data)
        if torn:
            file.truncate(self._read)
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(self._read)  # nothing half-written: it would be in the way of the next one
            raise
        if not self._read:
            _sync_folder(self.path.parent)
        self._read, self._lines = self._read + size, self._lines + len(lines) + len(new)
        for each in new:
            self._keep(each)

    @contextmanager
    def _opened(self, mode: str) -> Iterator[FileIO]:
        """Opens the file and holds its lock.

        Raises:
            RunError: It cannot be opened, or what is done in the block fails on the disk.
        """
        reads = mode == "rb"
        verb = "read" if reads else "written"
        advice = "check its permissions" if reads else "free some space or choose a writable folder"
        target = Path(os.path.realpath(self.path)) if reads else target_of(self.path)
        try:
            # without a buffer, which would keep what a full disk refused and try it again at closing
            with FileIO(target, mode) as file, locked(target, wait=True):
                yield file
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(f"the answers could not be {verb} in {self.path}: {reason}; {advice}") from error

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RunError(f"{self.path} cannot be read: {error.strerror}; check its permissions") from error

    def _catch_up(self, file: FileIO) -> bool:
        """Reads the whole lines that are new; returns whether something torn follows them."""
        size = file.seek(0, os.SEEK_END)
        if size < self._read:
            raise RunError(f"{self.path} became shorter while it was in use; start again")
        file.seek(self._read)
        lines = file.read(size - self._read).split(b"\n")
        rest = lines.pop()
        for place, line in enumerate(lines):
            value = _parsed(line)
            is_last = place == len(lines) - 1
            if value is None and is_last and not rest:
                rest = line
                break
            self._take(line, value)
        if rest and not self._has_told:
            self._has_told = True
            self._progress.say(f"note: the last line of {self.path} is torn, as a crash leaves it; it is dropped")
        return bool(rest)

    def _take(self, line: bytes, value: Any) -> None:
        number = self._lines + 1
        if not isinstance(value, dict):
            raise RunError(
                f"expected an answer in line {number} of {self.path}, found {_quoted(line)}; remove the line"
            )
        if number == 1:
            self._check_header(value)
        else:
            try:
                self._keep(Answer.from_mapping(value))
            except DataError as error:
                raise RunError(f"{error} (line {number} of {self.path}); correct or remove the line") from None
        self._read, self._lines = self._read + len(line) + 1, number

    def _check_header(self, value: dict[str, Any]) -> None:
        if value.get("format") != FORMAT:
            by = shown(value.get("labelsieve") or "something else")
            found = shown(value.get("format", "none"))
            raise RunError(
                f"expected format {FORMAT} in {self.path}, found {found}, written by labelsieve {by}; upgrade"
            )

    def _keep(self, answer: Answer) -> None:
        if answer.token not in self._tokens:
            self._tokens.add(answer.token)
            self._answers.append(answer)


def _header() -> dict[str, Any]:
    from labelsieve import __version__

    return {"format": FORMAT, "labelsieve": __version__}


def _parsed(line: bytes) -> Any:
    """Returns what a line holds, None if it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _quoted(line: bytes) -> str:
    return f'"{shown(line.decode(errors="replace"))}"' if line.strip() else "an empty line"


def _sync_folder(folder: Path) -> None:
    """Brings the name of a new file to the disk; where folders cannot be opened, the system does it by itself."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
