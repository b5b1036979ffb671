"""Reads EPUB books: the chapters in reading order."""

import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.data.xml import parse_xml
from assets.parsing.formats.html.page import visible_html_blocks
from assets.parsing.formats.zip_package import open_zip_package, read_zip_part

_KIND = "EPUB book"
_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_OPF = "{http://www.idpf.org/2007/opf}"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"


def read_epub(body: bytes) -> DocumentBlocks:
    """Returns the visible text of each chapter in reading order; the title is from the book's metadata.

    Raises:
        ExtractionError: `encrypted` if chapters are under rights management; `oversize` for a zip bomb;
            `unreadable`.
    """
    archive = open_zip_package(body, _KIND)
    container = parse_xml(read_zip_part(archive, _CONTAINER, _KIND), _KIND)
    path = next((element.get("full-path") for element in container.iter("{*}rootfile")), None)
    if not path:
        raise ExtractionError("unreadable", "The EPUB book does not say where its contents are listed.")
    package = parse_xml(read_zip_part(archive, path, _KIND), _KIND)
    chapters = _chapters(package, posixpath.dirname(path))
    locked = _locked(archive)
    blocks: list[TextBlock] = []
    for chapter in chapters:
        if chapter in locked:
            raise ExtractionError("encrypted", "The EPUB book's chapters are under rights management.")
        blocks += visible_html_blocks(read_zip_part(archive, chapter, _KIND))
    title = package.find(f".//{_TITLE}")
    return DocumentBlocks(blocks, None if title is None else title.text)


def _chapters(package: Any, folder: str) -> list[str]:
    """Returns the paths of the documents in the spine, in order; others are not in the reading order."""
    items = {item.get("id"): item for item in package.iter(f"{_OPF}item")}
    found = []
    for reference in package.iter(f"{_OPF}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and "html" in item.get("media-type", ""):
            found.append(posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "")))))
    return list(dict.fromkeys(found))  # the format allows each document once


def _locked(archive: zipfile.ZipFile) -> set[str]:
    if _ENCRYPTION not in archive.namelist():
        return set()
    listing = parse_xml(read_zip_part(archive, _ENCRYPTION, _KIND), _KIND)
    return {unquote(element.get("URI", "")) for element in listing.iter("{*}CipherReference")}
