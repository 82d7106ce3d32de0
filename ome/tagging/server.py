"""The HTTP server of the page."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ome.data.palette import DISTINCT, SHADES, distinct_colours
from ome.errors import UserError
from ome.tagging.changes import ChangedError, Shown
from ome.tagging.own_page import OwnPageOnly
from ome.tagging.pictures import Pictures
from ome.tagging.session import Session
from ome.tagging.table import Status

HOSTS: Final = ("127.0.0.1", "localhost")
"""Accepted host names; the domain of another web page could also resolve to this machine."""

MAX_BODY: Final = 1 << 16
"""Maximum size of a request in bytes."""

MAX_WAIT: Final = 10.0
"""Seconds for the whole body of a request: one that announces more than it sends would wait forever."""

PAGE: Final = Path(__file__).parent / "page"


def make_app(session: Session, pictures: Pictures, title: str) -> Starlette:
    """Builds the application.

    Args:
        session: The tags.
        pictures: Renders the pictures of the session's items.
        title: Title of the page: the name of the folder.
    """

    def state(number: int | None = None) -> JSONResponse:
        """The state that the page needs after a change, including the changed item."""
        changed = {} if number is None else {"number": number, "item": _item(session, number)}
        colours = _colours(session.names)
        return JSONResponse({**session.summary(), "colours": colours, **changed})

    def whole(_: Request) -> Response:
        items = [_item(session, number) for number in range(len(session.items))]
        summary = {**session.summary(), "colours": _colours(session.names)}
        return JSONResponse({"title": title, "items": items, **summary})

    def picture(request: Request) -> Response:
        number = _number(request, session)
        # A changed file has another address, see `_item`.
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(pictures.jpeg(session.items[number]), media_type="image/jpeg", headers=headers)

    async def set_tags(request: Request) -> Response:
        number, body = _number(request, session), await _body(request)
        tags, none, shown = _tags_of(body)
        await run_in_threadpool(session.set_tags, number, tags, none=none, shown=shown)
        return await run_in_threadpool(state, number)

    async def change_classes(request: Request) -> Response:
        name = (await _body(request)).get("name")
        if not isinstance(name, str):
            raise UserError("name must be a text")
        change = session.add_class if request.method == "POST" else session.remove_class
        await run_in_threadpool(change, name)
        return await run_in_threadpool(state)

    async def step(request: Request) -> Response:
        await _body(request)
        change = session.undo if request.url.path.endswith("/undo") else session.redo
        return await run_in_threadpool(state, await run_in_threadpool(change))

    routes = [
        Route("/api/session", whole),
        Route("/api/pictures/{number}", picture),
        Route("/api/tags/{number}", set_tags, methods=["PUT"]),
        Route("/api/classes", change_classes, methods=["POST", "DELETE"]),
        Route("/api/undo", step, methods=["POST"]),
        Route("/api/redo", step, methods=["POST"]),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
            Middleware(OwnPageOnly),
        ],
        exception_handlers={UserError: _one_line, ClientDisconnect: _one_line},
    )


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; other pages' forms cannot send this content type."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise UserError("the request must be application/json")
    content = b""
    try:
        async with asyncio.timeout(MAX_WAIT):
            async for part in request.stream():
                content += part
                if len(content) > MAX_BODY:
                    raise UserError(f"the request is larger than {MAX_BODY} bytes")
    except TimeoutError as error:
        raise UserError(f"the request did not arrive whole within {MAX_WAIT:g} seconds") from error
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError("the request is not JSON") from error
    if not isinstance(value, dict):
        raise UserError("the request must be a JSON object")
    return value


def _number(request: Request, session: Session) -> int:
    text: str = request.path_params["number"]
    if not text.isdecimal():
        raise HTTPException(404)
    # int() fails for thousands of digits.
    if len(text) > 9 or int(text) >= len(session.items):
        raise UserError(f"unknown item {text[:20]}")
    return int(text)


def _tags_of(body: dict[str, Any]) -> tuple[list[str], bool, Shown | None]:
    """The tags of a request, whether it is none of the classes, and what the page showed before."""
    tags, none = _names(body.get("tags")), body.get("none", False)
    if tags is None or not isinstance(none, bool):
        raise UserError("tags must be a list of names, and none true or false")
    if (before := body.get("before")) is None:
        return tags, none, None
    seen = _names(before.get("tags")) if isinstance(before, dict) else None
    if seen is None or before.get("status") not in get_args(Status):
        raise UserError("before must have tags, a list of names, and a status")
    return tags, none, (frozenset(seen), before["status"])


def _names(value: object) -> list[str] | None:
    """A list of names from JSON; None for anything else."""
    names = [name for name in value if isinstance(name, str)] if isinstance(value, list) else None
    return names if names == value else None


def _item(session: Session, number: int) -> dict[str, Any]:
    """The data of an item for the page."""
    item, row = session.items[number], session.row(number)
    answer: dict[str, Any] = {
        "title": item.title,
        "picture": f"api/pictures/{number}?{item.file.stamp}",
        "status": row.status,
        "tags": sorted(row.tags),
        "split": row.split or "train",
    }
    if (suggestion := session.suggestions.get(item.key)) is not None:
        answer |= {"uncertainty": suggestion.uncertainty, "suggestion": suggestion.probabilities}
    return answer


def _colours(names: Sequence[str]) -> list[str]:
    """The colours of the classes on maps, as `#rrggbb`; grey for classes beyond the number of colours."""
    colours = distinct_colours(names[: len(DISTINCT) * len(SHADES)])
    return ["#{:02x}{:02x}{:02x}".format(*colours.get(name, (128, 128, 128))) for name in names]


async def _one_line(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 409 if isinstance(error, ChangedError) else 422)
