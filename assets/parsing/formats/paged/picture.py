"""Reads pictures and scans (PNG, JPEG, TIFF, HEIC, WebP, AVIF, GIF, BMP) by Pillow and libheif."""

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
"""Of shape (height, width, 3), blue before green before red."""
TextRecogniser = Callable[[Pixels], list[str]]

_HEIC = "image/heic"
_OPENED_AS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/tiff": "TIFF",
    _HEIC: "HEIF",
    "image/avif": "AVIF",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
}
PICTURES = frozenset(_OPENED_AS)
"""The media types of pictures that are read where there is OCR."""
MAX_RECOGNISED_PIXELS = 16_000_000
"""A larger picture is made smaller before its text is recognised: 16 million are A4 at 400 dots per inch."""
_MAX_PICTURE_PIXELS = 90_000_000  # about A3 at 600 dots per inch, and Pillow's own limit
_MAX_PAGES = 2_000
_PAGED_FORMATS = ("TIFF", "HEIF")  # of others, more than one picture is an animation
_ORIENTATION = 274  # a tag of EXIF: how the camera was held
_TURNS = {3: 180, 6: -90, 8: 90}  # in degrees to the left; the other values mirror, and no camera does
_SUBFILE_TYPE, _REDUCED = 254, 1  # a tag of TIFF, and its bit for a smaller copy of another page


def read_picture(body: bytes, recognise: TextRecogniser) -> DocumentBlocks:
    """Returns the text in a picture, or in the pages of a scan in one file.

    Args:
        body: The file's bytes.
        recognise: OCR: returns the paragraphs in a picture, as `ocr.recognise_text` does.

    Raises:
        ExtractionError: `oversize` for pictures of more than 90 million pixels, or 2,000 pages; `no_text` if
            nothing is recognised; `unreadable`.
    """
    pages = [recognise(pixels) for pixels in picture_pages(body)]
    if not any(pages):
        raise ExtractionError("no_text", "No text was recognised in the picture.")
    if len(pages) == 1:
        return DocumentBlocks([TextBlock(paragraph) for paragraph in pages[0]])
    blocks = [TextBlock(text, None, number) for number, page in enumerate(pages, 1) for text in page]
    return DocumentBlocks(blocks, page_count=len(pages))


def picture_pages(body: bytes) -> Iterator[Pixels]:
    """Yields the pages of a TIFF or HEIC file, and the first picture of any other, as a person sees them.

    They are turned as the camera was held, on white where they are transparent, and at most 16 million pixels
    large.

    Raises:
        ExtractionError: `oversize` for pictures of more than 90 million pixels, which are not decoded, or
            2,000 pages; `unreadable`.
    """
    from PIL import Image, UnidentifiedImageError
    from PIL.Image import DecompressionBombError

    formats = list(_OPENED_AS.values())
    if body[4:8] == b"ftyp":
        from pi_heif import register_heif_opener

        register_heif_opener()
    else:
        formats.remove(_OPENED_AS[_HEIC])
    try:
        picture = Image.open(io.BytesIO(body), formats=formats)
    except DecompressionBombError as error:
        raise ExtractionError("oversize", f"It may be a decompression bomb: {error}") from error
    except UnidentifiedImageError as error:
        raise ExtractionError("unreadable", "The picture is damaged, or of an unknown variant.") from error
    with picture:
        number = 0
        while True:
            _check_size(picture.size)
            if not _is_reduced(picture):
                yield _looked_at(picture)
            number += 1
            if picture.format not in _PAGED_FORMATS:
                return
            if number == _MAX_PAGES:
                raise ExtractionError("oversize", f"The scan has more than {_MAX_PAGES:,} pages: divide it.")
            try:
                picture.seek(number)
            except EOFError:
                return


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > _MAX_PICTURE_PIXELS:
        raise ExtractionError(
            "oversize",
            f"The picture has {width:,} × {height:,} pixels; the limit is {_MAX_PICTURE_PIXELS:,}: make it "
            "smaller, or cut it into parts.",
        )


def _is_reduced(picture: "Image") -> bool:
    tags = getattr(picture, "tag_v2", {})
    return bool(int(tags.get(_SUBFILE_TYPE, 0)) & _REDUCED)


def _looked_at(picture: "Image") -> Pixels:
    """Returns the pixels of a picture as a person sees it, made smaller if it is large."""
    from PIL import Image

    picture.draft("RGB", (4000, 4000))  # JPEG is decoded at a fraction of its size where that is enough
    picture.load()
    if picture.mode.startswith(("I", "F")):  # more than eight bits: what is darkest becomes black
        values = np.asarray(picture, dtype=np.float32)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        levels = np.nan_to_num((values - low) * (255 / (high - low or 1)))
        seen = Image.fromarray(levels.astype(np.uint8))
    elif picture.has_transparency_data:
        layer = picture.convert("RGBA")
        seen = Image.new("RGB", layer.size, "white")
        seen.paste(layer, mask=layer)
    else:
        seen = picture.convert("L" if picture.mode == "1" else "RGB")
    excess = seen.width * seen.height / MAX_RECOGNISED_PIXELS
    if excess > 1:
        seen = seen.resize(
            (max(1, int(seen.width / excess**0.5)), max(1, int(seen.height / excess**0.5))),
            Image.Resampling.BILINEAR,
            reducing_gap=2,
        )
    # Pillow has turned TIFF and HEIC already, and taken the tag away.
    if turn := _TURNS.get(picture.getexif().get(_ORIENTATION, 1)):
        seen = seen.rotate(turn, expand=True)
    return np.ascontiguousarray(np.asarray(seen.convert("RGB"))[:, :, ::-1])
