"""Reads articles: pages of news sites and blogs, with much around the text that is not of it."""

import re
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from assets.parsing.blocks import TextBlock
from assets.parsing.formats.html.blocks import html_blocks
from assets.parsing.formats.html.main_part import PageText

if TYPE_CHECKING:
    from configparser import ConfigParser

_DECLARED = (
    "//meta[@property='og:type' and contains(@content, 'article')]"
    " | //meta[starts-with(@property, 'article:')]"
    " | //*[@itemprop='articleBody' or contains(@itemtype, 'Article') or contains(@itemtype, 'BlogPosting')]"
)
_DECLARED_IN_JSON = re.compile(r'"@type"\s*:\s*\[?\s*"\w*(?:Article|BlogPosting)"')
_ELSEWHERE = re.compile(r"(?:https?:)?//")
# Programs that make documentation, which keeps its listings and definitions only as a whole.
_DOCUMENTATION = re.compile(
    r"docutils|sphinx|docbook|publican|makeinfo|texinfo|doxygen|javadoc|rustdoc|mdbook|mkdocs|asciidoc|antora"
    r"|docusaurus|vitepress|vuepress|gitbook|haddock|pydoc|gi-docgen|gtk-doc|dita|latex2html|tex4ht|pandoc",
    re.IGNORECASE,
)
_MAX_ELEMENTS = 30_000
"""Elements of an article; trafilatura would take a minute for a table of a hundred thousand rows."""
_MIN_SCRIPTS = 10
_MIN_RESOURCES_ELSEWHERE = 5
_MAX_CODE_SHARE = 0.1
_LINKED = 0.8
"""The share of a block's letters in links from which on it only leads elsewhere."""
_MAX_LINKED_SHARE = 0.5
"""An article with a larger share of such blocks is a list of links, which is what it has to say."""
_MIN_PROSE_WORDS = 15
_MIN_RESCUED_WORDS = 100
_WORD = re.compile(r"\w+")
_NO_WORD = re.compile(r"\W+")
_GRAM = 4


@dataclass(frozen=True, slots=True)
class Article:
    """An article as it was read.

    Attributes:
        blocks: Its blocks, without the title.
        title: The heading at its start, which is not among the blocks.
        visible_text: The text of its blocks, and the paragraphs, captions and boxes beside them that were not
            found.
    """

    blocks: list[TextBlock]
    title: str | None
    visible_text: str


def is_article(root: Any) -> bool:
    """Returns whether a page is an article of a news site or blog rather than documentation.

    It is one if it says so (Open Graph, schema.org), or if it is made as pages of the web are: with many
    scripts and parts from other hosts. It is none if a documentation generator made it, or if more than a
    tenth of it is code.
    """
    if sum(1 for _ in islice(root.iter(), _MAX_ELEMENTS)) == _MAX_ELEMENTS:
        return False
    generators = root.xpath("//meta[translate(@name, 'G', 'g')='generator']/@content")
    if any(_DOCUMENTATION.search(each) for each in generators):
        return False
    scripts = list(root.iter("script"))
    declared = root.xpath(_DECLARED) or any(
        script.get("type") == "application/ld+json" and _DECLARED_IN_JSON.search(script.text or "")
        for script in scripts
    )
    if not declared:
        resources = root.xpath("//script/@src | //link[@rel='stylesheet']/@href")
        elsewhere = sum(bool(_ELSEWHERE.match(each)) for each in resources)
        shared = root.xpath("boolean(//meta[starts-with(@property, 'og:')])")
        if len(scripts) < _MIN_SCRIPTS or not (shared or elsewhere >= _MIN_RESOURCES_ELSEWHERE):
            return False
    code = sum(len("".join(each.itertext())) for each in root.iter("pre"))
    return not code or code < _MAX_CODE_SHARE * len("".join(root.find("body").itertext()))


