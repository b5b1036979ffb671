"""Data Docs: Great Expectations' page of one validation, as one file that loads nothing from other hosts."""

import re
from pathlib import Path

# Data Docs load their looks and scripts from six hosts on the internet: a page of ours calls nobody.
_REMOTE = re.compile(
    r"<script\b[^>]*\bsrc=[^>]*>\s*</script>|<link\b[^>]*>"
    r"|<img\b[^>]*\bsrc=[\"']https?:[^>]*>|<footer\b.*?</footer>|background:[^;}]*url\([\"']?https?:[^)]*\)[^;}]*;?",
    re.DOTALL | re.IGNORECASE,
)
_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 1rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 1rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top; }
nav, .sticky, .modal, #ge-cta-footer, button { display: none; }
.text-success { color: #0a7d33; } .text-danger { color: #b3261e; }
</style>
</head>"""


def data_docs_page(docs_dir: Path, table: str, user_suite: str | None = None) -> Path:
    """Returns the path of a table's Data Docs page, of its own suite or of one that a user added."""
    return docs_dir / table / (f"suite_{user_suite}.html" if user_suite else "index.html")


def write_data_docs(page: Path, outcome: object) -> None:
    """Writes the Data Docs page of a validation from Great Expectations' result."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    html = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(outcome))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_REMOTE.sub("", html).replace("</head>", _STYLE, 1), encoding="utf-8")
