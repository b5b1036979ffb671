"""Reads the pages of a website that its sitemaps name: a document per page.

Each page is asked for with the ETag and the time of the last reading, so that one that has not changed is not
sent again. Both are in the page's newest revision: `source_version` is the ETag, `file_modified_at` the time.
"""

import contextlib
import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, urldefrag, urljoin, urlsplit

import pyarrow as pa
from protego import Protego

from assets.parsing.sandbox import ParserLimits
from assets.sources.connectors.known_documents import KnownDocument, known_documents
from assets.sources.connectors.reading import ConnectorPreview, ConnectorReading, ContentSpool
from assets.sources.connectors.sitemap_files import MAX_SITEMAP_BYTES, SitemapError, parse_sitemap
from assets.sources.connectors.web_client import PageRefused, PageUnreachable, WebClient, WebPage
from assets.sources.file_contents import source_file_contents
from assets.sources.source_config import Source, SourceEmpty, SourceUnreachable
from assets.sources.source_schemas import UNREACHABLE, ListedFile, SourceContent, source_listing_table
from common.counts import counted
from common.progress import Progress

logger = logging.getLogger(__name__)

_ROBOT = "Headwater"
_ROBOTS_BYTES = 512 << 10
_MAX_CRAWL_DELAY_S = 60.0
_MAX_SITEMAPS = 1000
_FAILURES_IN_A_ROW = 10
"""After so many the server is left alone: what is left keeps its documents."""
_GONE = (404, 410)


@dataclass
class _Site:
    """A website while it is read.

    Attributes:
        source: The source.
        client: Asks the site.
        robots: What robots are asked to leave alone.
        pages: The URLs of its pages, in the order of the sitemaps.
        seen_whole: Whether these are all that its sitemaps name: none was missing, nor cut short.
    """

    source: Source
    client: WebClient
    robots: Protego
    pages: list[str] = field(default_factory=list)
    seen_whole: bool = True

    def unseen(self, known: Mapping[str, KnownDocument]) -> list[ListedFile]:
        """Returns the known pages that were not named, which is no sign that they are gone."""
        if self.seen_whole:
            return []
        return [_listed_as(url, known[url]) for url in known.keys() - set(self.pages)]


def read_sitemap(
    source: Source, state: pa.Table, limits: ParserLimits, scratch: Path, read_all: bool = False
) -> ConnectorReading:
    """Asks a website for the pages that its sitemaps name, and reads those that have changed.

    A page that the server says is gone (404, 410), or that no sitemap names any more, is not in the listing.
    One that could not be got, for the server was too slow or failed, is, and keeps its document; so does one
    that is not named where the sitemaps were not seen whole.

    Args:
        source: The source.
        state: The lake's newest revisions of its documents that are there, with the columns of `STATE`.
        limits: The bounds on opening archives.
        scratch: An empty folder for what is read.
        read_all: Whether pages are read that have not changed.

    Raises:
        SourceUnreachable: robots.txt or a sitemap can not be read.
        SourceEmpty: The sitemaps name no page of the site.
    """
    known, spool = known_documents(state), ContentSpool(scratch)
    listed, read_uris, failed = list[ListedFile](), list[str](), list[str]()
    with _opened(source) as site:

        def documents() -> Iterator[SourceContent]:
            in_a_row = 0
            progress = Progress(f"pages of {source.name} asked for", len(site.pages))
            for url in site.pages:
                progress.advance()
                before = known.get(url)
                file = _listed_as(url, before)
                try:
                    if in_a_row >= _FAILURES_IN_A_ROW:
                        raise PageUnreachable(f"not asked for: {_FAILURES_IN_A_ROW} pages before it failed")
                    page = site.client.get(url, {} if read_all else _conditions(before))
                    _raise_if_failed(page)
                    in_a_row = 0
                except PageUnreachable as error:
                    in_a_row += 1
                    failed.append(f"{url}: {error}")
                    listed.append(file)
                    if before is None:
                        yield SourceContent.failed(file, f"{UNREACHABLE}{error}")
                    continue
                except PageRefused as error:
                    in_a_row = 0
                    listed.append(file)
                    read_uris.append(url)
                    yield SourceContent.failed(file, f"unreadable: {error}")
                    continue
                if page.status in _GONE:
                    continue
                if page.status == 304:
                    listed.append(file)
                    continue
                file = ListedFile(url, None, _modified_at(page), page.headers.get("etag"))
                listed.append(file)
                declared = page.headers.get("content-type", "").partition(";")[0].strip() or None
                contents = list(source_file_contents(file, page.body, limits, declared))
                if before is not None and len(contents) == 1 and before.is_same_as(contents[0]):
                    continue
                read_uris.append(url)
                yield from contents

        spool.write(documents())
        listed += site.unseen(known)
    if failed and len(failed) == len(site.pages):
        raise SourceUnreachable(
            f"source {source.name}: of its {counted(len(failed), 'page')} none could be fetched "
            f"({failed[0]}); nothing was changed"
        )
    warnings = []
    if failed:
        warnings.append(
            f"source {source.name}: of its {counted(len(site.pages), 'page')} {len(failed):,} could not be "
            f"fetched ({failed[0]})"
        )
    return ConnectorReading(source_listing_table(listed), spool, read_uris, warnings=warnings)


