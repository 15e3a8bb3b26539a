"""The command line: verbs, exit codes, and what reaches the terminal.

Exit codes: 0 done, 1 the user can fix it (one line on stderr), 2 the command line is wrong.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

# Nothing heavy: until `main` has begun, Ctrl-C ends in a traceback.
from labelsieve.core.errors import LabelsieveError, UsageError, did_you_mean, shown
from labelsieve.core.progress import STOPPING, clean, is_main_process
from labelsieve.core.registry import Entry, Registry
from labelsieve.core.validation import check_environment

if TYPE_CHECKING:
    from labelsieve.commands.base import Command

# A new verb is one file in `commands/` and one line here.
_COMMANDS = "labelsieve.commands."
VERBS: Registry[type[Command], Entry] = Registry(
    "VERB",
    Entry("scan", _COMMANDS + "scan:Scan"),
    Entry("scan-tags", _COMMANDS + "scan_tags:ScanTags"),
    Entry("review", _COMMANDS + "review:Review"),
    Entry("status", _COMMANDS + "status:Status"),
    Entry("audit", _COMMANDS + "audit:Audit"),
    Entry("apply", _COMMANDS + "apply:Apply"),
    Entry("adapt", _COMMANDS + "adapt:Adapt"),
    Entry("report", _COMMANDS + "runs:Report"),
    Entry("export", _COMMANDS + "runs:Export"),
    Entry("compare", _COMMANDS + "compare:Compare"),
    Entry("noise", _COMMANDS + "noise:Noise"),
    Entry("demo", _COMMANDS + "demo:Demo"),
    Entry("bench", _COMMANDS + "bench:Bench"),
    Entry("list", _COMMANDS + "listing:Listing"),
)
# Read by the libraries when they are imported, which is later. Missing weights are reported by `load_vlm`.
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# What ends a command beside Ctrl-C: a scheduler or launcher, and the end of its terminal.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

# Characters of a message.
_LONGEST = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: The words after the program's name; by default those the program was called with.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(args), args=args, is_program=argv is None)


def guarded(work: Callable[[], int], *, args: list[str], is_program: bool) -> int:
    """Does work of the command line and returns its exit code; what the user can fix is one line on stderr.

    Args:
        work: Returns an exit code.
        args: The words that asked for it, to say how to go on.
        is_program: Whether the process ends with it.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a letter that a terminal or file of old lacks must not end the run
        sys.stdout.reconfigure(errors="replace")
    try:
        with _stopped_by_signals(is_program=is_program):
            return work()
    except UsageError as error:
        return _fail(_brief(str(error)), code=2)
    except LabelsieveError as error:
        return _fail(_brief(str(error)))
    except KeyboardInterrupt as stop:
        # the first process may be gone where a launcher ends the others; Ctrl-C reaches it too
        return _fail(_how_to_go_on(args), everywhere=stop.args in [(number,) for number in _ENDING])
    except BrokenPipeError:  # the reader of our output, `head` for one, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(_brief(f"{where}{error.strerror or error}; check the disk, its free space and permissions"))
    except Exception as error:
        # known by their names: torch, which has them, may not even be loaded
        if type(error).__name__ == "OutOfMemoryError":
            return _fail("the device has too little memory for this; lower --batch-size or take --device cpu")
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            return _fail("this machine has too little memory for this; lower --batch-size, or take fewer images")
        if _lost_a_process(error):
            said = f"another process of this run has ended, perhaps for want of memory; {_how_to_go_on(args)}"
            return _fail(said, everywhere=True)
        raise


def _lost_a_process(error: Exception) -> bool:
    """Returns whether a process that decodes images, or another one that computes, is gone."""
    said = str(error)
    decoding = isinstance(error, RuntimeError) and said.startswith("DataLoader worker (pid")
    peer = any(word in said for word in ("Connection closed by peer", "Connection reset by peer", "Broken pipe"))
    computing = type(error).__name__ in ("DistBackendError", "DistNetworkError", "RuntimeError") and peer
    return decoding or computing


