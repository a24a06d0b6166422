"""Who may talk to the server: the page it serves, and no other web page of the same browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def is_local(host: str) -> bool:
    """Tell whether only this machine reaches a server bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses requests made for another host name or by another web page.

    A page elsewhere could have its own name point to this machine (DNS rebinding), so the ``Host`` must be a
    name this server goes by. Numbers cannot be pointed elsewhere: where the server is bound to other than
    this machine, any address is accepted as a host.

    Args:
        app: What is guarded.
        host: What the server is bound to.
        names: Further host names it goes by, lower case.
    """

    def __init__(self, app: ASGIApp, host: str, names: Iterable[str] = ()) -> None:
        self._app, self._open = app, not is_local(host)
        own = {host, socket.gethostname().lower()} if self._open else {host}
        self._names = _LOCAL | own | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        problem = self._problem(Headers(scope=scope))
        app = self._app if problem is None else JSONResponse({"error": problem}, 403)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await app(scope, receive, send_safely)

    def _problem(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if not self._known(host):
            return "This server does not go by that name: open it by the address it printed when it started."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "Other web pages may not use this server."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            navigates = (
                headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            )
            return None if navigates else "Other web pages may not use this server."
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if not name:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._open