def preview_sitemap(source: Source, state: pa.Table) -> ConnectorPreview:
    """Returns the pages that `read_sitemap` would ask for; which have changed only the site knows.

    Raises:
        SourceUnreachable: As `read_sitemap`.
        SourceEmpty: As `read_sitemap`.
    """
    known = known_documents(state)
    with _opened(source) as site:
        pages = [_listed_as(url, known.get(url)) for url in site.pages]
        unseen = site.unseen(known)
    return ConnectorPreview(source_listing_table(pages + unseen), source_listing_table(pages))


def check_sitemap(source: Source) -> None:
    """Reads robots.txt, and sitemaps until one names a page that may be read.

    Raises:
        SourceUnreachable: As `read_sitemap`.
        SourceEmpty: As `read_sitemap`.
    """
    with _opened(source, one_page=True):
        pass


@contextlib.contextmanager
def _opened(source: Source, one_page: bool = False) -> Iterator[_Site]:
    """Yields a site with its robots.txt read, and its sitemaps, or only until one names a page."""
    options = source.sitemap
    assert options is not None  # noqa: S101 - of a source of this kind
    client = WebClient(source.location, 1 / options.pages_per_second, options.private_addresses)
    with contextlib.closing(client):
        try:
            robots = _robots(client, source.location)
            delay_s = float(robots.crawl_delay(_ROBOT) or 0)
            if delay_s > _MAX_CRAWL_DELAY_S:
                raise PageRefused(
                    f"its robots.txt asks for {delay_s:g} s between two pages; up to "
                    f"{_MAX_CRAWL_DELAY_S:g} s are waited"
                )
            client.delay_s = max(client.delay_s, delay_s)
            site = _Site(source, client, robots)
            _read_sitemaps(site, options.max_pages, one_page)
        except (PageUnreachable, PageRefused, SitemapError) as error:
            raise SourceUnreachable(
                f"source {source.name}: {source.location} can not be read: {error}; nothing was changed"
            ) from error
        yield site


def _robots(client: WebClient, location: str) -> Protego:
    """Returns a site's robots.txt; a site without one forbids nothing (RFC 9309, 2.3.1).

    Raises:
        PageUnreachable: The server fails: then all is forbidden.
    """
    page = client.get(urljoin(location, "/robots.txt"))
    if page.status == 200:
        return Protego.parse(page.body[:_ROBOTS_BYTES].decode(errors="replace"))
    if 400 <= page.status < 500 and page.status != 429:
        return Protego.parse("")
    raise PageUnreachable(f"robots.txt: HTTP {page.status}")


