"""The scan that `labelsieve review` starts in a process of its own, to use the answers so far.

The server writes a plan, a line of JSON, to the standard input of the process and keeps it open: if the server ends,
the scan ends, too. The standard output has lines of JSON with the progress of the scan.
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

COMMAND = (sys.executable, "-m", "labelsieve.commands.rescan_process")
# Minimum seconds between two lines on one task.
_INTERVAL = 0.2
# Lower priority of the scan, since a person waits for the server.
_NICENESS = 10


def plan_of(verdicts: Verdicts, images: LabelledImages) -> dict[str, Any]:
    """Returns the plan of a scan that repeats a run, from its record; serializable as JSON.

    Args:
        verdicts: The run.
        images: Its images, loaded again.

    Raises:
        RunError: The record lacks something; the message is one line.
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
        # other devices may no longer be available
        "device": "cpu" if (run.hardware or "").startswith("cpu") else "auto",
    }


def _detector(name: str | None, settings: Mapping[str, Any] | None, expected: str | None = None) -> Any:
    """Creates a detector from the settings in a record; `expected` is the fingerprint that they must have."""
    if name is None or name not in DETECTORS:
        raise RunError(f"the run was made with {shown(name or 'a detector')}, which is none that can be made again")
    try:
        detector = detector_class(name)(**(settings or {}))
    except (TypeError, SettingsError):
        detector = None
    if detector is None or expected not in (None, fingerprint(asdict(detector))):
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
        """Yields a function to call with the number of units done since the last call."""
        del brief
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            raise_if_stopping()
            done += count
            if time.monotonic() - self._last > _INTERVAL:
                self._last = time.monotonic()
                _write(task=label, done=done, total=total, unit=unit)

        if total:
            _write(task=label, done=0, total=total, unit=unit)
        yield advance


def _write(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def _scan(plan: Mapping[str, Any]) -> int:
    from labelsieve.commands.run_data import load_part
    from labelsieve.pipeline import scan
    from labelsieve.report.label_report import write_report
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
    """Ends this process by a signal when the server, which holds the other end of the input, has ended."""
    with suppress(OSError):
        os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _run() -> int:
    from labelsieve.app.rescan import remove_unfinished

    with open(0, "rb", buffering=0, closefd=False) as stdin:  # does not read beyond the line
        line = stdin.readline()
    try:
        plan = json.loads(line)
    except ValueError:
        raise DataError("expected a plan of a scan, a line of JSON; use: labelsieve scan") from None
    try:  # from here on the server may end at any time
        threading.Thread(target=_end_with_server, daemon=True).start()
        if hasattr(os, "nice"):
            os.nice(_NICENESS)
        return _scan(plan)
    except BaseException:
        remove_unfinished(Path(plan["out"]))
        raise


if __name__ == "__main__":
    from labelsieve.cli import guarded

    sys.exit(guarded(_run, args=[], is_program=True))
