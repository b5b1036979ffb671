"""Reads sitemaps (https://www.sitemaps.org/protocol.html): which pages a website says it has."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.parsers import expat

MAX_SITEMAP_BYTES = 50 << 20
"""The protocol's own bound on a sitemap, uncompressed."""
MAX_URL_CHARS = 2048

_MAX_DEPTH = 8
_GZIP = b"\x1f\x8b"


class SitemapError(Exception):
    """What was sent is no sitemap that is read; the message says why."""


@dataclass
class Sitemap:
    """What one sitemap names.

    Attributes:
        pages: The URLs of pages.
        sitemaps: The URLs of other sitemaps, where it is an index.
    """

    pages: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def parse_sitemap(body: bytes) -> Sitemap:
    """Returns what a sitemap names: XML or text, plain or compressed by gzip.

    Raises:
        SitemapError: It is none, is larger than `MAX_SITEMAP_BYTES`, or declares a document type, whose
            entities could make it anything.
    """
    if body.startswith(_GZIP):
        body = _decompressed(body)
    if len(body) > MAX_SITEMAP_BYTES:
        raise SitemapError(f"it has more than the {MAX_SITEMAP_BYTES >> 20} MiB that a sitemap may have")
    start = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
        lines = body.decode("utf-8-sig", errors="replace").splitlines()
        return Sitemap(pages=_urls(lines))
    reader = _SitemapReader()
    try:
        reader.parser.Parse(start, True)
    except expat.ExpatError as error:
        raise SitemapError(f"it is no well-formed XML ({error})") from error
    if not reader.is_sitemap:
        raise SitemapError("it is no sitemap: its root is neither urlset nor sitemapindex")
    return Sitemap(_urls(reader.found["url"]), _urls(reader.found["sitemap"]))


def _decompressed(body: bytes) -> bytes:
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        return decoder.decompress(body, MAX_SITEMAP_BYTES + 1)
    except zlib.error as error:
        raise SitemapError(f"its gzip data are damaged ({error})") from error


def _urls(texts: Iterable[str]) -> list[str]:
    urls = (text.strip() for text in texts)
    return [url for url in urls if url.startswith(("http://", "https://")) and len(url) <= MAX_URL_CHARS]


class _SitemapReader:
    """Collects the text of `loc` in each `url` and `sitemap`, without building a tree."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.found: dict[str, list[str]] = {"url": [], "sitemap": []}
        self.is_sitemap = False
        self._path: list[str] = []
        self._loc: list[str] = []

    def _refuse(self, *_: object) -> None:
        raise SitemapError("it declares a document type, which no sitemap needs")

    def _start(self, name: str, _: dict[str, str]) -> None:
        self._path.append(name.rpartition(" ")[2])
        if len(self._path) > _MAX_DEPTH:
            raise SitemapError(f"its elements are nested more than {_MAX_DEPTH} deep")
        if len(self._path) == 1:
            self.is_sitemap = self._path[0] in ("urlset", "sitemapindex")
        self._loc = []

    def _end(self, _: str) -> None:
        if len(self._path) == 3 and self._path[2] == "loc" and self._path[1] in self.found:
            self.found[self._path[1]].append("".join(self._loc)[: MAX_URL_CHARS + 2])
        self._path.pop()

    def _text(self, text: str) -> None:
        if len(self._path) == 3 and self._path[2] == "loc":
            self._loc.append(text)