@contextmanager
def _stopped_by_signals(*, is_program: bool) -> Iterator[None]:
    """Ends on SIGTERM and SIGHUP as on Ctrl-C, and says how to go on: schedulers and closed terminals send them.

    What is raised while another library is in the middle of something, such as its import, may come out as another
    error or not at all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        STOPPING.set()
        received.append(number)
        if hasattr(signal, "SIGCHLD"):  # else the end of processes that decode is reported as an error on exit
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    def tell_unless_stopped(lost: sys.UnraisableHookArgs) -> None:
        if not (received and isinstance(lost.exc_value, KeyboardInterrupt)):
            hook(lost)

    # a shell lets commands in the background ignore Ctrl-C, and nohup lets them ignore the end of the terminal
    handlers = {number: signal.getsignal(number) for number in (*_ENDING, signal.SIGINT)}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: handler for number, handler in handlers.items() if handler in usual}
    hook, sys.unraisablehook = sys.unraisablehook, tell_unless_stopped
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except Exception as error:
        if received:
            raise KeyboardInterrupt(received[0]) from error
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            # nothing is left to do but to end, which a program may do without a traceback
            signal.signal(number, signal.SIG_DFL if is_program else handler)
        STOPPING.clear()


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "--help-all", "help"):
        _print_help()
        return 0 if args else 2
    if args[0] == "--version":
        from labelsieve import __version__

        print(f"labelsieve {__version__}")
        return 0
    if args[0] not in VERBS:
        known = ", ".join(VERBS)
        raise UsageError(f'expected a verb out of {known}, got "{shown(args[0])}"{did_you_mean(args[0], VERBS)}')
    from rich.console import Console

    _check_encoding(args)
    check_environment()
    command = VERBS[args[0]].parse(args[1:], prog=f"labelsieve {args[0]}")
    command.run(Console(quiet=not is_main_process()))
    return 0


def _check_encoding(args: Sequence[str]) -> None:
    """Refuses names in another encoding before any work: what a run writes about itself, in UTF-8, could not hold them.

    Raises:
        UsageError: A word is not UTF-8.
    """
    from labelsieve.core.provenance import is_utf8

    for word in args:
        if not is_utf8(word):
            raise UsageError(f"expected names in UTF-8, got {shown(repr(word))}; rename the file or folder")


def _print_help() -> None:
    lines = [
        "usage: labelsieve VERB [OPTIONS]",
        "",
        "Finds the wrong labels in an image data set with a vision-language model, and helps you to correct them.",
        "",
        *(f"  {verb:11}{VERBS.about(verb)}." for verb in VERBS),
        "",
        "  labelsieve VERB --help       shows the options of a verb",
        "  labelsieve VERB --help-all   shows the rare ones too, each in full",
        "  labelsieve --version         shows the version",
        "",
        "Begin with: labelsieve demo",
    ]
    print("\n".join(lines))


def _how_to_go_on(args: list[str]) -> str:
    more = _to_go_on(args[0]) if args and args[0] in VERBS else None
    if more is None:
        return "stopped"
    # with --overwrite it goes on too, and a run that was stopped before its first checkpoint begins again
    again = [word for word in args if word not in more]
    return f"stopped; to go on: labelsieve {shlex.join([*again, *more])}"


def _to_go_on(verb: str) -> tuple[str, ...] | None:
    """Returns what a verb adds to go on, None for nothing to go on with: a command that ends imports no more."""
    module, _, name = VERBS.entries[verb].place.partition(":")
    kind: type[Command] | None = getattr(sys.modules.get(module), name, None)
    return kind.to_go_on if kind is not None else None


def _brief(message: str) -> str:
    """Leaves out the middle of a message that names something endless: what is wrong and what to do are at its ends."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST - 150]} ... {message[-140:]}"


def _fail(message: str, *, code: int = 1, everywhere: bool = False) -> int:
    """Prints one line, in the first of several processes or in each of them, and returns the exit code."""
    if is_main_process() or everywhere:
        who = "labelsieve" if is_main_process() else f"labelsieve (process {os.environ.get('RANK', '?')})"
        with suppress(OSError):  # the terminal is closed
            print(f"{who}: {clean(' '.join(message.split()))}", file=sys.stderr)
    return code
