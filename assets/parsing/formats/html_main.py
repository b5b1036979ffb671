"""Finds the main part of a page: it removes navigation, search, headers and footers of the site."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

from assets.parsing.formats.html_blocks import INVISIBLE_TAGS, is_hidden

_ROLES = {"navigation", "banner", "contentinfo", "search", "menu", "menubar", "toolbar", "complementary"}
_AROUND = {"header", "footer", "aside", "form"}
_BY_TAG = _AROUND | {"nav", "search"}
_BLOCKS = {"div", "p", "ul", "ol", "dl", "table", "tr", "td", "section", "center", "span", "li"}
# Words of the classes and ids by which pages and the programs that make them name their navigation.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NAVIGATION = {
    *("nav", "navbar", "navigation", "navheader", "navfooter", "docnav", "topnav", "bottomnav", "subnav"),
    *("breadcrumb", "breadcrumbs", "pagination", "pager", "skip", "skiplink", "navpath", "navtree", "navrow"),
    *("searchbox", "navpanel", "navbars", "navlinks", "navigationbar", "nosearch", "titlearea"),
}
_PERHAPS = {
    *("sidebar", "sphinxsidebar", "menu", "mainmenu", "submenu", "related", "header", "footer", "toolbar"),
    *("links", "banner", "search", "path", "crumbs", "prev", "previous", "next", "languages"),
    *("toplang", "bottomlang", "quickview", "share", "social", "tags", "topbar", "bottombar", "copyright"),
}
_NEXT_PAGE = {"next", "prev", "previous", "up", "first", "last", "start", "index", "contents"}
_SEPARATOR = re.compile("[-_]")
_MAX_FOOTER_LETTERS = 600
_MAX_LANGUAGES_LETTERS = 300
_MAX_AFTER_FOOTER = 3
"""How many elements may follow a footer."""
_MIN_MAIN_SHARE = 0.3
"""The share of the page's letters that its only `main` element must have to be its main part."""
_LINKED = 0.5
"""The share of an element's letters in links from which on it only leads elsewhere."""
_ALL_LINKED = 0.9
_MENU_LINKS = 5
"""Links of a menu without a name."""
_LINKED_PAGES = 0.3
"""The same where a link says that it leads to the next or the previous page: "Next: Sinks, Up: Top"."""


class PageText:
    """The visible letters of each element of a page, and how many of them are in links.

    Args:
        body: The page's body. Its hidden elements are removed from the tree.
    """

    def __init__(self, body: Any) -> None:
        for element in _outermost_hidden(body):
            element.drop_tree()
        self.body = body
        # Kept, because lxml makes a new object for an element that nobody holds, and these are keys.
        self.elements = [each for each in body.iter() if isinstance(each.tag, str)]
        self.letters = dict.fromkeys(self.elements, 0)
        self.linked = dict.fromkeys(self.elements, 0)
        for element in reversed(self.elements):  # children come before their parents
            own = self.letters[element] + _length(element.text)
            self.letters[element] = own
            if element.tag == "a":
                self.linked[element] = own
            if element is not body:
                parent = element.getparent()
                self.letters[parent] += own + _length(element.tail)
                if linked := self.linked[element]:
                    self.linked[parent] += linked

    def link_share(self, element: Any) -> float:
        """Returns the share of an element's letters that are in links; 0 without letters."""
        return self.linked[element] / self.letters[element] if self.letters[element] else 0.0


def _outermost_hidden(body: Any) -> list[Any]:
    """Returns the hidden elements below a body that are in no other one, and lets go of all others."""
    tags = " or ".join(f"self::{tag}" for tag in sorted(INVISIBLE_TAGS))
    candidates = body.xpath(f".//*[@hidden or @style or @class or {tags}]")
    hidden = {element for element in candidates if is_hidden(element)}
    return [each for each in candidates if each in hidden and hidden.isdisjoint(each.iterancestors())]


@dataclass(frozen=True, slots=True)
class MainPart:
    """The main part of a page.

    Attributes:
        element: The element that it is below, without navigation.
        visible_text: All text of the page that is not navigation by its tag, its role or its links.
    """

    element: Any
    visible_text: str


def main_part(body: Any) -> MainPart:
    """Removes navigation from a page's body and returns its main part: the body, or the `main` element.

    An element is navigation by its tag or role, by the words of its class and id, or because its links lead
    to the next and the previous page. The names only suggest it (a `sidebar` of DocBook is a box of text), so
    most of them count only where half of the letters are links. Nothing is removed that has the page's title,
    or more than half of the text of which most is not in links. If nothing would be left, all is returned.

    Args:
        body: The body element. It is changed.
    """
    navigation, main = _divided(PageText(body))
    # Only now: lxml takes quadratic time to free the objects of elements that are no longer in a tree.
    for element in navigation:
        element.drop_tree()
    return main


