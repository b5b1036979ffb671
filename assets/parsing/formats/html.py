"""Reads HTML: the main text, without navigation and other boilerplate."""

import re
from copy import copy, deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.lines import format_list, format_table_row

if TYPE_CHECKING:
    from configparser import ConfigParser

    from lxml.html import HtmlElement  # type: ignore[import-untyped]

# trafilatura returns a tree with TEI names (head, list, item, row, cell, lb), so these sets have both names.
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = {"ul", "ol", "list", "menu"}
_ITEMS = {"li", "item"}
_ROWS = {"tr", "row"}
_CELLS = {"td", "th", "cell"}
_BREAKS = {"br", "lb"}
_CONTAINERS = {
    *(
        "html",
        "body",
        "main",
        "div",
        "section",
        "article",
        "p",
        "blockquote",
        "quote",
        "figure",
        "figcaption",
    ),
    *("header", "footer", "nav", "aside", "form", "fieldset", "address", "details", "summary", "center"),
    *("dl", "dt", "dd", "tbody", "thead", "tfoot", "hr", "caption", "table", *_ROWS, *_CELLS, *_ITEMS),
}
_INVISIBLE_TAGS = {
    *(
        "script",
        "style",
        "template",
        "noscript",
        "svg",
        "math",
        "iframe",
        "object",
        "embed",
        "audio",
        "video",
    ),
    *("img", "graphic", "select", "button", "input", "textarea", "canvas", "map"),
}
_BOILERPLATE = {"nav", "header", "footer", "aside", "form"}
_BOILERPLATE_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary"}
_MIN_MAIN_SHARE = 0.8
"""The share of the characters of a page's main element that trafilatura must find."""
_MAX_DEPTH = 100
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{2,40})", re.IGNORECASE)
_TAGS = re.compile(r"<!--.*?(?:-->|\Z)|<[^>]*>", re.DOTALL)
_HEADING = re.compile(r"<h[1-6]\b", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def read_html(body: bytes) -> DocumentBlocks:
    """Returns the main text of an HTML page, without navigation, headers and footers.

    Trafilatura extracts it (Barbaresi 2021, doi:10.18653/v1/2021.acl-demo.15). Trafilatura is made for prose
    and drops the listings of API pages. If it finds less than 80 % of the page's main element, that element
    is returned. If it finds less than 30 % of the visible text outside navigation, headers and footers, as on
    short pages, that text is returned; if there is none, all visible text.

    Raises:
        ExtractionError: `unreadable` if the bytes hold no HTML.
    """
    root = _parse(_decode_html(body))
    whole = _body_blocks(root, _INVISIBLE_TAGS | _BOILERPLATE) or _body_blocks(root, _INVISIBLE_TAGS)
    main = _main_blocks(root)
    named = _named_blocks(root)
    if _letters(main) < _MIN_MAIN_SHARE * _letters(named):
        main = named
    if _letters(main) < 0.3 * _letters(whole):
        main = whole
    heads = [block.text for block in main if block.level == 1]
    return DocumentBlocks(main, heads[0] if len(heads) == 1 else root.findtext(".//title"))


def visible_html_blocks(body: bytes) -> list[TextBlock]:
    """Returns all visible text of HTML that has no boilerplate, such as a mail or a chapter of a book."""
    if not body.strip():
        return []
    return _body_blocks(_parse(_decode_html(body)), _INVISIBLE_TAGS)


def html_fragment_blocks(source: str) -> list[TextBlock]:
    """Returns the visible text of a piece of HTML inside Markdown."""
    if not _TAGS.sub("", source).strip() and not _HEADING.search(source):
        return []  # badges, comments and closing tags: most HTML in Markdown
    return _walk(_parse(f"<div>{source}</div>"), _INVISIBLE_TAGS)


def _decode_html(body: bytes) -> str:
    # Valid UTF-8 is more reliable than the declared encoding, and that is more reliable than a guess.
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        declared = _META_CHARSET.search(body[:4096])
    if declared:
        try:
            name = declared[1].decode().lower()
            # The WHATWG standard reads Latin-1 as Windows-1252, as browsers do.
            return body.decode("cp1252" if name in {"iso-8859-1", "latin1"} else name, "replace")
        except LookupError:
            pass
    return decode_text(body)


def _parse(source: str) -> "HtmlElement":
    from lxml.etree import LxmlError  # type: ignore[import-untyped]
    from lxml.html import HTMLParser, document_fromstring

    # The HTML parser knows only HTML's own entities, so declared ones expand to nothing. No network is used.
    body = source.encode("utf-8", "replace")
    parser = HTMLParser(
        encoding="utf-8",
        remove_comments=True,
        remove_pis=True,
        no_network=True,
        huge_tree=True,  # without it, elements 256 deep, or longer than 10 MB, are dropped silently
    )
    try:
        return document_fromstring(body, parser=parser)
    except LxmlError as error:
        raise ExtractionError("unreadable", f"The HTML can not be parsed: {error}.") from error


@cache
def _settings() -> "ConfigParser":
    from trafilatura.settings import use_config

    # By default, it returns pages under 250 characters as text without structure.
    settings = use_config()
    settings.set("DEFAULT", "MIN_EXTRACTED_SIZE", "1")
    settings.set("DEFAULT", "MIN_OUTPUT_SIZE", "1")
    return settings


def _main_blocks(root: "HtmlElement") -> list[TextBlock]:
    from trafilatura import bare_extraction

    document = bare_extraction(
        deepcopy(root), fast=True, include_comments=False, include_tables=True, config=_settings()
    )
    return [] if document is None or document.body is None else _walk(document.body, _INVISIBLE_TAGS)


def _named_blocks(root: "HtmlElement") -> list[TextBlock]:
    """Returns the page's main element without navigation; nothing if it has none or several."""
    named = root.xpath("//main | //*[@role='main']")
    return _walk(named[0], _INVISIBLE_TAGS | _BOILERPLATE) if len(named) == 1 else []


def _body_blocks(root: "HtmlElement", dropped: set[str]) -> list[TextBlock]:
    body = root.find("body")
    return [] if body is None else _walk(body, dropped)


def _letters(blocks: list[TextBlock]) -> int:
    return sum(len(block.text) for block in blocks)


def _walk(root: Any, dropped: set[str], above: int = 0) -> list[TextBlock]:
    blocks: list[TextBlock] = []
    inline: list[str] = []

    def flush(level: int | None = None) -> None:
        text = _inline_text("".join(inline))
        inline.clear()
        if text:
            blocks.append(TextBlock(text, level))

    def visit(element: Any, depth: int) -> None:
        tag = element.tag
        if not isinstance(tag, str) or _is_invisible(element, dropped):
            pass
        elif depth > _MAX_DEPTH:
            inline.append(" ".join(element.itertext()))
        elif tag in _BREAKS:
            inline.append("\x00")
        elif tag in _HEADINGS or tag == "head":
            flush()
            title = _flat(element, dropped, depth).rstrip(" ¶")
            # A logo in place of a heading has the name as its alternative text.
            inline.append(title or next((image.get("alt", "") for image in element.iter("img")), ""))
            flush(_HEADINGS.get(tag) or _HEADINGS.get(element.get("rend", ""), 2))
        elif tag == "pre" or _is_preformatted(element):
            flush()
            blocks.append(TextBlock("".join(element.itertext())))
        elif tag in _LISTS:
            flush()
            items = [_nested(item, dropped, depth) for item in element if item.tag in _ITEMS]
            blocks.append(TextBlock(format_list(items, 1 if tag == "ol" else None)))
        elif tag == "table" and not _is_layout(element):
            flush()
            rows = (
                [_flat(cell, dropped, depth) for cell in row if cell.tag in _CELLS]
                for row in element.iter(*_ROWS)
            )
            blocks.append(TextBlock("\n".join(filter(None, map(format_table_row, rows)))))
        else:
            if tag in _CONTAINERS:
                flush()
            inline.append(_SPACE.sub(" ", element.text or ""))
            for child in element:
                visit(child, depth + 1)
            if tag in _CONTAINERS:
                flush()
        if element is not root:
            inline.append(_SPACE.sub(" ", element.tail or ""))

    visit(root, above)
    flush()
    return blocks


def _is_invisible(element: Any, dropped: set[str]) -> bool:
    if element.tag in dropped:
        return True
    attributes = element.attrib
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or bool(_HIDDEN.search(attributes.get("style", "")))
        or "headerlink" in attributes.get("class", "")
        or (dropped is not _INVISIBLE_TAGS and attributes.get("role") in _BOILERPLATE_ROLES)
    )


def _is_preformatted(element: Any) -> bool:
    """Whether a code or quote element of trafilatura was a `pre`: it has several lines and no paragraphs."""
    if element.tag not in ("code", "quote") or element.find("p") is not None:
        return False
    return "\n" in "".join(element.itertext()).strip()


def _is_layout(table: Any) -> bool:
    """Whether a table is used for layout: it contains headings or other tables."""
    return next((True for inner in table.iter("table", *_HEADINGS) if inner is not table), False)


def _nested(item: Any, dropped: set[str], depth: int) -> str:
    return "\n".join(block.text.strip("\n") for block in _walk(item, dropped, depth + 1))


def _flat(element: Any, dropped: set[str], depth: int) -> str:
    inner = copy(element)
    inner.tag = "div"  # the walk would treat a heading or cell as such again, without end
    return " ".join(" ".join(block.text for block in _walk(inner, dropped, depth + 1)).split())


def _inline_text(text: str) -> str:
    return "\n".join(_SPACE.sub(" ", line).strip() for line in text.split("\x00")).strip()
