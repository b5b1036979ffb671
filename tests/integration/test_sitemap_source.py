"""A website as a source: a real HTTP server that changes, fails, and means harm."""

import contextlib
import gzip
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bronze_runs import raw_rows, read_sources
from hypothesis import given
from hypothesis import strategies as st
from web_site import Page, WebSite, web_site

from assets.sources.connector_options import SitemapOptions
from assets.sources.connectors import sitemap, web_client
from assets.sources.connectors.sitemap import preview_sitemap
from assets.sources.connectors.sitemap_files import SitemapError, parse_sitemap
from assets.sources.connectors.web_client import PageRefused, WebClient, is_public_address
from assets.sources.revisions import STATE
from assets.sources.source_check import check_connected_source
from assets.sources.source_config import Source, SourceError
from assets.sources.source_registry import SourceRegistry
from orchestration.settings import Settings, open_configured_lake

FAST = SitemapOptions(pages_per_second=100)


@pytest.fixture
def site() -> Iterator[WebSite]:
    with web_site() as served:
        yield served


def page(text: str, **headers: str) -> Page:
    body = f"<!doctype html><title>{text}</title><p>{text} This is a page of the site.</p>".encode()
    return Page(
        body, headers={"Content-Type": "text/html", **{k.replace("_", "-"): v for k, v in headers.items()}}
    )


def added(home: Path, url: str, options: SitemapOptions = FAST) -> Settings:
    settings = Settings(home=home)
    SourceRegistry(settings.sources_file).add(Source(name="site", location=url, sitemap=options))
    return settings


def rows(settings: Settings, site: WebSite) -> dict[str, list[dict[str, Any]]]:
    """The revisions of each page, by its path."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in raw_rows(settings, "site"):
        found.setdefault(row["uri"].removeprefix(site.url), []).append(row)
    return found


def states(settings: Settings, site: WebSite) -> dict[str, str]:
    """What is of each page now: "gone", its error, or its title's text."""
    return {
        path: "gone" if each[-1]["deleted"] else each[-1]["error"] or "there"
        for path, each in rows(settings, site).items()
    }


def test_pages_are_read_once_and_again_when_they_change(tmp_path: Path, site: WebSite) -> None:
    site.pages = {
        "/sitemap.xml": site.sitemap("/a", "/b", "/c#part", "/d", "/e"),
        "/a": page("A.", ETag='W/"1"', Last_Modified="Thu, 01 Jan 2026 10:00:00 GMT"),
        "/b": page("B."),
        "/c": page("C.", ETag='"c"'),
        "/d": page("D."),
        "/e": page("E."),
    }
    settings = added(tmp_path, f"{site.url}/sitemap.xml")
    assert read_sources(settings).failure is None
    assert site.requests[0][1]["User-Agent"].startswith("Headwater/")
    assert site.asked() == ["/robots.txt", "/sitemap.xml", "/a", "/b", "/c", "/d", "/e"]
    first = rows(settings, site)["/a"][0]
    assert first["source_version"] == 'W/"1"'
    assert first["file_modified_at"] == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert first["media_type"] == "text/html"
    version = open_configured_lake(settings).version("bronze.raw_documents")
    assert read_sources(settings).failure is None
    headers = dict(site.requests)["/a"]
    assert headers["If-None-Match"] == 'W/"1"'
    assert headers["If-Modified-Since"] == "Thu, 01 Jan 2026 10:00:00 GMT"
    assert open_configured_lake(settings).version("bronze.raw_documents") == version
    site.pages |= {
        "/sitemap.xml": site.sitemap("/a", "/b", "/c", "/d"),
        "/a": page("A2.", ETag='W/"2"'),
        "/b": Page(b"away", 410),
        "/c": Page(b"busy", 503),
    }
    read = read_sources(settings)
    assert "of its 4 pages 1 could not be fetched" in read.unread["site"]
    assert "/c: HTTP 503" in read.unread["site"]
    assert states(settings, site) == {"/a": "there", "/b": "gone", "/c": "there", "/d": "there", "/e": "gone"}
    assert [row["source_version"] for row in rows(settings, site)["/a"]] == ['W/"1"', 'W/"2"']
    assert len(rows(settings, site)["/c"]) == 1


