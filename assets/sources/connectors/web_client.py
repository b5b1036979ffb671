"""Asks one website for pages: no other host, no private address, no more bytes and time than are allowed."""

import contextlib
import ipaddress
import socket
import ssl
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

USER_AGENT = f"Headwater/{version('headwater')} (reads sitemaps; honours robots.txt)"
"""What the client calls itself; robots.txt addresses it as Headwater."""
MAX_PAGE_BYTES = 64 << 20
"""A larger page is not read to its end."""
MAX_REDIRECTS = 5

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 15.0, 30.0
_PAGE_TIMEOUT_S = 120.0
"""The longest that one page may take: a server that trickles would hold the run for ever."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class PageUnreachable(Exception):
    """A page was not got, and may be got later: nothing is known of what it says now."""


class PageRefused(Exception):
    """A page is not read: the site leads elsewhere, or sends more than is read."""


@dataclass(frozen=True)
class WebPage:
    """The answer to a request.

    Attributes:
        status: The HTTP status.
        headers: The headers, by their names in lower case.
        body: The bytes, without a content coding.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class WebClient:
    """A client of one website, which waits between requests.

    Args:
        site: A URL of the site: only its host is asked.
        delay_s: The shortest time between the beginnings of two requests.
        private_addresses: Whether the host may be at a private address. One that the URL names by the address
            itself, or as localhost, may.
    """

    def __init__(self, site: str, delay_s: float, private_addresses: bool) -> None:
        self.delay_s = delay_s
        self._site = urlsplit(site)
        allowed = private_addresses or _names_address(self._site.hostname or "")
        self._network = _PublicNetwork(allowed)
        self._pool = httpcore.ConnectionPool(
            max_connections=1,
            keepalive_expiry=30,
            network_backend=self._network,
            ssl_context=ssl.create_default_context(),
        )
        self._next_at = 0.0

    def close(self) -> None:
        """Closes the connection."""
        self._pool.close()

    def is_own(self, url: str) -> bool:
        """Returns whether a URL is on the site: its host and port, or https where the site is http."""
        try:
            parts = urlsplit(url)
            same_port = _port(parts) == _port(self._site) or (
                parts.scheme == "https" and parts.port is None and self._site.port is None
            )
        except ValueError:  # a port that is no number
            return False
        downgraded = parts.scheme == "http" and self._site.scheme == "https"
        return (
            parts.scheme in _DEFAULT_PORTS
            and parts.hostname == self._site.hostname
            and same_port
            and not downgraded
            and not parts.username
            and not parts.password
        )

    def get(
        self, url: str, headers: Mapping[str, str] | None = None, max_bytes: int | None = None
    ) -> WebPage:
        """Returns the answer to GET, after redirects within the site.

        Args:
            url: A URL of the site.
            headers: Further headers.
            max_bytes: The most bytes that are read; `MAX_PAGE_BYTES` unless given.

        Raises:
            PageUnreachable: The server can not be reached, is too slow, or leads in a circle.
            PageRefused: It leads to another host, is at a private address, or sends more.
        """
        asked = url
        for _ in range(MAX_REDIRECTS + 1):
            if not self.is_own(asked):
                raise PageRefused(f"it leads to {asked[:200]}, which is not on {self._site.netloc}")
            page = self._request(asked, headers or {}, max_bytes or MAX_PAGE_BYTES)
            if page.status not in (301, 302, 303, 307, 308) or "location" not in page.headers:
                return page
            asked = urljoin(asked, page.headers["location"])
        raise PageUnreachable(f"it is redirected more than {MAX_REDIRECTS} times")

    def _request(self, url: str, headers: Mapping[str, str], max_bytes: int) -> WebPage:
        time.sleep(max(0.0, self._next_at - time.monotonic()))
        self._next_at = time.monotonic() + self.delay_s
        self._network.deadline = time.monotonic() + _PAGE_TIMEOUT_S
        sent: dict[bytes | str, bytes | str] = {"Host": urlsplit(url).netloc, "User-Agent": USER_AGENT}
        sent.update({"Accept-Encoding": "gzip"} | dict(headers))
        timeouts = {"connect": _CONNECT_TIMEOUT_S, "read": _READ_TIMEOUT_S, "write": _READ_TIMEOUT_S}
        try:
            with self._pool.stream(
                "GET", url, headers=sent, extensions={"timeout": {**timeouts, "pool": _CONNECT_TIMEOUT_S}}
            ) as response:
                found = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in response.headers
                }
                body = b""
                if response.status == 200:
                    body = _body(response.iter_stream(), found.get("content-encoding"), max_bytes)
                return WebPage(response.status, found, body)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise PageUnreachable(str(error) or type(error).__name__) from error