def _divided(page: PageText) -> tuple[list[Any], MainPart]:
    """Returns the outermost elements of a page that are navigation, and its main part."""
    body = page.body
    titles = [
        title
        for title in list(body.iter("h1")) or body.xpath("(.//*[@class='title'])[1]")
        if page.letters[title] and not _in_navigation(title)
    ]
    titled = {above for title in titles for above in (title, *title.iterancestors())}
    before_title = bool(titles)
    half = page.letters[body] / 2
    gone: dict[Any, bool] = {}  # whether it counts as visible: it is gone by its name alone
    outermost: list[Any] = []
    for element in page.elements[1:]:
        if gone and (parent := element.getparent()) in gone:
            gone[element] = gone[parent]
            continue
        if element in titled:
            before_title = before_title and element is not titles[0]
            continue
        if not (element.attrib or page.linked[element] or element.tag in _BY_TAG):
            continue
        share = page.link_share(element)
        if (page.letters[element] <= half or share >= _LINKED) and (
            _is_navigation(element, page) or (before_title and _is_menu(element, share))
        ):
            gone[element] = page.letters[element] > _MAX_FOOTER_LETTERS and share < _LINKED
            outermost.append(element)
    left = page.letters[body] - sum(page.letters[element] for element in outermost)
    if not left:
        return [], MainPart(body, _visible_text(page))
    named = [
        each
        for each in body.xpath(".//main | .//*[@role='main']")
        if each not in gone and not any(above.tag == "main" for above in each.iterancestors())
    ]
    main = named[0] if len(named) == 1 and page.letters[named[0]] >= left * _MIN_MAIN_SHARE else body
    return outermost, MainPart(
        main, _visible_text(page, {each for each, visible in gone.items() if not visible})
    )


def _visible_text(page: PageText, without: Collection[Any] = ()) -> str:
    """Returns the words of a page but for those of some elements; their order does not matter."""
    texts: list[str] = []
    for element in page.elements:
        if element.text and element not in without:
            texts.append(element.text)
        if element.tail and element is not page.body and not (without and element.getparent() in without):
            texts.append(element.tail)
    return " ".join(texts)


def _is_navigation(element: Any, page: PageText) -> bool:
    tag, share = element.tag, page.link_share(element)
    if tag in ("nav", "search") or element.get("role") in _ROLES:
        return True
    if tag in _AROUND:
        return share >= _LINKED or not _in_main(element)
    if tag not in _BLOCKS:
        return False
    names = f"{element.get('class', '')} {element.get('id', '')}".strip()
    words = {word.lower() for word in _WORD.findall(names)} if names else set()
    words |= {_SEPARATOR.sub("", name).lower() for name in names.split()}
    suggested = words & _NAVIGATION or (
        words & _PERHAPS and (share >= _LINKED or ("footer" in words and _is_last(element, page)))
    )
    if suggested and not _is_section(element, share):
        return True
    if not page.linked[element] or page.letters[element] > _MAX_FOOTER_LETTERS:
        return False
    links = list(element.iter("a"))
    # Of the list of a page's languages, the present one is no link.
    languages = sum("hreflang" in link.attrib for link in links)
    return (share >= _LINKED_PAGES and any(map(_turns_page, links))) or (
        languages > 1 and page.letters[element] < _MAX_LANGUAGES_LETTERS
    )


def _is_menu(element: Any, share: float) -> bool:
    """Whether an element that stands before the page's title is a list of links."""
    if share < _ALL_LINKED or element.tag not in _BLOCKS:
        return False
    return sum(1 for _ in islice(element.iter("a"), _MENU_LINKS)) == _MENU_LINKS


def _is_section(element: Any, share: float) -> bool:
    """Whether an element is a section of the text, which can have a heading like "Navigation" and that id."""
    titled = next(element.iter("h1", "h2", "h3", "h4", "h5", "h6"), None) is not None
    return titled and (share < _LINKED or _in_main(element))


def _is_last(element: Any, page: PageText) -> bool:
    after = list(islice(element.itersiblings(), _MAX_AFTER_FOOTER + 1))
    return page.letters[element] <= _MAX_FOOTER_LETTERS and len(after) <= _MAX_AFTER_FOOTER


def _turns_page(link: Any) -> bool:
    relations = set(link.get("rel", "").lower().split())
    return bool(relations & _NEXT_PAGE) or link.get("accesskey") in ("n", "p", "u")


def _in_main(element: Any) -> bool:
    return any(
        above.tag in ("main", "article", "section", "blockquote") or above.get("role") == "main"
        for above in element.iterancestors()
    )


def _in_navigation(element: Any) -> bool:
    return any(above.tag == "nav" or above.get("role") == "navigation" for above in element.iterancestors())


def _length(text: str | None) -> int:
    return len(text.strip()) if text else 0
