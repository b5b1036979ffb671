"""`bench html`: how much of web pages arrives, beside trafilatura, and what coverage tells of it."""

import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lxml import html  # type: ignore[import-untyped]

from assets.parsing.blocks import DocumentBlocks, ExtractionError, assemble_blocks
from assets.parsing.formats.html.page import read_html
from orchestration.bench.report import BenchResult
from quality.suites import LOW_TEXT_COVERAGE

_WORD = re.compile(r"\w+")
_GRAM = 4
_FEWEST_WORDS = 60
_LOST_SHARE = 0.2
_FILES_PER_PAGE = 20
"""How many files are looked at for each page that is wanted of a maker."""
_UNSEEN = ("script", "style", "noscript", "template", "svg", "select", "button", "textarea", "iframe")
_PERMALINKS = ".//a[contains(@class, 'headerlink') or contains(@class, 'copiable')]"


@dataclass(frozen=True, slots=True)
class _Maker:
    """A program that makes documentation.

    Attributes:
        mark: An XPath that finds something on its pages only.
        main: The XPath of the main content below the body; None for the whole body.
        navigation: The XPath of navigation inside of it.
    """

    mark: str
    main: str | None
    navigation: str | None = None


def _of_class(*names: str) -> str:
    conditions = " or ".join(f"@class='{name}'" for name in names)
    return f".//*[{conditions}]"


_MAKERS = {
    "rustdoc": _Maker("//meta[@name='generator' and @content='rustdoc']", ".//main", ".//nav"),
    "javadoc": _Maker(
        "//link[contains(@href, 'stylesheet.css') and @title='Style']",
        None,
        f"{_of_class('topNav', 'bottomNav', 'subNav', 'legalCopy')} | .//nav | .//footer",
    ),
    "sphinx": _Maker("//div[@class='sphinxsidebarwrapper']", ".//div[@role='main']"),
    "publican": _Maker(
        "//ul[@class='docnav']", None, f".//*[@id='title' or @id='banner'] | {_of_class('docnav')}"
    ),
    "docbook": _Maker("//div[@class='navheader']", None, _of_class("navheader", "navfooter")),
    "gtk-doc": _Maker("//table[@class='navigation']", None, _of_class("navigation", "footer")),
    "texinfo": _Maker("//meta[@content='makeinfo']", None, _of_class("header", "nav-panel")),
    "sqlite": _Maker("//div[@class='nosearch']", None, _of_class("nosearch")),
    "doxygen": _Maker(
        "//div[@id='doc-content']",
        ".//div[@id='doc-content']",
        f"{_of_class('summary')} | .//*[@id='nav-path']",
    ),
    "main": _Maker("//main | //*[@role='main']", ".//main | .//*[@role='main']", ".//nav"),
}
"""By name. The first whose mark a page has is its maker; `main` is any other page with a named main part."""


class NoBenchHtmlPages(ValueError):
    """The folder has no page whose main content is known."""


def bench_html(data: Path, pages: int = 200) -> BenchResult:
    """Compares the text that our reader and trafilatura extract with the main content of pages.

    The main content of an article is its text by hand, where the folder has the layout of Scrapinghub's
    article-extraction-benchmark. That of documentation is what its maker's pages hold besides navigation, for
    the makers that are known here.

    Coverage is measured on the same pages: how many complete ones it flags, and how many of them after a
    fifth of the words in their blocks was taken away.

    Args:
        data: A folder with HTML files at any depth, or in the layout of the benchmark.
        pages: How many pages of documentation of each maker to read, drawn with a fixed seed.

    Returns:
        For articles the F1 of the means over pages of the precision and recall of 4-grams of words; for
        documentation the share of the main content's words that are kept, and the share of the extracted
        words that are navigation; pages per second; the shares of pages that coverage flags.

    Raises:
        NoBenchHtmlPages: No page in the folder has main content that is known.
    """
    figures: dict[str, float] = {}
    readers = {"headwater": _by_headwater, "trafilatura": _by_trafilatura}
    bodies: list[bytes] = []
    if (data / "ground-truth.json").is_file():
        gold = dict(_articles(data))
        bodies += gold
        figures["articles"] = len(gold)
        for name, read in readers.items():
            texts, figures[f"articles_{name}_pages_per_s"] = _timed(read, list(gold))
            scores = [_overlap(_grams(a), _grams(b)) for a, b in zip(texts, gold.values(), strict=True)]
            precision, recall = np.mean(scores, axis=0).tolist()
            figures[f"articles_{name}_precision"], figures[f"articles_{name}_recall"] = precision, recall
            figures[f"articles_{name}_f1"] = 2 * precision * recall / (precision + recall)
    else:
        for maker, found in _documentation(data, pages).items():
            bodies += [body for body, _, _ in found]
            figures[f"{maker}_pages"] = len(found)
            for name, read in readers.items():
                texts, figures[f"{maker}_{name}_pages_per_s"] = _timed(read, [body for body, _, _ in found])
                shares = [
                    _shares(Counter(_WORD.findall(text)), main, around)
                    for text, (_, main, around) in zip(texts, found, strict=True)
                ]
                kept, navigation = np.mean(shares, axis=0).tolist()
                figures[f"{maker}_{name}_words_kept"] = kept
                figures[f"{maker}_{name}_navigation"] = navigation
    if not bodies:
        raise NoBenchHtmlPages(f"no HTML file below {data} has main content that is known")
    return BenchResult("html", figures | _coverage(bodies), {})


