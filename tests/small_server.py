"""A review that is served on a free port in a thread, and a client that speaks to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from labelsieve.app.rescan import Rescan
from labelsieve.app.server import make_app
from labelsieve.app.serving import free_socket
from labelsieve.app.session import Session
from small_reviews import SmallRun

TOKEN = "a-token"


def session_of(made: SmallRun, **options: Any) -> Session:
    return Session(made.verdicts, made.images, made.folder, **{"audit": False, **options})


class _Server(uvicorn.Server):
    """Ends at once: the usual one looks ten times a second whether it shall, and then gives its connections as long."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_ready = threading.Event()

    async def main_loop(self) -> None:
        self._loop, self._is_to_end = asyncio.get_running_loop(), asyncio.Event()
        await self.on_tick(0)
        self.is_ready.set()
        await self._is_to_end.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for each in self.servers:
            each.close()
        for _ in range(10):  # what was accepted just now becomes a connection some steps of the loop later
            await asyncio.sleep(0)
        for tries in itertools.count():
            connections = list(self.server_state.connections)
            if not connections:
                return
            for connection in connections:  # a transport that the loop does not close itself is told as a leak later
                connection.shutdown() if tries < 100 else connection.transport.abort()
            await asyncio.sleep(0.01)

    def end(self) -> None:
        """Tells it to end, from another thread."""
        self._loop.call_soon_threadsafe(self._is_to_end.set)


@contextmanager
def served(session: Session | Rescan, *, reviewer: str = "ann") -> Iterator[str]:
    """Serves a session and yields the address."""
    listening = free_socket()
    review = Rescan(session) if isinstance(session, Session) else session
    app = make_app(review, token=TOKEN, reviewer=reviewer)
    server = _Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert server.is_ready.wait(60)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.end()
        thread.join()
        listening.close()


@dataclass
class Client:
    """What a page asks for, without a browser."""

    address: str
    reviewer: str = "ann"
    client: str = "browser"
    undos: int = 0
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    def open(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Returns status, body and headers of a reply."""
        request = urllib.request.Request(self.address + path, data=body, headers={**self.headers, **headers})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as reply:
                return reply.status, reply.read(), {key.lower(): value for key, value in reply.headers.items()}
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), {key.lower(): value for key, value in error.headers.items()}

    def post(self, path: str, **body: Any) -> Any:
        status, reply, _ = self.open(
            path, json.dumps({"client": self.client, "reviewer": self.reviewer, **body}).encode()
        )
        return {"status": status, **json.loads(reply)}

    def cards(self, count: int = 99, **spec: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post("/cards", count=count, **spec)["cards"]
        return found

    def undo(self, token: str = "") -> list[dict[str, Any]]:
        self.undos += 1
        found: list[dict[str, Any]] = self.post("/undo", token=token or f"undo {self.undos}")["cards"]
        return found

    def answer(self, card: dict[str, Any], kind: str = "none", *labels: str, token: str = "", **more: Any) -> Any:
        given = {"card": card["card"], "token": token or card["card"], "kind": kind, "labels": labels, **more}
        return self.post("/answers", answers=[given])