def test_too_many_pages_that_are_gone_stop_the_source(tmp_path: Path, site: WebSite) -> None:
    paths = [f"/{number}" for number in range(20)]
    site.pages = {"/sitemap.xml": site.sitemap(*paths), **{path: page(path) for path in paths}}
    settings = added(tmp_path, f"{site.url}/sitemap.xml")
    assert read_sources(settings).failure is None
    site.pages = {"/sitemap.xml": site.pages["/sitemap.xml"], "/0": page("/0")}  # all others answer 404
    assert "19 of its 20 documents are gone" in (read_sources(settings).failure or "")
    assert "gone" not in states(settings, site).values()
    assert read_sources(settings.model_copy(update={"max_shrink": 1.0})).failure is None
    assert list(states(settings, site).values()).count("gone") == 19


def test_a_site_that_fails_keeps_its_documents(
    tmp_path: Path, site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sitemap, "_FAILURES_IN_A_ROW", 2)
    paths = [f"/{number}" for number in range(6)]
    site.pages = {"/sitemap.xml": site.sitemap(*paths), **{path: page(path) for path in paths}}
    settings = added(tmp_path, f"{site.url}/sitemap.xml")
    assert read_sources(settings).failure is None
    site.asked()
    site.pages |= {path: Page(b"", 500) for path in paths}
    assert "of its 6 pages none could be fetched" in (read_sources(settings).failure or "")
    assert site.asked() == ["/robots.txt", "/sitemap.xml", "/0", "/1"]
    for path, status in (("/sitemap.xml", 503), ("/sitemap.xml", 404), ("/robots.txt", 500)):
        before = site.pages.get(path)
        site.pages[path] = Page(b"", status)
        assert f"HTTP {status}" in (read_sources(settings).failure or "")
        if before:
            site.pages[path] = before
    assert set(states(settings, site).values()) == {"there"}


def test_robots_are_honoured(tmp_path: Path, site: WebSite) -> None:
    site.pages = {
        "/robots.txt": Page(
            f"User-agent: *\nDisallow: /\n\nUser-agent: headwater\nDisallow: /private/*.html$\n"
            f"Allow: /\nCrawl-delay: 0.2\n\nSitemap: {site.url}/maps/all.xml.gz\n".encode()
        ),
        "/maps/all.xml.gz": Page(
            gzip.compress(site.index("/maps/1.xml", "/maps/1.txt", "/maps/gone.xml").body)
        ),
        "/maps/1.xml": site.sitemap("/a", "/private/b.html"),
        "/maps/1.txt": Page(f"{site.url}/private/c.htm\n{site.url}/a\n".encode()),
        "/a": page("A."),
        "/private/b.html": page("B."),
        "/private/c.htm": page("C."),
    }
    settings = added(tmp_path, site.url)
    assert read_sources(settings).failure is None
    asked = site.asked()
    assert "/private/b.html" not in asked
    assert states(settings, site) == {"/a": "there", "/private/c.htm": "there"}
    client = WebClient(site.url, 0.2, False)
    client.get(f"{site.url}/a")
    site.pages["/robots.txt"] = Page(b"User-agent: *\nCrawl-delay: 3600\n")
    assert "asks for 3600 s between two pages" in (read_sources(settings).failure or "")


def test_a_bound_on_pages(tmp_path: Path, site: WebSite) -> None:
    paths = [f"/{number}" for number in range(10)]
    site.pages = {"/sitemap.xml": site.sitemap(*paths), **{path: page(path) for path in paths}}
    settings = added(tmp_path, site.url, SitemapOptions(max_pages=3, pages_per_second=100))
    assert read_sources(settings).failure is None
    assert states(settings, site).keys() == {"/0", "/1", "/2"}


