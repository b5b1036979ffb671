"""Turns an HTML tree into blocks: headings, paragraphs, code, lists and tables, each with its own lines."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from assets.parsing.blocks import TextBlock
from assets.parsing.formats.lines import format_code, format_list, format_table_row, format_table_rows

# trafilatura returns a tree with TEI names (head, list, item, row, cell, lb), so these sets have both names.
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = {"ul", "ol", "list", "menu", "dir"}
_ITEMS = {"li", "item"}
_ROWS = {"tr", "row"}
_CELLS = {"td", "th", "cell"}
_BREAKS = {"br", "lb"}
_CODE = {"pre", "xmp", "listing", "plaintext", "textarea"}
_CONTAINERS = {
    *("html", "body", "main", "div", "section", "article", "p", "blockquote", "quote", "figure"),
    *("figcaption", "header", "footer", "nav", "aside", "form", "fieldset", "legend", "address", "details"),
    *("summary", "center", "dl", "dt", "dd", "tbody", "thead", "tfoot", "hr", "caption", "table"),
    *("option", "hgroup", "dialog", "search", "frameset", "noframes", *_ROWS, *_CELLS, *_ITEMS, *_LISTS),
}
INVISIBLE_TAGS = frozenset(
    {
        *("script", "style", "template", "noscript", "iframe", "object", "embed", "audio"),
        *("video", "graphic", "select", "button", "input", "canvas", "map"),
    }
)
"""Elements whose text is not shown, or is the label of a control."""
UNSEEN_IN_DRAWINGS = frozenset({"title", "desc", "metadata", "defs", "symbol"})
"""Elements of SVG whose text is not drawn."""
_LABELS = ("text", "foreignobject")
# What breaks a list, a definition or a cell into several blocks, so that they can not be lines of one.
_BLOCKS_OF_THEIR_OWN = (*_HEADINGS, "head", "table", *_CODE)
_MAX_DEPTH = 100
_SPACE = re.compile(r"\s+")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
# Marks beside a heading, and columns of numbers beside code (a number in a line stays with it).
_DECORATION = re.compile(
    r"(?:^|\s)(?:headerlink|permalink|copiable-(?:anchor|link)|anchor-link|hash-link|rouge-gutter|gutter)(?:\s|$)"
)
_LINE_NUMBERS = re.compile(
    r"(?:^|\s)(?:linenos?|(?:source-?)?line-?no|line-?numbers?)(?:\s|$)", re.IGNORECASE
)
_MATHEMATICS = re.compile(r"(?:^|\s)(?:katex-html|MathJax_Preview)(?:\s|$)")
_RENDERED = re.compile(r"katex-mathml|MathJax(?!_Preview)")
_COPY_BUTTON = re.compile(r"(?:^|\s)(?:copybtn|copy-button)(?:\s|$)")
_COPY = re.compile(r"\W*(?:cop(?:y|ied)(?: (?:code|link|snippet|to clipboard))?\W*){0,2}", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_MAX_MARK_TEXTS = 5000
"""Texts that are looked at: an element with more of them is no mark. Such elements can be nested."""
_MAX_MARK_CHARACTERS = 500
"""The length of a mark whose icon may be named in words that are not shown."""


def html_blocks(root: Any) -> list[TextBlock]:
    """Returns the visible text below an element of HTML, or of the tree that trafilatura returns.

    A heading is a block with its level, a code block keeps its lines and indentation, a list is a block with
    a line per item, a definition follows its term, and a table has a line per row. A table with a header row
    is Markdown; a long one is several blocks that each repeat the header, so that every chunk has it. A
    picture stands for its alternative text, and a drawing (SVG) for its labels, a line each.
    """
    return _walk(root, 0)


def is_hidden(element: Any) -> bool:
    """Returns whether an element is not shown, by its tag, its attributes or the purpose that it names."""
    if element.tag in INVISIBLE_TAGS:
        return True
    if element.tag in UNSEEN_IN_DRAWINGS and any(above.tag == "svg" for above in element.iterancestors()):
        return True
    attributes = element.attrib
    return bool(attributes) and (
        ("hidden" in attributes and attributes["hidden"] != "until-found")
        or bool(_HIDDEN.search(attributes.get("style", "")))
        or ("class" in attributes and _is_decoration(element, attributes["class"]))
    )


def _is_decoration(element: Any, classes: str) -> bool:
    """Whether an element says nothing of its own: its class suggests it, and its text bears that out.

    Themes give the same classes to headings, to columns of a page and to whole listings.
    """
    if _DECORATION.search(classes) or (element.tag != "span" and _LINE_NUMBERS.search(classes)):
        return not _has_letters(element)
    if _MATHEMATICS.search(classes):  # a copy, for the eye, of what stands beside it for readers
        beside = (element.getprevious(), element.getnext())
        return any(
            each.tag == "math" or bool(_RENDERED.search(each.get("class", "")))
            for each in beside
            if each is not None and isinstance(each.tag, str)
        )
    return bool(
        _COPY_BUTTON.search(classes) and _COPY.fullmatch("".join(islice(element.itertext(), _MAX_MARK_TEXTS)))
    )


def _has_letters(element: Any) -> bool:
    """Whether an element's text has letters: not only signs, digits and, in a mark, an icon."""
    texts = list(islice(element.itertext(), _MAX_MARK_TEXTS))
    if len(texts) == _MAX_MARK_TEXTS:
        return True
    if not any(map(_LETTER.search, texts)):
        return False
    if sum(map(len, texts)) > _MAX_MARK_CHARACTERS:
        return True
    unseen = " or ".join(f"ancestor::{tag}" for tag in ("svg", *sorted(INVISIBLE_TAGS)))
    return any(map(_LETTER.search, element.xpath(f".//text()[not({unseen})]")))


