"""The HTTP server of a review: access control and endpoints. The logic is in the session."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from labelsieve.app.rescan import Rescan
from labelsieve.app.review_status import pairs_of
from labelsieve.app.session import Session, Viewer, spec_of
from labelsieve.app.thumbnails import SIDES
from labelsieve.core.errors import DataError, LabelsieveError, RunError, look_up, shown
from labelsieve.core.files import parse_json
from labelsieve.data.images import UnreadableImageError
from labelsieve.report.pages import environment
from labelsieve.review.answers import MAX_NAME_LENGTH
from labelsieve.review.finding_queues import FINDING_QUEUES

STATIC = Path(__file__).with_name("static")
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# Names of this machine only, against DNS rebinding by other sites.
_ALLOWED_HOSTS = ("127.0.0.1", "localhost")
_LARGEST_BODY = 4_000_000
_PAIRS = 200
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def make_app(rescan: Rescan, *, token: str, reviewer: str) -> ASGIApp:
    """Returns the server of a review.

    Args:
        rescan: The review and its new scan.
        token: The access token, which is part of the opened URL.
        reviewer: Default name of the reviewer.
    """
    pages = _Pages(rescan, reviewer)
    routes = [
        Route("/", pages.home),
        Route("/static/{name}", _static),
        Route("/classes", pages.classes),
        Route("/thumbnails/{side}/{row:int}", pages.thumbnail),
        Route("/images/{row:int}", pages.original),
        Route("/others/{row:int}", pages.of_other_split),
        *(
            Route(f"/{name}", _json(pages.up_to_date(work)), methods=["POST"])
            for name, work in {
                "cards": pages.cards,
                "answers": pages.answers,
                "undo": pages.undo,
                "alive": pages.alive,
                "precision": lambda _body: pages.session.precision(),
                "guarantees": lambda _body: {"sentences": pages.session.guarantees()},
                "near": pages.near,
                "release": pages.release,
                "rescan": pages.scan_again,
            }.items()
        ),
    ]
    return _TokenGuard(Starlette(routes=routes), token)


class _OutOfDateError(LabelsieveError):
    """A page was opened before the review continued in a new run."""


class _TokenGuard:
    """Middleware that allows only requests with the token from pages of this server."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        reason = self._refusal(request)
        if reason:
            await PlainTextResponse(f"{reason}\n", status_code=403, headers=_HEADERS)(scope, receive, send)
            return
        cookie = f"{_cookie(request)}={self.token}; HttpOnly; SameSite=Strict; Path=/"

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = {**_HEADERS, **({"Set-Cookie": cookie} if "token" in request.query_params else {})}
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, request: Request) -> str:
        """Returns the reason to refuse a request; empty if it is allowed."""
        host, headers = request.headers.get("host", ""), request.headers
        if host.rpartition(":")[0] not in _ALLOWED_HOSTS and host not in _ALLOWED_HOSTS:
            return f"expected a request to 127.0.0.1, got one to {shown(host) or 'no host'}"
        opens_page = request.method == "GET" and request.url.path == "/"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return f"a page of {shown(origin)} may not use this server"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not opens_page:
            return "a page of another site may not use this server"
        if not self._knows_token(request, opens_page):
            return "expected the token of this review; open the address that `labelsieve review` has printed"
        return ""

    def _knows_token(self, request: Request, opens_page: bool) -> bool:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        query_token = request.query_params.get("token", "") if opens_page else ""
        token = query_token or bearer or request.cookies.get(_cookie(request), "")
        return secrets.compare_digest(token.encode(), self.token.encode())


def _cookie(request: Request) -> str:
    """Returns the name of the cookie: browsers share cookies between all ports of a machine."""
    return f"labelsieve-{request.headers.get('host', '').rpartition(':')[2]}"


