"""The command line: verbs, exit codes and error messages.

Exit codes: 0 success, 1 an error that the user can fix (one line on stderr), 2 invalid arguments.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

# Import nothing heavy here: before `main` runs, Ctrl-C ends in a traceback.
from labelsieve.core.errors import LabelsieveError, UsageError, did_you_mean, options_in_messages, shown
from labelsieve.core.progress import STOPPING, is_main_process
from labelsieve.core.registry import Entry, Registry
from labelsieve.core.text import clean
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
    Entry("report", _COMMANDS + "report:Report"),
    Entry("export", _COMMANDS + "export:Export"),
    Entry("compare", _COMMANDS + "compare:Compare"),
    Entry("noise", _COMMANDS + "noise:Noise"),
    Entry("demo", _COMMANDS + "demo:Demo"),
    Entry("bench", _COMMANDS + "bench:Bench"),
    Entry("list", _COMMANDS + "listing:Listing"),
)
# The libraries read these when they are imported, later. `load_vlm` reports missing weights.
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Signals that end a command like Ctrl-C: from a scheduler or launcher, or because its terminal closes.
_TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

# Maximum length of a message.
_MAX_CHARACTERS = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: The arguments after the name of the program; those of the process by default.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(args), args=args, is_program=argv is None)


def guarded(work: Callable[[], int], *, args: list[str], is_program: bool) -> int:
    """Runs a command and returns its exit code; errors that the user can fix become one line on stderr.

    Args:
        work: Returns an exit code.
        args: Its arguments, for the hint how to resume.
        is_program: Whether the process ends with it.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, io.TextIOWrapper):  # characters outside the encoding of the terminal must not end the run
        sys.stdout.reconfigure(errors="replace")
    try:
        with _stopped_by_signals(is_program=is_program):
            return work()
    except UsageError as error:
        return _fail(_brief(str(error)), code=2)
    except LabelsieveError as error:
        return _fail(_brief(str(error)))
    except KeyboardInterrupt as stop:
        # a launcher may end the others after the first process has ended; Ctrl-C reaches the first as well
        return _fail(_resume_hint(args), everywhere=stop.args in [(number,) for number in _TERMINATING])
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(_brief(f"{where}{error.strerror or error}; check the disk, its free space and permissions"))
    except Exception as error:
        # compared by name: torch may not be loaded
        if type(error).__name__ == "OutOfMemoryError":
            return _fail("the device has too little memory for this; lower --batch-size or take --device cpu")
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            return _fail("this machine has too little memory for this; lower --batch-size, or take fewer images")
        if _lost_a_process(error):
            message = f"another process of this run has ended, perhaps for want of memory; {_resume_hint(args)}"
            return _fail(message, everywhere=True)
        raise


def _lost_a_process(error: Exception) -> bool:
    """Returns whether a worker process that decodes images, or another process of the run, has died."""
    message = str(error)
    decoding = isinstance(error, RuntimeError) and message.startswith("DataLoader worker (pid")
    peer = any(word in message for word in ("Connection closed by peer", "Connection reset by peer", "Broken pipe"))
    computing = type(error).__name__ in ("DistBackendError", "DistNetworkError", "RuntimeError") and peer
    return decoding or computing


@contextmanager
def _stopped_by_signals(*, is_program: bool) -> Iterator[None]:
    """Turns SIGTERM and SIGHUP, from schedulers and closed terminals, into the error of Ctrl-C.

    If a library is interrupted, for instance during its import, it may raise another error or swallow this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        STOPPING.set()
        received.append(number)
        if hasattr(signal, "SIGCHLD"):  # otherwise the end of worker processes is reported as an error on exit
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    def report_unless_stopped(lost: sys.UnraisableHookArgs) -> None:
        if not (received and isinstance(lost.exc_value, KeyboardInterrupt)):
            hook(lost)

    # shells make background commands ignore Ctrl-C, and nohup makes them ignore SIGHUP: leave those handlers alone
    handlers = {number: signal.getsignal(number) for number in (*_TERMINATING, signal.SIGINT)}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: handler for number, handler in handlers.items() if handler in usual}
    hook, sys.unraisablehook = sys.unraisablehook, report_unless_stopped
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
            # the program only has to exit now, and may do so without a traceback
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
        verbs = ", ".join(VERBS)
        raise UsageError(f'expected a verb out of {verbs}, got "{shown(args[0])}"{did_you_mean(args[0], VERBS)}')
    from rich.console import Console

    _check_encoding(args)
    check_environment()
    command = VERBS[args[0]].parse(args[1:], prog=f"labelsieve {args[0]}")
    with options_in_messages() if command.settings_are_options else nullcontext():
        command.run(Console(quiet=not is_main_process()))
    return 0


def _check_encoding(args: Sequence[str]) -> None:
    """Rejects names in another encoding before any work: the files of a run are in UTF-8 and could not hold them.

    Raises:
        UsageError: An argument is not UTF-8.
    """
    from labelsieve.core.files import is_utf8

    for word in args:
        if not is_utf8(word):
            raise UsageError(f"expected names in UTF-8, got {shown(repr(word))}; rename the file or folder")


def _print_help() -> None:
    width = max(map(len, VERBS)) + 2
    lines = [
        "usage: labelsieve VERB [OPTIONS]",
        "",
        "Finds the wrong labels in an image data set with a vision-language model, and helps you to correct them.",
        "",
        *(f"  {verb:{width}}{VERBS.about(verb)}." for verb in VERBS),
        "",
        "  labelsieve VERB --help       shows the options of a verb",
        "  labelsieve VERB --help-all   shows the rare ones too, each in full",
        "  labelsieve --version         shows the version",
        "",
        "Begin with: labelsieve demo",
    ]
    print("\n".join(lines))


def _resume_hint(args: list[str]) -> str:
    more = _resume_flags(args[0]) if args and args[0] in VERBS else None
    if more is None:
        return "stopped"
    # keeps --overwrite, which resumes too; a run that was stopped before its first checkpoint starts again
    again = [word for word in args if word not in more]
    return f"stopped; to go on: labelsieve {shlex.join([*again, *more])}"


def _resume_flags(verb: str) -> tuple[str, ...] | None:
    """Returns the flags that resume a verb, None if it cannot be resumed; imports nothing, since the process ends."""
    module, _, name = VERBS.entries[verb].place.partition(":")
    kind: type[Command] | None = getattr(sys.modules.get(module), name, None)
    return kind.resume_flags if kind is not None else None


def _brief(message: str) -> str:
    """Shortens a very long message in the middle: the problem and the advice are at its ends."""
    return message if len(message) <= _MAX_CHARACTERS else f"{message[: _MAX_CHARACTERS - 150]} ... {message[-140:]}"


def _fail(message: str, *, code: int = 1, everywhere: bool = False) -> int:
    """Prints one line, in the first of several processes or in each of them, and returns the exit code."""
    if is_main_process() or everywhere:
        who = "labelsieve" if is_main_process() else f"labelsieve (process {os.environ.get('RANK', '?')})"
        with suppress(OSError):  # the terminal is closed
            print(f"{who}: {clean(' '.join(message.split()))}", file=sys.stderr)
    return code
