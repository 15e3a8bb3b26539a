"""The scan that `labelsieve review` starts with the answers known, in a process of its own.

The server writes a plan to the standard input of the process, a line of JSON, and keeps it open: the end of the server
ends the scan, too. The standard output has lines of JSON that say how far the scan is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labelsieve.core.errors import DataError, RunError, SettingsError, shown
from labelsieve.core.progress import Progress, raise_if_stopping
from labelsieve.core.provenance import fingerprint
from labelsieve.data.images import LabelledImages
from labelsieve.detect.registry import DETECTORS, detector_class
from labelsieve.verdicts import REPORT, Verdicts

COMMAND = (sys.executable, "-m", "labelsieve.commands.rescan")
# Seconds between two lines on one task.
_OFTEN = 0.2
# How much the scan steps back for the server, which a person waits for.
_NICE = 10


def plan_of(verdicts: Verdicts, images: LabelledImages) -> dict[str, Any]:
    """Returns what to scan again and how, from the record of a run; JSON can hold it.

    Args:
        verdicts: The run.
        images: Its images, as they were loaded again.

    Raises:
        RunError: The record does not say enough, in one line.
    """
    run = verdicts.run
    if images.annotations is not None:
        raise RunError("the labels are those of several annotators, which a scan with answers does not take")
    if not images.origin:
        raise RunError("the images of this run were in memory")
    if not run.model.name:
        raise RunError("the run does not say which model it used")
    _detector(run.detector.name, run.detector.settings, run.detector.fingerprint)
    parts = {"test": (run.test, "the test images"), "against": (run.against, "the images to compare with")}
    origins = {}
    for name, (part, what) in parts.items():
        if part is not None and not part.origin:
            raise RunError(f"the run does not say where {what} lie")
        origins[name] = None if part is None else dict(part.origin or {})
    return {
        "data": dict(images.origin),
        **origins,
        "model": run.model.name,
        "detector": {"name": run.detector.name, "settings": run.detector.settings},
        "image_defects": bool(run.image_defects),
        "false_flags": run.rule.false_flags,
        "seed": run.seed or 0,
        "precision": run.precision or "auto",
        # what else there was may not be there any more
        "device": "cpu" if (run.hardware or "").startswith("cpu") else "auto",
    }


def _detector(name: str | None, settings: Mapping[str, Any] | None, known: str | None = None) -> Any:
    """Makes a detector of the settings in a record; `known` is the fingerprint that they have to have."""
    if name is None or name not in DETECTORS:
        raise RunError(f"the run was made with {shown(name or 'a detector')}, which is none that can be made again")
    try:
        detector = detector_class(name)(**(settings or {}))
    except (TypeError, SettingsError):
        detector = None
    if detector is None or known not in (None, fingerprint(asdict(detector))):
        raise RunError(f"the settings of {name} are those of another version of labelsieve")
    return detector


class _JsonProgress(Progress):
    """Progress as lines of JSON, which the server reads."""

    def __init__(self) -> None:
        super().__init__()
        self._last = 0.0

    def say(self, text: str) -> None:
        """Writes a line of text."""
        _write(say=text)

    @contextmanager
    def task(self, label: str, *, total: int, unit: str, brief: bool = False) -> Iterator[Callable[[int], None]]:
        """Yields a function that takes how many units were done since the last call."""
        del brief
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            raise_if_stopping()
            done += count
            if time.monotonic() - self._last > _OFTEN:
                self._last = time.monotonic()
                _write(task=label, done=done, total=total, unit=unit)

        if total:
            _write(task=label, done=0, total=total, unit=unit)
        yield advance


def _write(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def _scan(plan: Mapping[str, Any]) -> int:
    from labelsieve.commands.runs import load_part
    from labelsieve.pipeline import scan
    from labelsieve.report.html import write_report
    from labelsieve.vlm.loading import load_vlm

    progress, out = _JsonProgress(), Path(plan["out"])

    def load(name: str, what: str) -> Any:
        return None if plan[name] is None else load_part(plan[name], what=what, progress=progress)

    images = load("data", "the images")
    test, against = load("test", "the test images"), load("against", "the images to compare with")
    progress.say(f"loading {plan['model']}")
    verdicts = scan(
        images,
        load_vlm(plan["model"]),
        detector=_detector(plan["detector"]["name"], plan["detector"]["settings"]),
        test=test,
        reviewed=plan["reviewed"],
        against=against,
        image_defects=plan["image_defects"],
        false_flags=plan["false_flags"],
        seed=plan["seed"],
        device=plan["device"],
        precision=plan["precision"],
        out=out,
        progress=progress,
    )
    write_report(verdicts, images, out / REPORT, progress=progress)
    return 0


def _end_with_server() -> None:
    """Ends this process as a signal would once the server is gone, which holds the other end of the input."""
    with suppress(OSError):
        os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _run() -> int:
    from labelsieve.app.rescan import remove_unfinished

    with open(0, "rb", buffering=0, closefd=False) as given:  # nothing is read beyond the line
        line = given.readline()
    try:
        plan = json.loads(line)
    except ValueError:
        raise DataError("expected a plan of a scan, a line of JSON; use: labelsieve scan") from None
    try:  # from here on the server may be gone at any time
        threading.Thread(target=_end_with_server, daemon=True).start()
        if hasattr(os, "nice"):
            os.nice(_NICE)
        return _scan(plan)
    except BaseException:
        remove_unfinished(Path(plan["out"]))
        raise


if __name__ == "__main__":
    from labelsieve.cli import guarded

    sys.exit(guarded(_run, args=[], is_program=True))
