"""The documentation as a site: no dead link, no page left out, nothing loaded from elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, from a copy: the build keeps a cache beside its sources."""
    project = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", project)
    shutil.copytree(ROOT / "docs", project / "docs")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "zensical"), "build", "--strict"],
        cwd=project, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project / "build" / "docs"


def test_every_page_is_in_the_navigation() -> None:
    named = yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in named]
    assert not missing


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"?([^\"\s>]+)", text)
        loaded += re.findall(
            r"<link[^>]*rel=\"?(?:stylesheet|preload|preconnect)[^>]*href=\"?([^\"\s>]+)", text
        )
        assert loaded, page.name
        assert not [each for each in loaded if re.match(r"(?:https?:)?//", each)], page.name
        assert 'class="mermaid"' not in text, (
            f"{page.name}: a diagram of Mermaid loads its program from a CDN"
        )


def test_pictures_load_nothing_from_elsewhere() -> None:
    for picture in (ROOT / "docs").glob("*.svg"):
        assert not re.search(r"url\(\"?https?:|<script|(?:xlink:)?href=\"https?:", picture.read_text()), (
            picture.name
        )
