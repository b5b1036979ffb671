"""`bench html`: precision and recall of main-text extraction from web pages, compared between readers."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import justext  # type: ignore[import-untyped]
import numpy as np
from lxml import html  # type: ignore[import-untyped]

from assets.parsing.blocks import ExtractionError
from assets.parsing.extract import extract_document
from orchestration.bench.report import BenchResult

_WORD = re.compile(r"\w+")
_GRAM = 4
_FEWEST_WORDS = 60
_UNSEEN = "descendant::script | descendant::style | descendant::noscript | descendant::template"
_MAIN = "//main | //*[@role='main']"


class NoBenchHtmlPages(ValueError):
    """The folder has no HTML page with a marked main part."""


def bench_html(data: Path, pages: int = 200) -> BenchResult:
    """Compares the text that each reader extracts with the page's marked main part, by 4-grams of words.

    Each page is read twice: unchanged, and without the marks of its structure (structural tags become `div`;
    ids, classes and roles are removed), as in older pages.

    Args:
        data: A folder with HTML files at any depth.
        pages: How many pages to read, drawn with a fixed seed.

    Returns:
        For each reader the mean F1, precision and recall over the pages, and the number of pages with an F1
        below 0.5.

    Raises:
        NoBenchHtmlPages: No page in the folder has one `main` of sixty words or more.
    """
    readers: dict[str, Callable[[bytes], str]] = {
        "headwater": _ours, "justext": _by_justext, "all_text": lambda body: _text(html.fromstring(body)),
    }  # fmt: skip
    found: dict[str, list[tuple[float, float, float]]] = {}
    count = 0
    for gold, body in _gold(data):
        count += 1
        for form, given in (("", body), ("unnamed_", _unnamed(body))):
            for name, read in readers.items():
                found.setdefault(f"{form}{name}", []).append(_overlap(read(given), gold))
        if count == pages:
            break
    if not count:
        raise NoBenchHtmlPages(f"no HTML file below {data} has one <main> of {_FEWEST_WORDS} words or more")
    figures = {"pages": float(count)}
    for name, values in found.items():
        means = np.mean(values, axis=0)
        figures |= {
            f"{name}_{of}": float(mean) for of, mean in zip(("f1", "precision", "recall"), means, strict=True)
        }
        figures[f"{name}_below_half"] = float(sum(f1 < 0.5 for f1, _, _ in values))
    return BenchResult("html", figures, {})


def _gold(data: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the text of the main part, and the page."""
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".html", ".htm", ".xhtml"))
    for place in np.random.default_rng(0).permutation(len(files)):
        body = files[place].read_bytes()
        named = html.fromstring(body).xpath(_MAIN) if body.strip() else []
        if len(named) == 1 and len(_WORD.findall(text := _text(named[0]))) >= _FEWEST_WORDS:
            yield text, body


def _text(element: Any) -> str:
    for unseen in element.xpath(_UNSEEN):
        unseen.drop_tree()
    return " ".join(element.itertext())


def _unnamed(body: bytes) -> bytes:
    root = html.fromstring(body)
    for element in root.iter():
        if isinstance(element.tag, str):
            for name in ("id", "class", "role"):
                element.attrib.pop(name, None)
            if element.tag in ("main", "article", "section", "nav", "header", "footer", "aside"):
                element.tag = "div"
    return bytes(html.tostring(root, encoding="utf-8"))


def _ours(body: bytes) -> str:
    try:
        return extract_document(body, "text/html").text
    except ExtractionError:
        return ""


def _by_justext(body: bytes) -> str:
    paragraphs = justext.justext(body, justext.get_stoplist("English"))
    return " ".join(each.text for each in paragraphs if not each.is_boilerplate)


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return Counter(zip(*(words[at:] for at in range(_GRAM)), strict=False))


def _overlap(text: str, gold: str) -> tuple[float, float, float]:
    """Returns F1, precision and recall of the 4-grams of a text, counted with multiplicity."""
    ours, theirs = _grams(text), _grams(gold)
    shared = (ours & theirs).total()
    if not shared:
        return 0.0, 0.0, 0.0
    precision, recall = shared / ours.total(), shared / theirs.total()
    return 2 * precision * recall / (precision + recall), precision, recall