def read_article(root: Any) -> Article | None:
    """Returns the text of an article, by trafilatura (Barbaresi 2021, doi:10.18653/v1/2021.acl-demo.15).

    It is asked for precision. Of what it finds, blocks that are links to other pages and the page's title
    are left out. Where it misses half of the paragraphs of the only `article` or `articleBody` of a page, the
    blocks of that element are returned.

    Args:
        root: The page. Its hidden elements are removed.

    Returns:
        The article, or None if nothing was found.
    """
    from trafilatura import bare_extraction

    found = bare_extraction(
        deepcopy(root), favor_precision=True, include_comments=False, include_tables=True, config=_settings()
    )
    page = PageText(root.find("body"))
    paragraphs = [
        (element, words)
        for element in page.elements
        if element.tag == "p"
        and page.link_share(element) < 1 - _LINKED
        and len(words := _WORD.findall("".join(element.itertext()))) >= _MIN_PROSE_WORDS
    ]
    blocks: list[TextBlock] = []
    if found is not None and found.body is not None:
        _drop_links(found.body, page)
        blocks = html_blocks(found.body)
    grams = _grams(_WORD.findall("\n".join(block.text for block in blocks)))
    there = [len(own & grams) > len(own) / 2 for _, words in paragraphs for own in (_grams(words),)]
    named = _named(page.body)
    if named is not None:
        inside = [
            (len(words), kept)
            for (element, words), kept in zip(paragraphs, there, strict=True)
            if any(above is named for above in element.iterancestors())
        ]
        total = sum(words for words, _ in inside)
        if total >= _MIN_RESCUED_WORDS and sum(words for words, kept in inside if kept) < total / 2:
            blocks = html_blocks(named)
            there = [any(above is named for above in element.iterancestors()) for element, _ in paragraphs]
    if not blocks:
        return None
    # Paragraphs beside one that was found are of the article too.
    families = {element.getparent() for (element, _), kept in zip(paragraphs, there, strict=True) if kept}
    missed = [
        " ".join(words)
        for (element, words), kept in zip(paragraphs, there, strict=True)
        if not kept and element.getparent() in families
    ]
    missed += _asides_missed(page, families, grams)
    visible = "\n".join([*(block.text for block in blocks), *missed])
    titles = {_same("".join(title.itertext())) for title in root.iter("h1", "title")}
    title = next((block.text for block in blocks if _same(block.text) in titles), None)
    rest = [block for block in blocks if _same(block.text) not in titles]
    while rest and rest[-1].level is not None:  # a heading of what was left out
        rest.pop()
    return Article(rest or blocks, title, visible)


@cache
def _settings() -> "ConfigParser":
    from trafilatura.settings import use_config

    # By default, it returns pages under 250 characters as text without structure.
    settings = use_config()
    settings.set("DEFAULT", "MIN_EXTRACTED_SIZE", "1")
    settings.set("DEFAULT", "MIN_OUTPUT_SIZE", "1")
    return settings


def _named(body: Any) -> Any:
    """Returns the element that a page marks as its article, if it is the only one."""
    for path in (".//*[@itemprop='articleBody']", ".//article"):
        found = body.xpath(path)
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _asides_missed(page: PageText, families: set[Any], grams: set[tuple[str, ...]]) -> list[str]:
    """Returns the texts of captions and boxes among an article's paragraphs that were not found."""
    missed: list[str] = []
    for element in page.elements:
        if element.tag not in ("figcaption", "aside") or page.link_share(element) >= _MAX_LINKED_SHARE:
            continue
        parent = element.getparent()
        if parent not in families and not (parent.tag == "figure" and parent.getparent() in families):
            continue
        words = _WORD.findall(" ".join(element.itertext()))
        own = _grams(words)
        if len(own & grams) < len(own) / 2:
            missed.append(" ".join(words))
    return missed


def _drop_links(tree: Any, page: PageText) -> None:
    """Removes blocks whose text is a link to another page: trafilatura's tree has lost the links."""
    linked = {
        _same("".join(element.itertext()))
        for element in page.elements
        if page.linked[element] and page.link_share(element) >= _LINKED and page.letters[element] < 2000
    } - {""}
    dropped: dict[Any, None] = {}
    for element in tree.iter("p", "item", "list", "quote", "head", "table", "row"):
        if element.getparent() not in dropped and _same("".join(element.itertext())) in linked:
            dropped[element] = None
    letters = len("".join(tree.itertext()))
    if sum(len("".join(element.itertext())) for element in dropped) > _MAX_LINKED_SHARE * letters:
        return
    for element in dropped:
        parent, before = element.getparent(), element.getprevious()
        if element.tail and before is not None:
            before.tail = (before.tail or "") + element.tail
        elif element.tail:
            parent.text = (parent.text or "") + element.tail
        parent.remove(element)


def _same(text: str) -> str:
    return _NO_WORD.sub("", text).casefold()


def _grams(words: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(words[at:] for at in range(_GRAM)), strict=False))
