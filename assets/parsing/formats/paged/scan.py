"""Tells scanned pages of a PDF from pages of text, and draws them as pictures."""

from typing import TYPE_CHECKING

from assets.parsing.formats.paged.picture import MAX_RECOGNISED_PIXELS, Pixels

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

_MAX_STAMP_WORDS = 20  # what scanners, archives and page numbers write over a scan
_MIN_SCAN_SHARE = 0.5  # of a page that is under pictures
_POINTS_PER_INCH = 72
_DOTS_PER_INCH = 200


def is_scan(page: "PdfPage", word_count: int) -> bool:
    """Returns whether a page with so many words in its text layer is a scan.

    It is one if at least half of it is under pictures and it has at most twenty words. Scanners also write a
    page as many strips.
    """
    if word_count > _MAX_STAMP_WORDS:
        return False
    import pypdfium2.raw as pdfium

    page_left, page_bottom, page_right, page_top = page.get_bbox()
    wanted = _MIN_SCAN_SHARE * (page_right - page_left) * (page_top - page_bottom)
    covered = 0.0
    for picture in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = picture.get_bounds()
        width, height = (
            min(right, page_right) - max(left, page_left),
            min(top, page_top) - max(bottom, page_bottom),
        )
        covered += max(0.0, width) * max(0.0, height)
        if covered >= wanted > 0:
            return True
    return False


def is_blank(page: "PdfPage") -> bool:
    """Returns whether nothing is drawn on a page."""
    return next(page.get_objects(max_depth=1), None) is None


def drawn_page(page: "PdfPage") -> Pixels:
    """Returns a page as a picture of 200 dots per inch, or fewer if it says that it is very large."""
    width, height = page.get_size()
    scale = (MAX_RECOGNISED_PIXELS / max(width * height, 1)) ** 0.5
    drawn: Pixels = page.render(scale=min(_DOTS_PER_INCH / _POINTS_PER_INCH, scale)).to_numpy()
    return drawn
