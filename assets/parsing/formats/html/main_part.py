"""Finds the main part of a page: it removes navigation, search, headers and footers of the site."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote

from assets.parsing.formats.html.blocks import (
    INVISIBLE_TAGS,
    UNSEEN_IN_DRAWINGS,
    is_drawn_separator,
    is_hidden,
)

_ROLES = {"navigation", "contentinfo", "search", "menu", "menubar", "toolbar"}
_AROUND = {"header", "footer", "aside", "form"}
_ROLES_AROUND = {"banner", "complementary"}
_BY_TAG = _AROUND | {"nav", "search"}
_BLOCKS = {"div", "p", "ul", "ol", "dl", "table", "tr", "td", "section", "center", "span", "li"}
_INLINE = {
    *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "dfn", "em", "font", "i", "ins"),
    *("kbd", "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "tt", "u", "var"),
    "wbr",
}
"""Elements between whose text and that around them is no space."""
# Words of the classes and ids by which pages and the programs that make them name their navigation.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PLAIN_NAME = re.compile(r"[\w-]+")  # others name what is documented there, such as "skip(long)"
_NAVIGATION = {
    *("nav", "navbar", "navigation", "navheader", "navfooter", "docnav", "topnav", "bottomnav", "subnav"),
    *("breadcrumb", "breadcrumbs", "pagination", "pager", "skiplink", "navpath", "navtree", "navrow"),
    *("tocframe",),
    *("searchbox", "navpanel", "navbars", "navlinks", "navigationbar", "nosearch", "titlearea"),
}
_PERHAPS = {
    *("sidebar", "sphinxsidebar", "menu", "mainmenu", "submenu", "related", "header", "footer", "toolbar"),
    *("links", "skip", "banner", "search", "path", "crumbs", "prev", "previous", "next", "languages"),
    *("toplang", "bottomlang", "quickview", "share", "social", "tags", "topbar", "bottombar", "copyright"),
}
_NEXT_PAGE = {"next", "prev", "previous", "up", "first", "last", "start", "index", "contents"}
_PAGE_TURNING = re.compile(
    r"(?:go to )?(?:the )?(?:next|previous|prev|up|top|home|contents|index|bottom|back)"
    r"(?: (?:page|chapter|section|topic|up|to|of|the|top|contents|page|book|index))*"
    r"|(?:table of )?contents|(?:main |general )?index|start of (?:page|document)|",
)
"""The whole text of a link that turns pages, in small letters and without signs."""
_NO_LETTERS = re.compile(r"[\W_]+")
_CONTENTS = {"toc", "contents", "tableofcontents"}
_SEPARATOR = re.compile("[-_]")
_NOTICE = re.compile(
    r"copyright|\(c\)|©|rights reserved|licen[cs]e|last (?:updated|modified|change)"
    r"|(?:created|generated|produced|made|built|powered) (?:with|by|using|on|:)|generated:",
    re.IGNORECASE,
)
"""What the notice at the end of a page says of it: whose it is, and when and with what it was made."""
_MAX_FOOTER_LETTERS = 600
_MAX_AFTER_FOOTER = 3
"""How many elements may follow a footer."""
_MAX_LABEL_LETTERS = 120
"""Letters beside its links that navigation may have: the names of this page, of the site and of a field."""
_MAX_LABELS_LETTERS = 2 * _MAX_LABEL_LETTERS
"""The same in all such elements of a page, above and below its text, from which on they are missed."""
_MAX_LANGUAGES_LETTERS = 300
_MIN_MAIN_SHARE = 0.3
"""The share of the page's letters that its only `main` element must have to be its main part."""
_LINKED = 0.5
"""The share of an element's letters in links from which on it only leads elsewhere."""
_ALL_LINKED = 0.9
_MENU_LINKS = 5
"""Links of a menu without a name."""
_MIN_TARGETS_FOUND = 0.8
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
        self.anchors = {name for each in self.elements for name in (each.get("id"), each.get("name")) if name}
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
    tags = " or ".join(f"self::{tag}" for tag in sorted(INVISIBLE_TAGS | UNSEEN_IN_DRAWINGS))
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
        for title in list(body.iter("h1")) or body.xpath("(.//*[@class='title' or self::h2 or self::h3])[1]")
        if page.letters[title] and not _in_navigation(title, page)
    ]
    titled = {above for title in titles for above in (title, *title.iterancestors())}
    before_title = bool(titles)
    half = page.letters[body] / 2
    mains = body.xpath(".//main | .//*[@role='main']")
    around_main = {above for main in mains for above in main.iterancestors()}
    has_main = any(page.letters[main] for main in mains)
    gone: dict[Any, Any] = {}  # with the outermost element that it went with
    said: set[str] = set()  # what stands above the text often stands below it again
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
        # A page may have less to say than the notice below it, which a main part sets apart.
        small = page.letters[element] <= half or (
            has_main and element not in around_main and _is_declared(element) and not _in_main(element)
        )
        if (small or share >= _LINKED) and (
            _is_navigation(element, page)
            or (before_title and _is_menu(element, share))
            or (share >= _LINKED and element.tag in _BLOCKS and said and _letters_of(element) in said)
        ):
            said.add(_letters_of(element))
            gone[element] = element
            outermost.append(element)
    left = page.letters[body] - sum(page.letters[element] for element in outermost)
    if not left:
        return [], MainPart(body, _visible_text(page))
    named = [
        each
        for each in mains
        if each not in gone and not any(above.tag == "main" for above in each.iterancestors())
    ]
    main = named[0] if len(named) == 1 and page.letters[named[0]] >= left * _MIN_MAIN_SHARE else body
    labels = {
        each
        for each in outermost
        if page.link_share(each) < _LINKED
        and not (_is_declared(each) or _is_notice(each, page) or _turns_pages(each, page))
    }
    if sum(page.letters[each] - page.linked[each] for each in labels) <= _MAX_LABELS_LETTERS:
        labels = set()
    return outermost, MainPart(
        main, _visible_text(page, {each for each, above in gone.items() if above not in labels})
    )


