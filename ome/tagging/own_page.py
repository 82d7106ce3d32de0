"""Protects the server of the page from other web pages: any page in the browser could send requests to it."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PROTECTION: Final = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}
"""The page loads nothing from other hosts, runs its own script only, and cannot be framed by other pages."""


class OwnPageOnly:
    """Refuses requests of other web pages.

    Args:
        app: The application that handles all other requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if not _is_own(request):
            await PlainTextResponse("only the page of ome tags may send this request\n", 403)(
                scope, receive, send
            )
            return

        async def send_with_policy(message: Any) -> None:  # noqa: ANN401 - ASGI
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *PROTECTION.items()]
            await send(message)

        await self._app(scope, receive, send_with_policy)


def _is_own(request: Request) -> bool:
    headers = request.headers
    origin = headers.get("origin")
    # Compared with the Host header, as the port differs from ours if it is forwarded from another machine.
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return False
    # The user may open the page by a link on another page.
    opened = request.method == "GET" and headers.get("sec-fetch-dest") == "document"
    return opened or headers.get("sec-fetch-site", "none") in {"same-origin", "none"}
