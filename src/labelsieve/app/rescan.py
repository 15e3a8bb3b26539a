"""A new scan that uses the answers, in a separate process during the review, and continuing the review in its run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from labelsieve.app.session import Session
from labelsieve.core.errors import DataError, LabelsieveError, RunError, shown
from labelsieve.core.files import parse_json, quoted
from labelsieve.core.output_folders import next_runs, unknown_files
from labelsieve.data.images import LabelledImages
from labelsieve.review.earlier_review import carry_late
from labelsieve.review.log import LOG
from labelsieve.verdicts import CHECKPOINT_FOLDER, RUN_FILES, Verdicts

PlanOf = Callable[[Verdicts, LabelledImages], Mapping[str, Any]]
State = Literal["idle", "running", "stopping", "done", "failed"]
# Seconds between terminating and killing the process of a scan.
_TERMINATION_TIMEOUT = 10.0
# Prefix of error messages for the user.
_ERROR_PREFIX = "labelsieve: "


class Rescan:
    """The review of a server, and a new scan that uses its answers; all methods are thread-safe.

    The run of the review is never changed: the scan writes a new folder next to it, which is removed if the scan does
    not finish.

    Args:
        session: The review.
        plan_of: Returns the arguments of the scan, or raises an error with the reason if there can be none.
        command: The command line of the scan. It reads the plan as a line of JSON with `out` and `reviewed`, and
            writes lines of JSON: `say`, or `task`, `done`, `total` and `unit`.
        say: Prints a line to the user.
    """

    def __init__(
        self,
        session: Session,
        *,
        plan_of: PlanOf,
        command: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self.session, self._plan_of, self._command, self._say = session, plan_of, list(command), say
        self.number = 0
        """How often the review continued in a new run: a page with another number is out of date."""
        self._lock = threading.RLock()
        self._state: State = "idle"
        self._latest: dict[str, Any] = {}
        self._error, self._flagged = "", 0
        self._out: Path | None = None
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def status(self) -> dict[str, Any]:
        """Returns the status of a scan: `state`, `line`, `share` (None if unknown), `error`, name of the new `run`."""
        with self._lock:
            done, total = self._latest.get("done", 0), self._latest.get("total", 0)
            return {
                "state": self._state,
                "line": _line(self._latest),
                "share": done / total if total else None,
                "error": self._error,
                "run": self._out.name if self._out else "",
                "flagged": self._flagged,
            }

    def preview(self) -> dict[str, Any]:
        """Returns the status, the number of images with `new` answers, and `why_not` if no scan is possible."""
        new, why_not = self.session.count_new_answers(), ""
        try:
            self._plan_of(self.session.verdicts, self.session.images)
        except LabelsieveError as error:
            why_not = str(error)
        return {**self.status(), "new": new, "why_not": why_not}

    def start(self) -> dict[str, Any]:
        """Starts a scan, unless one is running or finished.

        Raises:
            DataError: There are no new answers.
            RunError: The record of the run is incomplete, or the new folder cannot be created.
        """
        with self._lock:
            if self._state in ("idle", "failed"):
                if not self.session.count_new_answers():
                    raise DataError("no answer says of a label what the scan did not know; answer first")
                plan = self._plan_of(self.session.verdicts, self.session.images)
                run = Path(os.path.abspath(self.session.run_folder))
                out = _new_folder(run)
                try:
                    self._launch({**plan, "reviewed": str(run), "out": str(out)}, out)
                except OSError as error:
                    remove_unfinished(out)
                    raise RunError(f"the scan could not be started: {error.strerror or error}") from None
            return self.status()

    def _launch(self, plan: Mapping[str, Any], out: Path) -> None:
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # the thread closes it
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
        )
        self._process, self._out, self._error = process, out, ""
        self._state, self._latest = "running", {"say": "starting"}
        self._thread = threading.Thread(target=self._follow_process, args=(process, plan, errors), daemon=True)
        self._thread.start()

    def _follow_process(self, process: subprocess.Popen[str], plan: Mapping[str, Any], errors: IO[str]) -> None:
        """Reads the output of a scan until it ends. Its input stays open, since the scan stops when it is closed."""
        assert process.stdin is not None and process.stdout is not None
        with errors, process.stdout:
            with suppress(OSError):  # it has already ended with an error message
                process.stdin.write(json.dumps(plan) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                if isinstance(event := parse_json(line), dict):  # and no output of a library
                    with self._lock:
                        self._latest = event
            code = process.wait()
            errors.seek(0)
            messages = errors.read()
        self._ended(code, messages)
        with suppress(OSError):  # unread input
            process.stdin.close()

    def _ended(self, code: int, errors: str) -> None:
        with self._lock:
            out = self._out
            assert out is not None
            self._process = None
            if code == 0 and self._state == "running":
                try:
                    self._state, self._flagged = "done", int(Verdicts.load(out).is_issue.sum())
                except LabelsieveError as error:  # its verdicts cannot be read
                    self._out, self._state, self._error = None, "failed", str(error)
                return
            remove_unfinished(out)
            self._out, was_cancelled = None, self._state == "stopping"
            self._state, self._error = ("idle", "") if was_cancelled else ("failed", _reason(code, errors))

    def cancel(self) -> dict[str, Any]:
        """Terminates a running scan, or resets the state after a failure."""
        with self._lock:
            if self._state == "running" and self._process is not None:
                self._state = "stopping"
                self._process.terminate()
                killing = threading.Timer(_TERMINATION_TIMEOUT, self._process.kill)
                killing.daemon = True
                killing.start()
            elif self._state == "failed":
                self._state, self._error = "idle", ""
            return self.status()

    def continue_in_new_run(self) -> dict[str, Any]:
        """Continues the review in the new run, with all answers to the old one.

        Raises:
            DataError: There is no new run.
            RunError: It cannot be read; the review stays in the old run.
        """
        with self._lock:
            old, out = self.session, self._out
            if self._state != "done" or out is None:
                raise DataError("there is no new run to go on in; reload the page")
            new = old.follow_up(out)
            with old.closed():
                carry_late(os.path.abspath(old.run_folder), out, old.images)
            new.reset_new_answers()
            self._say(old.summary())
            self._say(f"the review goes on in {out}")
            self.session, self.number = new, self.number + 1
            self._state, self._out = "idle", None
            return self.status()

    def close(self) -> None:
        """Terminates a running scan when the server stops; prints the folder of a new run that was not used."""
        if self._state in ("running", "stopping"):
            self.cancel()
            self._say("the new scan was stopped, and its folder is removed")
        elif self._state == "done":
            self._say(f"go on in the new run with: labelsieve review {quoted(str(self._out))}")
        if self._thread is not None:
            self._thread.join(2 * _TERMINATION_TIMEOUT)


def remove_unfinished(out: Path) -> None:
    """Removes the folder of an unfinished scan, if it has no other files."""
    if out.is_dir() and not unknown_files(out, {CHECKPOINT_FOLDER, LOG, *RUN_FILES}):
        shutil.rmtree(out, ignore_errors=True)


def _new_folder(run: Path) -> Path:
    """Creates the folder of a new run next to the old one.

    Raises:
        RunError: It cannot be created.
    """
    names = next_runs(run)
    while True:
        out = next(names)
        try:
            out.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"could not make the folder {out}: {error.strerror}; make {out.parent} writable") from None
        return out


def _line(event: Mapping[str, Any]) -> str:
    if "task" in event:
        return f"{event['task']}: {event['done']:,} of {event['total']:,} {event['unit']}"
    return str(event.get("say", ""))


def _reason(code: int, errors: str) -> str:
    """Returns the reason why a scan failed, in one line."""
    lines = [line for line in errors.splitlines() if line.strip()]
    messages = [line.removeprefix(_ERROR_PREFIX) for line in lines if line.startswith(_ERROR_PREFIX)]
    if messages:
        return messages[-1]
    if code < 0:
        return "the scan was ended from outside, perhaps for want of memory"
    return f"the scan ended with {shown(lines[-1])}" if lines else f"the scan ended with exit code {code}"