def _articles(data: Path) -> Iterator[tuple[bytes, str]]:
    for name, article in sorted(json.loads((data / "ground-truth.json").read_text()).items()):
        yield gzip.decompress((data / "html" / f"{name}.html.gz").read_bytes()), article["articleBody"]


def _documentation(data: Path, pages: int) -> dict[str, list[tuple[bytes, Counter[str], Counter[str]]]]:
    """Returns pages by maker, each with the words of its main content and all of its other words."""
    found: dict[str, list[tuple[bytes, Counter[str], Counter[str]]]] = {}
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".html", ".htm", ".xhtml"))
    for place in np.random.default_rng(0).permutation(len(files))[: pages * _FILES_PER_PAGE]:
        if not files[place].is_file() or not (body := files[place].read_bytes()).strip():
            continue
        root = html.document_fromstring(body, parser=html.HTMLParser(encoding="utf-8", huge_tree=True))
        maker = next((name for name, each in _MAKERS.items() if root.xpath(each.mark)), None)
        if maker is None or len(found.setdefault(maker, [])) >= pages or root.find("body") is None:
            continue
        main, around = _gold(root.find("body"), _MAKERS[maker])
        if main.total() >= _FEWEST_WORDS:
            found[maker].append((body, main, around))
    return {maker: found[maker] for maker in _MAKERS if found.get(maker)}


def _gold(body: Any, maker: _Maker) -> tuple[Counter[str], Counter[str]]:
    for unseen in [*body.iter(*_UNSEEN), *body.xpath(f"{_PERMALINKS} | .//*[@hidden]")]:
        if unseen.getparent() is not None:
            unseen.drop_tree()
    everything = Counter(_WORD.findall(" ".join(body.itertext())))
    for navigation in body.xpath(maker.navigation) if maker.navigation else []:
        if navigation.getparent() is not None:
            navigation.drop_tree()
    parts = body.xpath(maker.main) if maker.main else [body]
    main = Counter(word for part in parts for word in _WORD.findall(" ".join(part.itertext())))
    return main, everything - main


def _shares(words: Counter[str], main: Counter[str], around: Counter[str]) -> tuple[float, float]:
    """Returns the share of the main content's words that are kept, and of navigation in what is kept."""
    return (main & words).total() / main.total(), ((words - main) & around).total() / max(1, words.total())


def _timed(read: Callable[[bytes], str], bodies: list[bytes]) -> tuple[list[str], float]:
    """Returns the text of each page, and pages per second of processor time."""
    began = time.process_time()
    texts = [read(body) for body in bodies]
    return texts, len(bodies) / (time.process_time() - began)


def _assembled(content: DocumentBlocks) -> tuple[str, float | None]:
    try:
        found = assemble_blocks(content)
    except ExtractionError:
        return "", 0.0
    return found.text, found.text_coverage


def _by_headwater(body: bytes) -> str:
    return _assembled(read_html(body))[0]


def _by_trafilatura(body: bytes) -> str:
    from trafilatura import extract

    return extract(body) or ""


def _coverage(bodies: list[bytes]) -> dict[str, float]:
    """Returns how many pages coverage flags when complete, and after a fifth of their words was lost."""
    chosen = np.random.default_rng(0)
    complete: list[float] = []
    lost: list[float] = []
    for body in bodies:
        content = read_html(body)
        _, coverage = _assembled(content)
        if coverage is None:
            continue
        complete.append(coverage)
        words = [len(_WORD.findall(block.text)) for block in content.blocks]
        kept = dict(enumerate(content.blocks))
        missing = 0
        for place in chosen.permutation(len(words)):
            if missing >= _LOST_SHARE * sum(words):
                break
            missing += words[place]
            del kept[place]
        lost.append(_assembled(replace(content, blocks=list(kept.values())))[1] or 0.0)
    return {
        "coverage_pages": len(complete),
        "coverage_of_complete_mean": float(np.mean(complete)),
        "coverage_flags_of_complete": float(np.mean(np.array(complete) < LOW_TEXT_COVERAGE)),
        "coverage_flags_of_lost_fifth": float(np.mean(np.array(lost) < LOW_TEXT_COVERAGE)),
    }


def _grams(text: str) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text)
    return Counter(zip(*(words[at:] for at in range(_GRAM)), strict=False))


def _overlap(ours: Counter[tuple[str, ...]], theirs: Counter[tuple[str, ...]]) -> tuple[float, float]:
    """Returns precision and recall of n-grams, counted with multiplicity."""
    shared = (ours & theirs).total()
    return (shared / ours.total() if ours else 0.0), (shared / theirs.total() if theirs else 1.0)
