"""Reads HTML: the main text, without navigation and other boilerplate."""

import re
from typing import TYPE_CHECKING

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.html.article import is_article, read_article
from assets.parsing.formats.html.blocks import html_blocks
from assets.parsing.formats.html.main_part import main_part

if TYPE_CHECKING:
    from lxml.html import HtmlElement  # type: ignore[import-untyped]

_A_TAG = re.compile("<[a-zA-Z/!?]")
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|template)\b.*?(?:</\1\s*>|\Z)|<[a-zA-Z/!?][^<>]*>?",
    re.DOTALL | re.IGNORECASE,
)
_DECLARED_ENTITIES = re.compile(
    r"\A\s*(?:<\?xml[^>]*>\s*)?<!DOCTYPE[^>\[]*\[.*?\]\s*>", re.DOTALL | re.IGNORECASE
)
_HEAD_BYTES = 4096
_DECLARED_ENCODING = re.compile(
    rb"(?:<meta[^>]{0,200}?charset|\A\s*<\?xml[^>]{0,200}?encoding)\s*=\s*[\"']?\s*([\w-]{2,40})",
    re.IGNORECASE,
)
_MAX_WRONG_SHARE = 0.001
"""The share of characters that can not be decoded above which a declared encoding is wrong."""
_TAGS = re.compile(r"<!--.*?(?:-->|\Z)|<[^>]*>", re.DOTALL)
_HEADING = re.compile(r"<h[1-6]\b", re.IGNORECASE)


def read_html(body: bytes) -> DocumentBlocks:
    """Returns the main text of an HTML page, without navigation, headers and footers.

    An article (`is_article`) is read with trafilatura, which knows what news sites and blogs put around and
    into a text. Every other page, such as documentation, keeps all of its text except for navigation: there
    trafilatura loses paragraphs, listings and definitions. docs/formats.md has both measured.

    Raises:
        ExtractionError: `unreadable` if the bytes hold no HTML.
    """
    root = _parse(_decode_html(body))
    title = root.findtext(".//title")
    page = root.find("body")
    if page is None:
        page = root.find("frameset")  # whose text, for readers without frames, stands in no body
    if page is None:
        return DocumentBlocks([], title)
    article = read_article(root) if page.tag == "body" and is_article(root) else None
    if article is not None:
        return DocumentBlocks(article.blocks, article.title or title, visible_text=article.visible_text)
    main = main_part(page)
    blocks = html_blocks(main.element)
    heads = [block.text for block in blocks if block.level == 1]
    return DocumentBlocks(blocks, heads[0] if len(heads) == 1 else title, visible_text=main.visible_text)


def visible_html_blocks(body: bytes) -> list[TextBlock]:
    """Returns all visible text of HTML that has no boilerplate, such as a mail or a chapter of a book."""
    if not body.strip():
        return []
    page = _parse(_decode_html(body)).find("body")
    return [] if page is None else html_blocks(page)


def html_fragment_blocks(source: str) -> list[TextBlock]:
    """Returns the visible text of a piece of HTML inside Markdown."""
    if not _TAGS.sub("", source).strip() and not _HEADING.search(source):
        return []  # badges, comments and closing tags: most HTML in Markdown
    return html_blocks(_parse(f"<div>{source}</div>"))


def _decode_html(body: bytes) -> str:
    # Valid UTF-8 is more reliable than the declared encoding, and that is more reliable than a guess.
    if b"\x00" in body[:_HEAD_BYTES]:
        return decode_text(body)
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = _DECLARED_ENCODING.search(body[:_HEAD_BYTES])
    if declared:
        # The WHATWG standard reads Latin-1 as Windows-1252, as browsers do.
        name = declared[1].decode().lower()
        name = "cp1252" if name in {"iso-8859-1", "latin1", "us-ascii"} else name
        try:
            text = body.decode(name, "replace")
        except LookupError:
            text = ""
        if text and text.count("\ufffd") < _MAX_WRONG_SHARE * len(text):
            return text
    return decode_text(body)


def _parse(source: str) -> "HtmlElement":
    from lxml.etree import LxmlError  # type: ignore[import-untyped]
    from lxml.html import HTMLParser, document_fromstring

    if not _A_TAG.search(source):
        return _parse(f"<pre>{source}</pre>")
    # The HTML parser knows only HTML's own entities, so declared ones expand to nothing. No network is used.
    body = _DECLARED_ENTITIES.sub("", source, count=1).encode("utf-8", "replace")
    parser = HTMLParser(
        encoding="utf-8",
        remove_comments=True,
        remove_pis=True,
        no_network=True,
        huge_tree=True,  # without it, elements 256 deep, or longer than 10 MB, are dropped silently
    )
    try:
        root = document_fromstring(body, parser=parser)
    except LxmlError as error:
        raise ExtractionError("unreadable", f"The HTML can not be parsed: {error}.") from error
    if any(each.type_name == "ERR_RESOURCE_LIMIT" for each in parser.error_log):
        # What is nested deeper than 2,048 elements was dropped: its words are worth more than the structure.
        text = "\n".join(filter(None, map(str.strip, _MARKUP.sub("\n", source).splitlines())))
        return document_fromstring(f"<pre>{text}</pre>")
    return root