def is_drawn_separator(element: Any) -> bool:
    """Returns whether an element stands for a sign between two names that a style sheet draws."""
    return element.tag == "span" and element.get("class") == "sep" and not element.text and not len(element)


def _walk(root: Any, above: int) -> list[TextBlock]:
    blocks: list[TextBlock] = []
    inline: list[str] = []
    code: list[int] = []

    def flush(level: int | None = None) -> None:
        text = _inline_text("".join(inline))
        inline.clear()
        if text:
            blocks.append(TextBlock(text, level))

    def add(text: str) -> None:
        if text.strip():
            blocks.append(TextBlock(text))

    def visit(element: Any, depth: int) -> None:
        tag = element.tag
        if element is root:
            children(element, depth)
            return
        if not isinstance(tag, str) or is_hidden(element):
            pass
        elif depth > _MAX_DEPTH:
            inline.append(" ".join(element.itertext()))
        elif tag in _BREAKS:
            inline.append("\x00")
        elif is_drawn_separator(element):
            inline.append(" ")
        elif tag == "img":
            inline.append(f" {element.get('alt', '').strip()} ")
        elif tag == "svg":
            if labels := _drawing_labels(element):
                flush()
                add("\n".join(labels))
        elif tag == "math":
            inline.append(element.get("alttext") or " ".join(element.itertext()))
        elif tag in _HEADINGS or tag == "head":
            flush()
            inline.append(_flat(element, depth).rstrip(" ¶#"))
            flush(_HEADINGS.get(tag) or _HEADINGS.get(element.get("rend", ""), 2))
        elif tag in _CODE or _is_preformatted(element):
            flush()
            if (text := _code(element)).strip():
                code.append(len(blocks))
                add(text)
        elif tag in _LISTS and not _holds(element, _BLOCKS_OF_THEIR_OWN[: -len(_CODE)]):
            flush()
            items = [_nested(item, depth) for item in element if isinstance(item.tag, str)]
            add(format_list(items, _first_number(element)))
        elif tag == "dl" and not _holds(element, _BLOCKS_OF_THEIR_OWN):
            flush()
            add("\n".join(_definitions(element, depth)))
        elif tag == "table" and not _is_layout(element):
            flush()
            for text in _table(element, depth):
                add(text)
        else:
            if tag in _CONTAINERS:
                flush()
            children(element, depth)
            if tag in _CONTAINERS:
                flush()
        inline.append(_SPACE.sub(" ", element.tail or ""))

    def children(element: Any, depth: int) -> None:
        inline.append(_SPACE.sub(" ", element.text or ""))
        for child in element:
            visit(child, depth + 1)

    visit(root, above)
    flush()
    # A page that is one preformatted text is no code.
    for place in code if len(blocks) > 1 else ():
        blocks[place] = TextBlock(format_code(blocks[place].text))
    return blocks