def _read_sitemaps(site: _Site, max_pages: int, one_page: bool) -> None:
    """Reads the sitemaps of a site, those that others name too, until there are enough pages."""
    is_home = urlsplit(site.source.location).path in ("", "/")
    first = [site.source.location]
    if is_home:
        first = [url for url in site.robots.sitemaps if site.client.is_own(url)]
        first = first or [urljoin(site.source.location, "/sitemap.xml")]
    waiting, seen = deque(first), set(first)
    pages, elsewhere, forbidden = dict[str, None](), 0, 0
    while waiting:
        url = waiting.popleft()
        page = site.client.get(url, max_bytes=MAX_SITEMAP_BYTES)
        if page.status in _GONE and url not in first:
            site.seen_whole = False
            logger.warning(
                "source %s: its index names %s, which is not there; no document that is not named is deleted",
                site.source.name,
                url,
            )
            continue
        if page.status != 200:
            raise PageUnreachable(f"{url}: HTTP {page.status}")
        try:
            found = parse_sitemap(page.body)
        except SitemapError as error:
            raise SitemapError(f"{url}: {error}") from error
        for other in found.sitemaps:
            if not site.client.is_own(other):
                elsewhere += 1
            elif other not in seen:
                seen.add(other)
                waiting.append(other)
        if len(seen) > _MAX_SITEMAPS:
            raise SitemapError(f"its index names more than {_MAX_SITEMAPS:,} sitemaps")
        for named in found.pages:
            uri = _document_uri(named)
            if not site.client.is_own(uri):
                elsewhere += 1
            elif not site.robots.can_fetch(uri, _ROBOT):
                forbidden += 1
            else:
                pages.setdefault(uri)
        if pages and one_page:
            return
        if len(pages) > max_pages:
            site.seen_whole = False
            logger.warning(
                "source %s: its sitemaps name more than %d pages, of which the first are taken; no document "
                "that is not named is deleted: --max-pages",
                site.source.name,
                max_pages,
            )
            break
    if not pages:
        raise SourceEmpty(
            f"source {site.source.name}: the sitemaps of {site.source.location} name no page of it that "
            f"robots may read ({elsewhere:,} are of other hosts, {forbidden:,} forbidden). To remove the "
            f"documents that came from it: headwater source remove {site.source.name}"
        )
    if elsewhere or forbidden:
        logger.warning(
            "source %s: left out are %d pages of other hosts, and %d that robots.txt forbids",
            site.source.name,
            elsewhere,
            forbidden,
        )
    site.pages = list(pages)[:max_pages]


def _document_uri(url: str) -> str:
    """Returns a page's URL as its document's URI: without a fragment, and with nothing that no URL has."""
    return re.sub(r"[^\x21-\x7e]+", lambda found: quote(found[0]), urldefrag(url).url)


def _listed_as(url: str, before: KnownDocument | None) -> ListedFile:
    """Returns the row of the listing for a page that was not sent: as it was known."""
    if before is None:
        return ListedFile(url, None, None)
    return ListedFile(url, before.file_size_bytes, before.file_modified_at, before.source_version)


def _conditions(before: KnownDocument | None) -> dict[str, str]:
    """Returns the headers that ask for a page only if it is no longer what is known (RFC 9110, 13.1)."""
    if before is None or before.content_sha256 is None:
        return {}
    headers = {}
    if before.source_version:
        headers["If-None-Match"] = before.source_version
    if before.file_modified_at:
        headers["If-Modified-Since"] = format_datetime(before.file_modified_at.astimezone(UTC), usegmt=True)
    return headers


def _modified_at(page: WebPage) -> datetime | None:
    try:
        found = parsedate_to_datetime(page.headers["last-modified"])
    except (KeyError, ValueError, TypeError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _raise_if_failed(page: WebPage) -> None:
    if page.status not in (200, 304, *_GONE):
        raise PageUnreachable(f"HTTP {page.status}")
