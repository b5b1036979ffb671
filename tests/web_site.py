"""A website for tests: a real HTTP server on loopback, whose pages a test changes while it runs."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What a path answers.

    Attributes:
        body: The bytes.
        status: The HTTP status.
        headers: Further headers.
        delay_s: The time before each part of the body.
        parts: How often the body is sent.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0
    parts: int = 1


@dataclass
class WebSite:
    """The site.

    Attributes:
        url: Its address, without a slash at the end.
        pages: What each path answers; any other is not found.
        requests: The path and headers of each request.
    """

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def sitemap(self, *paths: str) -> Page:
        """Returns a sitemap that names paths of the site, or URLs elsewhere."""
        urls = (path if "://" in path else self.url + path for path in paths)
        entries = "".join(f"<url><loc>{url}</loc></url>" for url in urls)
        return Page(
            f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>'.encode()
        )

    def index(self, *paths: str) -> Page:
        """Returns a sitemap index that names paths of the site, or URLs elsewhere."""
        urls = (path if "://" in path else self.url + path for path in paths)
        entries = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls)
        return Page(f"<sitemapindex>{entries}</sitemapindex>".encode())

    def asked(self) -> list[str]:
        """Returns the paths that were asked for since the last call."""
        paths = [path for path, _ in self.requests]
        self.requests.clear()
        return paths


@contextmanager
def web_site() -> Iterator[WebSite]:
    """Yields a site while it is served."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.requests.append((self.path, dict(self.headers)))
            page = site.pages.get(self.path, Page(b"not found", 404))
            etag = page.headers.get("ETag")
            if page.status == 200 and etag and self.headers.get("If-None-Match") == etag:
                page = Page(b"", 304, page.headers)
            self.send_response(page.status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page.body) * page.parts))
            self.end_headers()
            try:
                for _ in range(page.parts):
                    time.sleep(page.delay_s)
                    self.wfile.write(page.body)
            except OSError:
                self.close_connection = True  # the client has had enough

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = WebSite(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
