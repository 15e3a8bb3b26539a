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
# Tried first, so that forwarded ports stay the same.
USUAL_PORT = 8765
_SHUTDOWN_TIMEOUT = 3


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
        rescan: The review and its new scan, which are closed with the server.
        reviewer: Default name of the reviewer.
        port: Port to listen on; None for 8765, or any free port if that is in use.
        say: Prints a line.
        browser: Whether to open a browser.

    Raises:
        RunError: The port is in use, or may not be used.
    """
    with listen(port) as server:
        token = secrets.token_urlsafe(24)
        url = f"http://{HOST}:{server.getsockname()[1]}/?token={token}"
        config = uvicorn.Config(
            make_app(rescan, token=token, reviewer=reviewer),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
        )
        say(f"open {url}")
        say("answers are saved as they are given; stop with Ctrl-C")
        if browser:
            threading.Thread(target=_open, args=(url, say), daemon=True).start()
        try:
            uvicorn.Server(config).run(sockets=[server])
        finally:
            rescan.close()


def listen(port: int | None) -> socket.socket:
    """Returns a socket that listens on this machine only.

    Raises:
        RunError: The port is in use, or may not be used.
    """
    try:
        return socket.create_server((HOST, USUAL_PORT if port is None else port))
    except OSError as error:
        if port is None:
            return free_socket()
        is_used = error.errno == errno.EADDRINUSE
        reason = "is in use" if is_used else f"cannot be used ({error.errno and os.strerror(error.errno)})"
        raise RunError(f"port {port} {reason}; choose another --port, or leave it out for a free one") from None


def free_socket() -> socket.socket:
    """Returns a socket that listens on a free port of this machine."""
    return socket.create_server((HOST, 0))


def _open(url: str, say: Callable[[str], None]) -> None:
    """Opens the browser of the user, if there is a graphical one."""
    if not (_has_display() and _open_browser(url)):
        say("no browser was found; open the address above")


def _has_display() -> bool:
    if os.environ.get("BROWSER") or sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_browser(url: str) -> bool:
    try:
        return webbrowser.open(url)
    except Exception:  # any error of a configured browser
        return False