def _drawing_labels(drawing: Any) -> list[str]:
    """Returns the text of a drawing, each label in one line; of icons, which have none, nothing."""
    labels: list[str] = []
    waiting = [drawing]
    while waiting:
        element = waiting.pop()
        if not isinstance(element.tag, str) or is_hidden(element):
            continue
        if element.tag in _LABELS:
            labels.append(" ".join(" ".join(element.itertext()).split()))
        else:
            waiting.extend(reversed(element))
    return [label for label in labels if label]


def _holds(element: Any, tags: tuple[str, ...]) -> bool:
    return next((True for inner in element.iter(*tags) if inner is not element), False)


def _is_preformatted(element: Any) -> bool:
    """Whether an element is code without being `pre`.

    That is a fragment of Doxygen, with an element per line, and a code or quote element of trafilatura that
    was a `pre`: it has several lines and no paragraphs.
    """
    if element.tag == "div":
        return element.get("class") == "fragment"
    if element.tag not in ("code", "quote") or element.find("p") is not None:
        return False
    return "\n" in "".join(element.itertext()).strip()


def _code(element: Any) -> str:
    return "".join(_code_parts(element)).strip("\n")


def _code_parts(element: Any) -> Iterator[str]:
    """Yields the text of a code block; a line break or a block inside it ends a line."""
    waiting = [(element, False)]
    while waiting:
        node, left = waiting.pop()
        if left:
            if node.tag in ("div", "p", "tr", "li"):
                yield "\n"
            elif node.tag == "span" and _LINE_NUMBERS.search(node.get("class", "")):
                yield " "
            yield node.tail or ""
        elif not isinstance(node.tag, str) or is_hidden(node):
            yield node.tail or ""
        elif node.tag == "br":
            yield "\n" + (node.tail or "")
        else:
            if node is not element:
                waiting.append((node, True))
            yield node.text or ""
            waiting.extend((child, False) for child in reversed(node))


def _first_number(element: Any) -> int | None:
    if element.tag != "ol":
        return None
    start = element.get("start", "1").strip()
    return int(start) if start.isascii() and start.isdigit() and len(start) < 10 else 1


def _definitions(element: Any, depth: int) -> Iterator[str]:
    """Yields a line for each term, and the indented lines of its definitions."""
    for item in element:
        if item.tag in ("div", "span"):  # HTML allows groups of terms and definitions
            yield from _definitions(item, depth)
        elif isinstance(item.tag, str) and (text := _nested(item, depth)):
            yield text if item.tag == "dt" else "    " + text.replace("\n", "\n    ")


def _is_layout(table: Any) -> bool:
    """Whether a table lays out a page: it has headings, code or other tables in it, or says so."""
    return table.get("role") == "presentation" or _holds(table, _BLOCKS_OF_THEIR_OWN)


def _table(table: Any, depth: int) -> list[str]:
    """Returns the texts of a table: its caption, then its rows."""
    captions = [_flat(caption, depth) for caption in table.iter("caption")]
    rows: list[list[str]] = []
    heads = 0
    for row in table.iter(*_ROWS):
        if is_hidden(row):
            continue
        cells = [cell for cell in row if cell.tag in _CELLS and not is_hidden(cell)]
        if cells and heads == len(rows) and _is_head(row, cells):
            heads += 1
        rows.append([_flat(cell, depth) for cell in cells])
    if heads == 1 and len(rows) > 1 and len(rows[0]) > 1:
        return [*captions, *format_table_rows(rows[0], rows[1:])]
    return [*captions, "\n".join(filter(None, map(format_table_row, rows)))]


def _is_head(row: Any, cells: list[Any]) -> bool:
    parent = row.getparent()
    return (parent is not None and parent.tag == "thead") or all(
        cell.tag == "th" or cell.get("role") in ("head", "columnheader") for cell in cells
    )


def _nested(item: Any, depth: int) -> str:
    return "\n".join(text for block in _walk(item, depth + 1) if (text := block.text.strip("\n")))


def _flat(element: Any, depth: int) -> str:
    if len(element) == 0:
        return " ".join((element.text or "").split())
    return " ".join(" ".join(block.text for block in _walk(element, depth + 1)).split())


def _inline_text(text: str) -> str:
    return "\n".join(_SPACE.sub(" ", line).strip() for line in text.split("\x00")).strip()
