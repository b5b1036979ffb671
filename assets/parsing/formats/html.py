"""HTML to blocks: the main text, without navigation and other boilerplate."""

import re
from copy import copy, deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock, format_list, format_table_row
from assets.parsing.decoding import decode_text

if TYPE_CHECKING:
    from configparser import ConfigParser

    from lxml.html import HtmlElement  # type: ignore[import-untyped]

# trafilatura's own result is a tree of TEI names (head, list, item, row, cell, lb); the walk takes both.
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
_UNSEEN = {
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
_MOST = 0.8
"""Of the letters of a page's main part, those that trafilatura must have found."""
_MAX_DEPTH = 100
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{2,40})", re.IGNORECASE)
_TAGS = re.compile(r"<!--.*?(?:-->|\Z)|<[^>]*>", re.DOTALL)
_HEADING = re.compile(r"<h[1-6]\b", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def read_html(body: bytes) -> DocumentBlocks:
    """The main text of a page, found by trafilatura (Barbaresi 2021, doi:10.18653/v1/2021.acl-demo.15).

    Where it finds less than most of what the page itself names as its main part, that part stands in: it was
    made for prose, and drops the listings of an API's pages. Where it finds nothing, or so little that it
    must have missed (short pages), the visible text outside navigation, headers and footers does, and failing
    that all visible text.

    Raises:
        ExtractionError: `unreadable` when there is no HTML in it.
    """
    root = _parse(_decode_html(body))
    whole = _body_blocks(root, _UNSEEN | _BOILERPLATE) or _body_blocks(root, _UNSEEN)
    main = _main_blocks(root)
    named = _named_blocks(root)
    if _letters(main) < _MOST * _letters(named):
        main = named
    if _letters(main) < 0.3 * _letters(whole):
        main = whole
    heads = [block.text for block in main if block.level == 1]
    return DocumentBlocks(main, heads[0] if len(heads) == 1 else root.findtext(".//title"))


def visible_html_blocks(body: bytes) -> list[TextBlock]:
    """All visible text of a page that is all content: a mail's body, a book's chapter."""
    if not body.strip():
        return []
    return _body_blocks(_parse(_decode_html(body)), _UNSEEN)


def html_fragment_blocks(source: str) -> list[TextBlock]:
    """The visible text of a piece of HTML, such as Markdown holds."""
    if not _TAGS.sub("", source).strip() and not _HEADING.search(source):
        return []  # badges, comments and closing tags: most of what Markdown holds
    return _walk(_parse(f"<div>{source}</div>"), _UNSEEN)


def _decode_html(body: bytes) -> str:
    # Sound UTF-8 is surer than what the page says of itself, and that is surer than a guess.
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

    # The HTML parser knows no entities but HTML's own, so declared ones expand to nothing; no network either.
    body = source.encode("utf-8", "replace")
    parser = HTMLParser(
        encoding="utf-8",
        remove_comments=True,
        remove_pis=True,
        no_network=True,
        huge_tree=True,  # else what is 256 elements deep, or longer than 10 MB, is dropped without a word
    )
    try:
        return document_fromstring(body, parser=parser)
    except LxmlError as error:
        raise ExtractionError("unreadable", f"The HTML can not be parsed: {error}.") from error


@cache
def _settings() -> "ConfigParser":
    from trafilatura.settings import use_config

    # Its defaults give up on pages under 250 characters and return all text without structure instead.
    settings = use_config()
    settings.set("DEFAULT", "MIN_EXTRACTED_SIZE", "1")
    settings.set("DEFAULT", "MIN_OUTPUT_SIZE", "1")
    return settings


def _main_blocks(root: "HtmlElement") -> list[TextBlock]:
    from trafilatura import bare_extraction

    document = bare_extraction(
        deepcopy(root), fast=True, include_comments=False, include_tables=True, config=_settings()
    )
    return [] if document is None or document.body is None else _walk(document.body, _UNSEEN)


def _named_blocks(root: "HtmlElement") -> list[TextBlock]:
    """What the page names as its main part, without navigation in it; nothing where it names none, or two."""
    named = root.xpath("//main | //*[@role='main']")
    return _walk(named[0], _UNSEEN | _BOILERPLATE) if len(named) == 1 else []


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
        if not isinstance(tag, str) or _unseen(element, dropped):
            pass
        elif depth > _MAX_DEPTH:
            inline.append(" ".join(element.itertext()))
        elif tag in _BREAKS:
            inline.append("\x00")
        elif tag in _HEADINGS or tag == "head":
            flush()
            title = _flat(element, dropped, depth).rstrip(" ¶")
            # A logo in a heading's place says the name as its alternative text.
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


def _unseen(element: Any, dropped: set[str]) -> bool:
    if element.tag in dropped:
        return True
    attributes = element.attrib
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or bool(_HIDDEN.search(attributes.get("style", "")))
        or "headerlink" in attributes.get("class", "")
        or (dropped is not _UNSEEN and attributes.get("role") in _BOILERPLATE_ROLES)
    )


def _is_preformatted(element: Any) -> bool:
    """Whether trafilatura's code or quote was a `pre`: its lines were kept, and it holds no paragraphs."""
    if element.tag not in ("code", "quote") or element.find("p") is not None:
        return False
    return "\n" in "".join(element.itertext()).strip()


def _is_layout(table: Any) -> bool:
    """Whether a table lays out a page rather than holding data: it holds headings or other tables."""
    return next((True for inner in table.iter("table", *_HEADINGS) if inner is not table), False)


def _nested(item: Any, dropped: set[str], depth: int) -> str:
    return "\n".join(block.text.strip("\n") for block in _walk(item, dropped, depth + 1))


def _flat(element: Any, dropped: set[str], depth: int) -> str:
    inner = copy(element)
    inner.tag = "div"  # a heading or cell would call for itself again
    return " ".join(" ".join(block.text for block in _walk(inner, dropped, depth + 1)).split())


def _inline_text(text: str) -> str:
    return "\n".join(_SPACE.sub(" ", line).strip() for line in text.split("\x00")).strip()
