"""Runs the server of a review until the user stops it."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from labelsieve.app.rescan import Rescan
from labelsieve.app.server import make_app
from labelsieve.core.errors import RunError

HOST = "127.0.0.1"
# Tried first, so that an address that was forwarded from another machine stays the same.
USUAL_PORT = 8765
_SECONDS_TO_END = 3


def serve(
    rescan: Rescan,
    *,
    reviewer: str,
    port: int | None,
    say: Callable[[str], None],
    browser: bool = True,
) -> None:
    """Serves a review and opens the browser; returns when it is stopped.

    Args:
        rescan: The review, and the scan that may follow from it; the server ends with both.
        reviewer: The name of the reviewer, where a browser gives no other.
        port: Where to listen; None takes 8765, or any free port if that is in use.
        say: Prints a line.
        browser: Whether to open a browser.

    Raises:
        RunError: The port is in use, or may not be used.
    """
    with bound(port) as listening:
        token = secrets.token_urlsafe(24)
        url = f"http://{HOST}:{listening.getsockname()[1]}/?token={token}"
        config = uvicorn.Config(
            make_app(rescan, token=token, reviewer=reviewer),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        say(f"open {url}")
        say("answers are saved as they are given; stop with Ctrl-C")
        if browser:
            threading.Thread(target=_open, args=(url, say), daemon=True).start()
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            rescan.close()


def bound(port: int | None) -> socket.socket:
    """Returns a socket that listens on this machine alone.

    Raises:
        RunError: The port is in use, or may not be used.
    """
    try:
        return _bound(USUAL_PORT if port is None else port)
    except OSError as error:
        if port is None:
            return free_socket()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise RunError(f"port {port} {reason}; choose another --port, or leave it out for a free one") from None


def free_socket() -> socket.socket:
    """Returns a socket that listens on a free port of this machine."""
    return _bound(0)


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have the same port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _open(url: str, say: Callable[[str], None]) -> None:
    """Opens the browser of the user, if there is one that has a window."""
    if not (_has_screen() and _opened(url)):
        say("no browser was found; open the address above")


def _has_screen() -> bool:
    if os.environ.get("BROWSER") or sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _opened(url: str) -> bool:
    try:
        return webbrowser.open(url)
    except Exception:  # whatever a browser of the user's own choice raises
        return False
