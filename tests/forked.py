"""Commands in processes of their own that end, die and are sent signals, without seconds of imports in each.

A server imports what a scan needs once, and forks a process for each command. Nothing of torch has started in it.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast


class Command:
    """A command in a process of its own, with its group of processes; its use is that of `subprocess.Popen`.

    Args:
        words: The words after `labelsieve`.
        processes: How many compute together, started as `torchrun` starts them.
        setup: Runs in the process before the command; the name of a function, `module:function`.
    """

    def __init__(self, words: Sequence[object], *, processes: int = 1, setup: str = "") -> None:
        self._server = _server()
        self.returncode: int | None = None
        self._stderr = Path(tempfile.mkstemp(prefix="labelsieve-tests-")[1])
        request = {"words": list(map(str, words)), "processes": processes, "setup": setup, "cwd": os.getcwd()}
        self.pid: int = self._server({**request, "stderr": str(self._stderr), "environment": dict(os.environ)})

    def poll(self) -> int | None:
        """Returns the exit code, minus the signal for one that ended it, or None while the command runs."""
        if self.returncode is None:
            self.returncode = self._server({"poll": self.pid})
        return self.returncode

    def communicate(self, timeout: float = 120) -> str:
        """Waits for the end and returns stderr."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("labelsieve", timeout)
            time.sleep(0.02)
        return self._stderr.read_text()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to all processes of the command, as a terminal does."""
        os.killpg(self.pid, number)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.poll() is None:
            self.send(signal.SIGKILL)
            self.communicate()
        self._stderr.unlink(missing_ok=True)


@cache
def _server() -> Callable[[dict[str, Any]], Any]:
    """Returns a function that asks the server of this process, which ends with it."""
    here = str(Path(__file__).parent)
    # threads of OpenMP that a model has started here would be missing in what is forked
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
    }
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )

    def ask(request: dict[str, Any]) -> Any:
        assert server.stdin is not None and server.stdout is not None
        print(json.dumps(request), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline())

    return ask


def _serve() -> dict[str, Any] | None:
    """Answers requests until there are no more; returns the request of a process that was forked, in that process."""
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
            continue
        child = os.fork()
        if not child:
            return cast("dict[str, Any]", request)
        os.setpgid(child, child)  # here too: a signal may be sent before the process itself has come to it
        print(child, flush=True)
    return None


def _become(request: dict[str, Any]) -> None:
    """Makes a process that was forked what a shell would have started."""
    os.setpgid(0, 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    nothing = os.open(os.devnull, os.O_RDWR)
    for old, new in ((nothing, 0), (nothing, 1), (os.open(request["stderr"], os.O_WRONLY | os.O_APPEND), 2)):
        os.dup2(old, new)


def labelsieve(words: list[str], setup: str) -> None:
    """Runs a command in this process, as `python -m labelsieve` does."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # a launcher has handlers of its own
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if setup:
        module, _, function = setup.partition(":")
        getattr(import_module(module), function)()
    sys.argv = ["labelsieve", *words]
    runpy.run_module("labelsieve", run_name="__main__", alter_sys=True)


def _launch(words: list[str], *, processes: int, setup: str) -> None:
    """Starts processes that compute together, by what `torchrun --standalone` starts them with."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="tests",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, labelsieve)(words, setup)


# Beside what these import themselves: what is imported late, and takes its time.
_LATE = ("datasets", "peft", "rich.progress", "scipy.stats", "sklearn.isotonic", "timm.data")
_LAUNCHER = "torch.distributed.launcher.api"
_OURS = (
    "bench.run",
    "commands.adapt",
    "commands.bench",
    "commands.scan",
    "detect.deft.scoring",
    "finetune.run",
    "report.html",
)


def _import_all() -> None:
    """Imports what scans and trainings need, also what is only imported where a model is loaded."""
    for module in (*_LATE, _LAUNCHER, *(f"labelsieve.{name}" for name in _OURS)):
        import_module(module)
    from transformers import AutoModelForImageClassification, CLIPForImageClassification  # noqa: F401

    from labelsieve.demo import MINI_CLIP
    from labelsieve.vlm.huggingface import load_vlm

    load_vlm(MINI_CLIP)


if __name__ == "__main__":
    _import_all()
    _request = _serve()
    if _request is not None:
        _become(_request)
        if _request["processes"] == 1:
            labelsieve(_request["words"], _request["setup"])
        else:
            _launch(_request["words"], processes=_request["processes"], setup=_request["setup"])