def _visible_text(page: PageText, without: Collection[Any] = ()) -> str:
    """Returns the text of a page but for that of some elements, in one line."""
    texts: list[str] = []
    waiting = [(page.body, False)]
    while waiting:
        element, left = waiting.pop()
        if left or element in without:
            texts += (_space(element), element.tail or "")
            continue
        texts += (_space(element), element.text or "")
        waiting.append((element, True))
        waiting += ((child, False) for child in reversed(element) if isinstance(child.tag, str))
    return "".join(texts)


def _space(element: Any) -> str:
    return "" if element.tag in _INLINE and not is_drawn_separator(element) else " "


def _is_navigation(element: Any, page: PageText) -> bool:
    tag, share = element.tag, page.link_share(element)
    if tag in ("nav", "search") or element.get("role") in _ROLES:
        return True
    if tag == "footer" and not _in_main(element):
        return True
    if tag in _AROUND or element.get("role") in _ROLES_AROUND:
        return share >= _LINKED or (not _in_main(element) and _is_labels(element, page))
    if tag not in _BLOCKS and tag != "details":
        return False
    anchor = element.get("id", "")
    names = f"{element.get('class', '')} {anchor if _PLAIN_NAME.fullmatch(anchor) else ''}".strip()
    words = {word.lower() for word in _WORD.findall(names)} if names else set()
    words |= {_SEPARATOR.sub("", name).lower() for name in names.split()}
    if tag == "table":
        words.discard("menu")  # of Texinfo: the sections of a chapter
    if words & _CONTENTS and share >= _LINKED and _leads_down_the_page(element, page):
        return True
    if tag not in _BLOCKS:
        return False
    suggested = (
        (words & (_NAVIGATION | _PERHAPS) and share >= _LINKED)
        or (words & _NAVIGATION and _is_labels(element, page))
        or (words & {"footer", "copyright"} and _is_notice(element, page))
    )
    if suggested and not _is_section(element, share):
        return True
    return _turns_pages(element, page)


