"""The log of answers: one append-only file in the run folder. Acknowledged answers survive any crash."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, RunError, shown
from labelsieve.core.files import parse_json, target_of
from labelsieve.core.locks import locked
from labelsieve.core.progress import Progress
from labelsieve.review.answers import Answer

LOG = "reviews.jsonl"
FORMAT = 1


class AnswerLog:
    """The answers in a run folder: UTF-8, one JSON object per line, after a header with the format.

    Several processes may append concurrently. If a crash has left a truncated last line, it is ignored with one note,
    and removed before the next answer is appended.

    Args:
        run_folder: Folder of the run; the first answer creates the log.
        progress: Receives a note if a truncated line was ignored.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = AnswerLog(folder)
        ...     answer = Answer(token="1", key="00000000000000ff", id="a.jpg", given_label="cat", kind="none",
        ...                     reviewer="ann", time="2026-11-28T10:00:00+00:00", mode="review", shown={})
        ...     log.append_all([answer]), log.append_all([answer]), len(AnswerLog(folder).answers())
        (1, 0, 1)
    """

    def __init__(self, run_folder: str | Path, *, progress: Progress | None = None) -> None:
        self.path = Path(run_folder) / LOG
        self._progress = progress or Progress()
        self._lock = threading.RLock()
        self._answers: list[Answer] = []
        self._tokens: set[str] = set()
        # bytes and lines read so far, and whether a truncated line was reported
        self._read, self._lines, self._has_reported = 0, 0, False
        self._position = 0

    def answers(self) -> list[Answer]:
        """Returns all answers in the order of the file, including those that were taken back, and the undo answers.

        Raises:
            RunError: The file cannot be read, or a line before its last one is broken.
        """
        with self._lock:
            self._refresh()
            return list(self._answers)

    def follow(self) -> list[Answer]:
        """Returns the answers that any process appended since the last call.

        Without new answers, this only checks the size of the file.

        Raises:
            RunError: See :meth:`answers`.
        """
        with self._lock:
            self._refresh()
            new = self._answers[self._position :]
            self._position = len(self._answers)
            return new

    def _refresh(self) -> None:
        if self._size() != self._read:
            with self._opened("rb") as file:
                self._catch_up(file)

    def prepare(self) -> None:
        """Checks that answers can be written, before a review starts; creates the log if there is none.

        Raises:
            RunError: See :meth:`append_all`.
        """
        with self._lock, self._opened("ab+") as file:
            torn = self._catch_up(file)
            if not self._read:
                self._write(file, [], torn=torn)

    def append_all(self, answers: Sequence[Answer]) -> int:
        """Appends answers durably, all or none: they are on the disk when this method returns.

        Returns:
            Number of new answers; answers whose token is already in the log are not appended again.

        Raises:
            RunError: The folder cannot be written to or the disk is full; the log stays unchanged.
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
            file.truncate(self._read)  # removes a partial line before the next one
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
            RunError: It cannot be opened, or an operation in the block fails on the disk.
        """
        is_read = mode == "rb"
        verb = "read" if is_read else "written"
        advice = "check its permissions" if is_read else "free some space or choose a writable folder"
        target = Path(os.path.realpath(self.path)) if is_read else target_of(self.path)
        try:
            # unbuffered, because closing a buffer would retry the writes that a full disk rejected
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
        """Reads new complete lines; returns whether a truncated line follows them."""
        size = file.seek(0, os.SEEK_END)
        if size < self._read:
            raise RunError(f"{self.path} became shorter while it was in use; start again")
        file.seek(self._read)
        lines = file.read(size - self._read).split(b"\n")
        torn = lines.pop()
        for index, line in enumerate(lines):
            value = parse_json(line)
            is_last = index == len(lines) - 1
            if value is None and is_last and not torn:
                torn = line
                break
            self._take(line, value)
        if torn and not self._has_reported:
            self._has_reported = True
            self._progress.say(f"note: the last line of {self.path} is torn, as a crash leaves it; it is dropped")
        return bool(torn)

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
            actual = shown(value.get("format", "none"))
            raise RunError(
                f"expected format {FORMAT} in {self.path}, found {actual}, written by labelsieve {by}; upgrade"
            )

    def _keep(self, answer: Answer) -> None:
        if answer.token not in self._tokens:
            self._tokens.add(answer.token)
            self._answers.append(answer)


def _header() -> dict[str, Any]:
    from labelsieve import __version__

    return {"format": FORMAT, "labelsieve": __version__}


def _quoted(line: bytes) -> str:
    return f'"{shown(line.decode(errors="replace"))}"' if line.strip() else "an empty line"


def _sync_folder(folder: Path) -> None:
    """Syncs the name of a new file to the disk; systems that cannot open folders do it themselves."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
