"""Tells HTML from XML and from other text by how it begins.

It follows the patterns of the WHATWG's MIME Sniffing Standard (section 7.1, "Identifying a resource with an
unknown MIME type": https://mimesniff.spec.whatwg.org), and looks past a prolog and comments to the root
element, which the standard does not.
"""

import re

# The standard's patterns that begin documents, and those that often begin a line of Markdown as well.
_HTML_DOCUMENT = re.compile(rb"<!DOCTYPE\s+HTML[\s>]|<(?:HTML|HEAD|BODY|TITLE)[\s>]", re.IGNORECASE)
_HTML_FRAGMENT = re.compile(
    rb"<(?:SCRIPT|IFRAME|H[1-6]|DIV|FONT|TABLE|A|STYLE|B|BR|P"
    # Not in the standard, which is of 1995's pages.
    rb"|ARTICLE|SECTION|MAIN|NAV|HEADER|FOOTER|ASIDE|UL|OL|DL|PRE|SPAN|BLOCKQUOTE|CENTER|HR|IMG|FORM|META|LINK"
    rb"|NOSCRIPT|FIGURE|DETAILS|STRONG|EM|I|CODE|FRAMESET)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_PROLOG = re.compile(rb"(?:\s+|\xef\xbb\xbf|<\?[^>]*\?>|<!--.*?-->)*", re.DOTALL)
_DOCTYPE = re.compile(rb"<!DOCTYPE\s+([\w:.-]+)(?:[^>\[]|\[[^\]]*\])*>\s*", re.IGNORECASE)
_ROOT = re.compile(rb"<([A-Za-z_][\w.-]*)(?::([\w.-]+))?([^<>]*)>")
_XML_DECLARATION = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<\?xml[\s?]")
_XHTML_NAMESPACE = b"http://www.w3.org/1999/xhtml"

HTML, SVG, XML = "text/html", "image/svg+xml", "application/xml"


def markup_media_type(sample: bytes, is_fragment_html: bool) -> str | None:
    """Returns the media type of HTML, SVG or XML; None for any other text.

    Args:
        sample: The beginning and the end of a text in UTF-8.
        is_fragment_html: Whether a text that begins with an element such as `<p>` counts as HTML. Markdown
            can begin so too.
    """
    start = _after_prolog(sample)
    if _HTML_DOCUMENT.match(sample, start):
        return HTML
    doctype = _DOCTYPE.match(sample, start)
    if doctype:
        start = _after_prolog(sample, doctype.end())
    root = _ROOT.match(sample, start)
    if root is None:
        return XML if _XML_DECLARATION.match(sample) or doctype else None
    prefix, local, attributes = root.group(1), root.group(2), root.group(3)
    name = (local or prefix).lower()
    if name == b"html":
        return HTML
    if name == b"svg":
        return SVG
    if _XML_DECLARATION.match(sample) or doctype or local:
        return XML
    if b"xmlns" in attributes:
        return HTML if _XHTML_NAMESPACE in attributes else XML
    if _HTML_FRAGMENT.match(sample, start):
        return HTML if is_fragment_html else None
    # An element that the whole text is inside of, or an empty one.
    closed = rb"</%s\s*>\s*(?:<!--.*?-->\s*)*\Z" % re.escape(prefix)
    if re.search(closed, sample[-4096:], re.DOTALL) or attributes.endswith(b"/"):
        return XML
    return None


def is_html_fragment(sample: bytes) -> bool:
    """Returns whether a text begins with an element of HTML, and ends with a tag or a comment."""
    return sample.rstrip().endswith(b">") and bool(_HTML_FRAGMENT.match(sample, _after_prolog(sample)))


def _after_prolog(sample: bytes, start: int = 0) -> int:
    """Returns where the prolog ends: white space, a byte order mark, declarations and comments."""
    found = _PROLOG.match(sample, start)
    return found.end() if found else start