def _names_address(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _port(parts: SplitResult) -> int | None:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme)


def is_public_address(address: str) -> bool:
    """Returns whether an IP address is one of the public internet, also where IPv6 wraps one of IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            inner = ipaddress.IPv4Address(found.packed[-4:])
        if inner is not None:
            return is_public_address(str(inner))
    return found.is_global and not found.is_multicast


class _PublicNetwork(httpcore.SyncBackend):
    """Connects to the very address that was checked: a name that is asked again may lead elsewhere."""

    def __init__(self, private_addresses: bool) -> None:
        self._private_addresses = private_addresses
        self.deadline = 0.0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects to a host, if all addresses that its name has are allowed."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"the name {host} is not known ({error.strerror})") from error
        addresses = [str(each[4][0]) for each in found]
        private = [address for address in addresses if not is_public_address(address)]
        if private and not self._private_addresses:
            raise PageRefused(
                f"{host} is at the private address {private[0]}: if it is meant to be, as in an intranet, "
                "add the source with --private-addresses"
            )
        for number, address in enumerate(addresses):
            with contextlib.suppress(*([httpcore.NetworkError] if number + 1 < len(addresses) else [])):
                opened = super().connect_tcp(address, port, timeout, local_address, socket_options)
                return _TimedStream(opened, self)
        raise httpcore.ConnectError(f"the name {host} has no address")


class _TimedStream(httpcore.NetworkStream):
    """A connection on which nothing is waited for longer than the deadline of the request."""

    def __init__(self, opened: httpcore.NetworkStream, network: "_PublicNetwork") -> None:
        self._opened = opened
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Returns what has arrived, up to a number of bytes."""
        left_s = max(0.001, self._network.deadline - time.monotonic())
        try:
            return self._opened.read(max_bytes, left_s if timeout is None else min(timeout, left_s))
        except httpcore.ReadTimeout:
            if time.monotonic() < self._network.deadline:
                raise
            raise httpcore.ReadTimeout(f"it had not arrived after {_PAGE_TIMEOUT_S:g} s") from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends bytes."""
        self._opened.write(buffer, timeout)

    def close(self) -> None:
        """Closes the connection."""
        self._opened.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Returns the connection with TLS in it."""
        return _TimedStream(self._opened.start_tls(ssl_context, server_hostname, timeout), self._network)

    def get_extra_info(self, info: str) -> Any:
        """Returns what the connection knows of itself."""
        return self._opened.get_extra_info(info)


def _body(stream: Iterable[bytes], coding: str | None, max_bytes: int) -> bytes:
    """Returns the bytes of an answer, decoded, and no more of them than are allowed."""
    decoder = (
        zlib.decompressobj(wbits=zlib.MAX_WBITS | 32) if coding in ("gzip", "x-gzip", "deflate") else None
    )
    if decoder is None and coding not in (None, "", "identity"):
        raise PageRefused(f"it is sent in the coding {str(coding)[:50]!r}, which was not asked for")
    parts, size_bytes = list[bytes](), 0
    for part in stream:
        try:
            decoded = decoder.decompress(part, max_bytes + 1 - size_bytes) if decoder else part
        except zlib.error as error:
            raise PageUnreachable(f"its {coding} data are damaged") from error
        size_bytes += len(decoded)
        if size_bytes > max_bytes:
            raise PageRefused(f"it has more than the {max_bytes >> 20:,} MiB that are read")
        parts.append(decoded)
    return b"".join(parts)