class _Pages:
    def __init__(self, rescan: Rescan, reviewer: str) -> None:
        self.rescan, self.reviewer = rescan, reviewer

    @property
    def session(self) -> Session:
        """The review of the current run."""
        return self.rescan.session

    def up_to_date(self, work: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        """Wraps a function to refuse requests of pages of an earlier run."""

        def checked(body: Mapping[str, Any]) -> Any:
            if body.get("number", self.rescan.number) != self.rescan.number:
                raise _OutOfDateError("the review goes on in a new run; reload the page")
            return work(body)

        return checked

    # pages and files

    def home(self, request: Request) -> Response:
        """Returns the page."""
        reviewer = request.query_params.get("reviewer", "").strip() or self.reviewer
        if len(reviewer) > MAX_NAME_LENGTH:
            message = (
                f"expected at most {MAX_NAME_LENGTH} characters for the reviewer, got {len(reviewer):,}; shorten it"
            )
            return PlainTextResponse(f"{message}\n", status_code=400)
        data = {"reviewer": reviewer, "number": self.rescan.number, **self.session.start(reviewer)}
        template = environment("labelsieve.app").get_template("review.html.jinja")
        page = template.render(data=data, finding_queues=FINDING_QUEUES)
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    def classes(self, _request: Request) -> Response:
        """Returns class names and confused pairs, which may be many and are requested once."""
        verdicts = self.session.verdicts
        return JSONResponse({"names": verdicts.class_names, "pairs": pairs_of(verdicts, _PAIRS)})

    def thumbnail(self, request: Request) -> Response:
        """Returns a small version of an image."""
        row, side = request.path_params["row"], request.path_params["side"]
        if side not in SIDES or row >= len(self.session.verdicts):
            return PlainTextResponse("no such image", status_code=404)
        return _image(lambda: self.session.thumbnails.get(row, side))

    def original(self, request: Request) -> Response:
        """Returns the original image, for a box the whole image with the box outlined."""
        row = request.path_params["row"]
        if row >= len(self.session.verdicts):
            return PlainTextResponse("no such image", status_code=404)
        return _image(lambda: self.session.thumbnails.original(row))

    def of_other_split(self, request: Request) -> Response:
        """Returns the original image of the other split, for a box the view of its card."""
        row, other = request.path_params["row"], self.session.other_split
        if other is None or row >= len(other.images):
            return PlainTextResponse("no such image", status_code=404)
        is_box = other.images.boxes is not None
        return _image(lambda: other.get(row, "large") if is_box else other.original(row))

    # JSON endpoints

    def cards(self, body: Mapping[str, Any]) -> Any:
        """Returns the next cards; a new page releases the cards of the page that it replaces."""
        viewer = self._viewer(body)
        if body.get("instead_of"):
            self.session.release(str(body["instead_of"]))
        after, count = body.get("after"), body.get("count", 1)
        if not isinstance(count, int) or not (after is None or isinstance(after, int)):
            raise DataError(f'expected integers as "count" and "after", got {shown(count)} and {shown(after)}')
        return {"cards": self.session.next_cards(viewer, spec_of(body), count=count, after=after)}

    def answers(self, body: Mapping[str, Any]) -> Any:
        """Stores answers; they are on disk when the response is sent."""
        answers, returned = body.get("answers"), body.get("back") or []
        if not isinstance(answers, list) or not answers or not all(isinstance(each, dict) for each in answers):
            raise DataError(f'expected a list of objects as "answers", got {shown(answers)}')
        if not isinstance(returned, list):
            raise DataError(f'expected a list of cards as "back", got {shown(returned)}')
        return {"kept": self.session.answer(self._viewer(body), answers, [str(each) for each in returned])}

    def undo(self, body: Mapping[str, Any]) -> Any:
        """Undoes the last answer."""
        token = body.get("token")
        if not isinstance(token, str) or not token:
            raise DataError(f'expected a text as "token", got {shown(token)}')
        return {"cards": self.session.undo(self._viewer(body), token=token)}

    def alive(self, body: Mapping[str, Any]) -> Any:
        """Returns the progress of the review and of the new scan; keeps the cards of the page reserved."""
        return {**self.session.alive(self._viewer(body), spec_of(body)), "rescan": self.rescan.status()}

    def scan_again(self, body: Mapping[str, Any]) -> Any:
        """Starts or cancels a new scan, continues in its run, or returns its status."""
        actions = {
            "start": self.rescan.start,
            "cancel": self.rescan.cancel,
            "go-on": self.rescan.continue_in_new_run,
            "look": self.rescan.preview,
            "status": self.rescan.status,
        }
        return look_up(actions, str(body.get("do")), what='"do"')()

    def near(self, body: Mapping[str, Any]) -> Any:
        """Returns the nearest images of some classes."""
        row, labels = body.get("row"), body.get("labels")
        is_row = type(row) is int and 0 <= row < len(self.session.verdicts)
        if not is_row or not isinstance(labels, list) or not all(type(each) is int for each in labels):
            raise DataError(f'expected a "row" of the run and a list of "labels", got {shown(row)} and {shown(labels)}')
        return {"near": self.session.near(int(row or 0), labels)}

    def release(self, body: Mapping[str, Any]) -> Any:
        """Releases the cards of a closed page."""
        self.session.release(str(body.get("client")))
        return {}

    def _viewer(self, body: Mapping[str, Any]) -> Viewer:
        client, reviewer = body.get("client"), body.get("reviewer", self.reviewer)
        if not isinstance(client, str) or not client:
            raise DataError(f'expected a name as "client", got {shown(client)}')
        if not isinstance(reviewer, str) or not reviewer.strip() or len(reviewer) > MAX_NAME_LENGTH:
            raise DataError(
                f"expected a name of 1 to {MAX_NAME_LENGTH} characters for the reviewer, got {shown(reviewer)}"
            )
        return Viewer(client=client, reviewer=reviewer.strip())


def _static(request: Request) -> Response:
    path = STATIC / request.path_params["name"]
    if path.suffix not in _KINDS or path.name not in {each.name for each in STATIC.iterdir()}:
        return PlainTextResponse("no such file", status_code=404)
    return Response(path.read_bytes(), media_type=_KINDS[path.suffix], headers={"Cache-Control": "no-cache"})


def _image(read: Callable[[], tuple[str, bytes]]) -> Response:
    """Returns an image. The browser does not keep it: another run may be reviewed at the same address."""
    try:
        kind, data = read()
    except UnreadableImageError as error:
        return PlainTextResponse(shown(error), status_code=404)
    return Response(data, media_type=kind, headers={"Cache-Control": "no-store"})


def _json(work: Callable[[Mapping[str, Any]], Any]) -> Callable[[Request], Any]:
    """Returns an endpoint of JSON objects; a LabelsieveError becomes one line in "error"."""

    async def endpoint(request: Request) -> Response:
        try:
            body = _object(await _read(request))
            return JSONResponse(await run_in_threadpool(work, body))
        except _OutOfDateError as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        except RunError as error:  # such as a full disk: a retry may succeed
            return JSONResponse({"error": str(error)}, status_code=503)
        except LabelsieveError as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    return endpoint


async def _read(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise DataError(f"expected a request of at most {_LARGEST_BODY:,} bytes")
    return body


def _object(body: bytes) -> Mapping[str, Any]:
    value = parse_json(body)
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, got {shown(body[:80].decode(errors='replace'))}")
    return value