def test_a_page_that_was_not_seen_is_kept_and_one_that_was_not_named_is_deleted(
    tmp_path: Path, site: WebSite
) -> None:
    site.pages = {
        "/sitemap.xml": site.index("/1.xml", "/2.xml"),
        "/1.xml": site.sitemap("/a", "/b"),
        "/2.xml": site.sitemap("/c", "/d"),
        **{path: page(path) for path in ("/a", "/b", "/c", "/d", "/new")},
    }
    settings = added(tmp_path, site.url, SitemapOptions(max_pages=4, pages_per_second=100))
    assert read_sources(settings).failure is None
    second, all_there = site.pages.pop("/2.xml"), dict.fromkeys(("/a", "/b", "/c", "/d"), "there")
    assert read_sources(settings).failure is None
    assert states(settings, site) == all_there  # the index names a sitemap that is not there
    [source] = SourceRegistry(settings.sources_file).list()
    lake = open_configured_lake(settings)
    preview = preview_sitemap(source, lake.query(STATE, raw=lake.delta("bronze.raw_documents")))
    assert (preview.listing.num_rows, preview.read.num_rows) == (4, 2)
    site.pages |= {"/1.xml": site.sitemap("/new", "/a", "/b"), "/2.xml": second}
    assert read_sources(settings).failure is None
    assert states(settings, site) == all_there | {"/new": "there"}  # /d is beyond the bound
    del site.pages["/a"]
    assert read_sources(settings).failure is None
    assert states(settings, site) == all_there | {"/new": "there", "/a": "gone"}  # its server says so
    site.pages["/1.xml"] = site.sitemap("/new")
    assert read_sources(settings).failure is None  # all is seen, and /b is not among it
    assert states(settings, site) == all_there | {"/new": "there", "/a": "gone", "/b": "gone"}


def test_a_hostile_site_is_only_asked_for_its_own_pages(
    tmp_path: Path, site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_client, "MAX_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(web_client, "_PAGE_TIMEOUT_S", 1.0)
    with web_site() as other:
        other.pages = {"/secret": page("Secret.")}
        site.pages = {
            "/sitemap.xml": site.sitemap(
                *("/ok", "/away", "/circle", "/slow", "/giant", "/bomb", "/inside", "/other-coding"),
                *(f"{other.url}/secret", "file:///etc/passwd", "http://169.254.169.254/latest/", "ftp://x/y"),
                f"http://user:pw@{site.url.removeprefix('http://')}/ok",
            ),
            "/ok": page("Fine."),
            "/away": Page(b"", 302, {"Location": f"{other.url}/secret"}),
            "/circle": Page(b"", 301, {"Location": "/circle"}),
            "/slow": Page(b"x", delay_s=0.2, parts=100),
            "/giant": Page(b"x" * (1 << 20), parts=50),
            "/bomb": Page(gzip.compress(bytes(50 << 20)), headers={"Content-Encoding": "gzip"}),
            "/inside": Page(b"", 307, {"Location": "/ok"}),
            "/other-coding": Page(b"x", headers={"Content-Encoding": "br"}),
        }
        settings = added(tmp_path, site.url)
        read = read_sources(settings)
        assert read.failure is None
        assert other.requests == []
    found = states(settings, site)
    assert found.pop("/ok") == found.pop("/inside") == "there"
    assert {path: error.partition(":")[0] for path, error in found.items()} == {
        "/away": "unreadable",
        "/circle": "unreachable",
        "/slow": "unreachable",
        "/giant": "unreadable",
        "/bomb": "unreadable",
        "/other-coding": "unreadable",
    }
    assert "which is not on" in found["/away"]
    assert "had not arrived after 1 s" in found["/slow"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>',
            "type",
        ),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><urlset/>', "document type"),
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x []><urlset/>'.encode("utf-16"), "document type"),
        (gzip.compress(bytes(80 << 20)), "MiB"),
        (b"\x1f\x8bnot gzip", "damaged"),
        (b"<urlset>" + b"<a>" * 100_000, "nested"),
        (b"<html><body>Not found</body></html>", "no sitemap"),
        (b"<urlset><url>", "well-formed"),
        (b"<urlset>" + b"<url><loc>x</loc></url>" * 2_400_000 + b"</urlset>", "MiB"),
    ],
)
def test_what_is_no_sitemap_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(SitemapError, match=reason):
        parse_sitemap(body)


