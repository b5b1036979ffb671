"""The web UI's guard: refuses requests of other hosts, origins or users before they reach Dagster's server.

Dagster's web server takes mutations by GET, and any `Host` and `Origin`: a page that a person visits could
start and delete runs on their machine, and a name that is rebound to 127.0.0.1 could read everything
(CWE-352, CWE-350).
"""

import base64
import hmac
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestration.services.processes import ServiceError

if TYPE_CHECKING:
    from orchestration.settings import Settings

USER = "headwater"
"""The name that goes with the web UI's password."""

_READING = ("GET", "HEAD")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class WebAccess:
    """The host names and the password with which the web UI may be reached.

    Attributes:
        hosts: The values of `Host` that are answered, such as `127.0.0.1:3000`.
        password: What a browser must send with the name `headwater`; nobody is asked where it is None.
    """

    hosts: frozenset[str]
    password: SecretStr | None = None

    @classmethod
    def of_settings(cls, settings: "Settings") -> "WebAccess":
        """Returns the access that the settings give.

        Raises:
            ServiceError: Other machines could reach the web UI, and there is no password.
        """
        if not settings.web_address.is_loopback and settings.web_password is None:
            raise ServiceError(
                f"HEADWATER_WEB_ADDRESS is {settings.web_address}, which other machines can reach: set "
                "HEADWATER_WEB_PASSWORD too"
            )
        here = {"127.0.0.1", "localhost", "[::1]", web_host(settings)}
        others = {name.lower() for name in settings.web_hosts}
        with_port = {f"{name}:{settings.web_port}" for name in here | others}
        # Browsers leave out a scheme's own port: 80 is also ours, 443 only a proxy's.
        return cls(
            frozenset(with_port | others | (here if settings.web_port == 80 else set())),
            settings.web_password,
        )


class WebGuard:
    """An ASGI application that passes on only requests that a user sends from the web UI's own pages.

    It refuses, with a sentence that says why: a `Host` or `Origin` that is not ours (403); a change by
    anything but a POST of JSON without parameters in its address (405, 415, 400); a control character in an
    address (400); and, with a password set, a
    request without it (401).
    """

    def __init__(self, application: ASGIApp, access: WebAccess) -> None:
        self._application = application
        self._access = access
        self._origins = {f"{scheme}://{host}" for scheme in ("http", "https") for host in access.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request or WebSocket, or hands it on."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._application(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: answered as 403
        else:
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if [host.lower() for host in headers.getlist("host")] not in [[host] for host in self._access.hosts]:
            return _refused(HTTPStatus.FORBIDDEN, "this address is not among HEADWATER_WEB_HOSTS")
        # Starlette's routes match a path with a line break after it too: `/graphql%0A` is `/graphql` to them.
        if _CONTROL.search(scope["path"]):
            return _refused(HTTPStatus.BAD_REQUEST, "no address here has a control character in it")
        origins = headers.getlist("origin")
        if origins and [origin.lower() for origin in origins] not in [[origin] for origin in self._origins]:
            return _refused(HTTPStatus.FORBIDDEN, "a page of another site may not use the web UI")
        if not self._has_password(headers):
            refusal = _refused(HTTPStatus.UNAUTHORIZED, f"the web UI wants the name {USER} and its password")
            refusal.headers["WWW-Authenticate"] = 'Basic realm="headwater", charset="UTF-8"'
            return refusal
        return None if scope["type"] == "websocket" else _refused_change(scope, headers)

    def _has_password(self, headers: Headers) -> bool:
        if self._access.password is None:
            return True
        given = headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), web_credentials(self._access.password).encode())


def web_host(settings: "Settings") -> str:
    """Returns the host by which this machine reaches its web UI, as it is written in a URL."""
    address = settings.web_address
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return str(address) if address.version == 4 else f"[{address}]"


def web_credentials(password: SecretStr) -> str:
    """Returns the `Authorization` header with the web UI's password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{USER}:{password.get_secret_value()}".encode()).decode()


def _refused_change(scope: Scope, headers: Headers) -> Response | None:
    """A refusal of a request that may change something and that a page of another site can send."""
    method = scope["method"]
    # GraphQL by GET would run mutations; the page with its editor is static.
    if method == "GET" and scope["path"].rstrip("/").endswith("/graphql"):
        if "text/html" in headers.get("accept", ""):
            return None
        return _refused(HTTPStatus.METHOD_NOT_ALLOWED, "GraphQL is asked by POST")
    if method in _READING:
        return None
    if method != "POST":
        return _refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not used here")
    # What a form or a script of another page can send without asking first is never JSON.
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a POST is application/json")
    # `op` is how Dagster's pages name a query, for whoever reads a log of requests.
    if set(QueryParams(scope["query_string"])) - {"op"}:
        return _refused(HTTPStatus.BAD_REQUEST, "a POST has its parameters in its JSON, not in its address")
    return None


def _refused(status: HTTPStatus, reason: str) -> Response:
    return PlainTextResponse(f"{status.phrase}: {reason}\n", status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