def _is_labels(element: Any, page: PageText) -> bool:
    """Whether an element has links, or fields, and beside them no more than labels."""
    beside = page.letters[element] - page.linked[element]
    return beside <= _MAX_LABEL_LETTERS and (
        element.tag == "form"
        or page.linked[element] > 0
        or any("href" in link.attrib for link in element.iter("a"))
    )


def _is_notice(element: Any, page: PageText) -> bool:
    """Whether an element is near the end of the one around it and says what a page's notice says."""
    if page.letters[element] > _MAX_FOOTER_LETTERS or not _NOTICE.search("".join(element.itertext())):
        return False
    return len(list(islice(element.itersiblings(), _MAX_AFTER_FOOTER + 1))) <= _MAX_AFTER_FOOTER


def _turns_pages(element: Any, page: PageText) -> bool:
    """Whether an element leads to the next and the previous page, or to this one in other languages."""
    share = page.link_share(element)
    if element.tag not in _BLOCKS or not page.linked[element] or page.letters[element] > _MAX_FOOTER_LETTERS:
        return False
    links = list(element.iter("a"))
    if share >= _LINKED and all(_PAGE_TURNING.fullmatch(_link_text(link)) for link in links):
        return True
    # Of the list of a page's languages, the present one is no link.
    languages = sum("hreflang" in link.attrib for link in links)
    return (share >= _LINKED_PAGES and any(map(_turns_page, links))) or (
        languages > 1 and page.letters[element] < _MAX_LANGUAGES_LETTERS
    )


def _is_declared(element: Any) -> bool:
    """Whether a page says by tag or role that an element which was found to be navigation is around its text.

    The footer of a page is so declared however long its legal notice is; a class or id only suggests it.
    """
    return element.tag in ("nav", "search", "footer") or element.get("role") in _ROLES


def _is_menu(element: Any, share: float) -> bool:
    """Whether an element that stands before the page's title is a list of links."""
    if share < _ALL_LINKED or element.tag not in _BLOCKS:
        return False
    return sum(1 for _ in islice(element.iter("a"), _MENU_LINKS)) == _MENU_LINKS


def _is_section(element: Any, share: float) -> bool:
    """Whether an element is a section of the text, which can have a heading like "Navigation" and that id."""
    titled = next(element.iter("h1", "h2", "h3", "h4", "h5", "h6"), None) is not None
    return titled and (share < _LINKED or _in_main(element))


def _leads_down_the_page(element: Any, page: PageText) -> bool:
    """Whether the links in a table of contents lead to places of its own page, whose headings repeat it."""
    targets = [link.get("href", "").rpartition("#")[2] for link in element.iter("a")]
    found = sum(unquote(target) in page.anchors for target in targets)
    return found > _MIN_TARGETS_FOUND * len(targets)


def _link_text(link: Any) -> str:
    pictures = " ".join(picture.get("alt", "") for picture in link.iter("img"))
    return _NO_LETTERS.sub(" ", f"{''.join(link.itertext())} {pictures}").strip().lower()


def _letters_of(element: Any) -> str:
    return _NO_LETTERS.sub("", "".join(element.itertext()))


def _turns_page(link: Any) -> bool:
    relations = set(link.get("rel", "").lower().split())
    return bool(relations & _NEXT_PAGE) or link.get("accesskey") in ("n", "p", "u")


def _in_main(element: Any) -> bool:
    return any(
        above.tag in ("main", "article", "section", "blockquote") or above.get("role") == "main"
        for above in element.iterancestors()
    )


def _in_navigation(element: Any, page: PageText) -> bool:
    """Whether a heading is in navigation: by tag or role, or in a list of links with the name of the site."""
    return any(
        above.tag == "nav"
        or above.get("role") == "navigation"
        or (above is not page.body and above in page.letters and _is_menu(above, page.link_share(above)))
        for above in element.iterancestors()
    )


def _length(text: str | None) -> int:
    return len(text.strip()) if text else 0