def test_an_index_of_itself_ends(tmp_path: Path, site: WebSite) -> None:
    site.pages = {
        "/sitemap.xml": site.index("/sitemap.xml", "/2.xml", "http://example.org/3.xml"),
        "/2.xml": site.index("/sitemap.xml"),
    }
    settings = added(tmp_path, site.url)
    assert "name no page of it" in (read_sources(settings).failure or "")
    assert site.asked() == ["/robots.txt", "/sitemap.xml", "/2.xml"]
    site.pages["/sitemap.xml"] = site.index(*(f"/{number}.xml" for number in range(1100)))
    assert "more than 1,000 sitemaps" in (read_sources(settings).failure or "")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1",
        "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%eth0", "fd00::1", "255.255.255.255",
    ],
)  # fmt: skip
def test_private_addresses_are_known_however_they_are_written(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_known(address: str) -> None:
    assert is_public_address(address)


def test_a_name_that_leads_to_a_private_address_is_refused(
    site: WebSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(site.url.rpartition(":")[2])
    site.pages = {"/a": page("A.")}
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    url = f"http://docs.example.org:{port}"
    with pytest.raises(PageRefused, match=r"private address 127\.0\.0\.1"):
        WebClient(url, 0, False).get(f"{url}/a")
    assert WebClient(url, 0, True).get(f"{url}/a").status == 200
    assert site.requests[-1][1]["Host"] == f"docs.example.org:{port}"


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("https://docs.example.org/a", True),
        ("https://DOCS.example.org/a?b=c", True),
        ("https://docs.example.org:443/a", True),
        ("http://docs.example.org/a", False),
        ("https://docs.example.org:8443/a", False),
        ("https://docs.example.org:x/a", False),
        ("https://docs.example.org.evil.example/a", False),
        ("https://docs.example.org@evil.example/a", False),
        ("https://user@docs.example.org/a", False),
        ("https://evil.example/?https://docs.example.org/", False),
        ("https:docs.example.org/a", False),
        ("//docs.example.org/a", False),
        ("file:///etc/passwd", False),
        ("https://[::1/", False),
    ],
)
def test_which_urls_are_of_the_site(url: str, is_own: bool) -> None:
    assert WebClient("https://docs.example.org/sitemap.xml", 0, False).is_own(url) == is_own


@given(st.binary(max_size=300))
def test_bytes_are_a_sitemap_or_an_error(body: bytes) -> None:
    for sent in (body, b"<urlset>" + body, gzip.compress(b"<sitemapindex>" + body)):
        with contextlib.suppress(SitemapError):
            found = parse_sitemap(sent)
            assert all(url.startswith("http") for url in found.pages + found.sitemaps)


def test_a_site_is_tried_before_it_is_added(site: WebSite) -> None:
    source = Source(name="site", location=site.url, sitemap=SitemapOptions(pages_per_second=100, max_pages=1))
    with pytest.raises(SourceError, match="HTTP 404"):
        check_connected_source(source)
    site.pages = {"/sitemap.xml": site.sitemap("/a", "/b"), "/a": Page(b"A."), "/b": Page(b"B.")}
    site.asked()
    check_connected_source(source)
    assert site.asked() == ["/robots.txt", "/sitemap.xml"]


def test_a_preview_asks_for_no_page(tmp_path: Path, site: WebSite) -> None:
    site.pages = {"/sitemap.xml": site.sitemap("/a", "/b"), "/a": page("A."), "/b": page("B.")}
    settings = added(tmp_path, site.url)
    [source] = SourceRegistry(settings.sources_file).list()
    lake = open_configured_lake(settings)
    state = lake.query(STATE, raw=lake.delta("bronze.raw_documents"))
    assert preview_sitemap(source, state).read.num_rows == 2
    assert site.asked() == ["/robots.txt", "/sitemap.xml"]
