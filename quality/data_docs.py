"""Data Docs: Great Expectations' page of one validation, as one file that works where nothing else is there.

The page that Great Expectations renders takes its looks, its pictures of a result and its scripts from six
hosts on the internet, and links to pages of a site that is not made here. What is left is its content, with
looks of its own, results in words, and links within the page.
"""

from pathlib import Path

from lxml import html  # type: ignore[import-untyped]

_GONE = (
    "//script | //style | //link | //meta[@http-equiv] | //footer | //button | //img | //iframe"
    " | //input | //label | //*[contains(concat(' ', @class, ' '), ' modal ')]"
    " | //nav[contains(@class, 'navbar-expand-md')] | //div[strong[.='Actions']]/parent::div"
    # How the rows were handed over, which says nothing about them.
    " | //a[@data-toggle='collapse'] | //div[contains(concat(' ', @class, ' '), ' collapse ')]"
)
"""What is of no use in a page that runs nothing and loads nothing, as XPath."""
_RESULTS = {"text-success": "✓ met", "text-danger": "✗ not met", "text-warning": "! not evaluated"}
"""What Great Expectations draws by a font of pictures, by the class of the picture."""
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #0a7d33; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --good: #5bc98a; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
body > .container-fluid > .row { display: flex; gap: 2rem; max-width: 90rem; margin: 0 auto; padding: 1rem; }
.col-lg-2 { flex: 0 0 16rem; } .col-lg-10 { flex: 1; min-width: 0; }
.sticky { position: sticky; top: 1rem; max-height: 90vh; overflow: auto; }
nav ul { list-style: none; margin: 0; padding: 0; } nav a { display: block; padding: .1rem 0; }
nav a:not(:hover) { text-decoration: none; } h4 { font-size: 1.4rem; margin: 0; }
h5 { font-size: 1.05rem; margin: 1.2rem 0 0; } h6, .h6 { font-size: 1rem; margin: .6rem 0 0; }
.h6 { font-weight: 600; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 1rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
td:first-child { white-space: nowrap; } td { overflow-wrap: anywhere; }
.text-success { color: var(--good); } .text-danger, .text-warning { color: var(--bad); font-weight: 600; }
@media (max-width: 50rem) { body > .container-fluid > .row { display: block; } .sticky { position: static; } }
"""


def data_docs_page(docs_dir: Path, table: str, user_suite: str | None = None) -> Path:
    """Returns the path of a table's Data Docs page, of its own suite or of one that a user added."""
    return docs_dir / table / (f"suite_{user_suite}.html" if user_suite else "index.html")


def write_data_docs(page: Path, outcome: object) -> None:
    """Writes the Data Docs page of a validation from Great Expectations' result."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    rendered = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(outcome))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(self_contained_page(rendered), encoding="utf-8")


def self_contained_page(rendered: str) -> str:
    """Returns a page of Great Expectations without what it loads or runs, and without links to nowhere.

    Args:
        rendered: The page as HTML.
    """
    document = html.document_fromstring(rendered.replace("Data asset: None<br>", ""))
    for element in document.xpath(_GONE):
        element.drop_tree()
    for picture in document.xpath("//i"):
        names = set(picture.get("class", "").split())
        picture.tag = "span"
        said = next((said for name, said in _RESULTS.items() if name in names), "")
        # The result of all stands beside its picture in words.
        picture.text = said[:1] if (picture.tail or "").strip() else said
    for element in document.xpath("//*[@style]"):
        del element.attrib["style"]
    ids = {f"#{name}" for name in document.xpath("//@id")}
    for link in document.xpath("//a"):
        if link.get("href") not in ids:
            link.drop_tag()
    [head] = document.xpath("//head")
    style = html.Element("style")
    style.text = _STYLE
    head.append(style)
    return html.tostring(document, doctype="<!DOCTYPE html>", encoding="unicode")
