"""Pictures as a person sees them, whatever their format; none is decoded that would take all memory."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from assets.parsing.blocks import DocumentBlocks, ExtractionError
from assets.parsing.content_type import detect_media_type
from assets.parsing.extract import extract_document
from assets.parsing.formats.paged.picture import (
    MAX_RECOGNISED_PIXELS,
    PICTURES,
    Pixels,
    picture_pages,
    read_picture,
)
from assets.parsing.sandbox import ParserLimits, SandboxedParser

SAVED_AS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/tiff": "TIFF",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/avif": "AVIF",
}
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAAEAAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoDyBRZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xy"
    "bmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAAB4AAAAUAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAEht"
    "ZGF0AAAAPCgBrxOA5shoU///uuGOWWUK20u2Pj/MmmFHeSnsE+1+YODcSeenebAG1zGAAAADAAADAAGYAGbWAAD9gA=="
)
"""120 by 80 pixels, whose left half is black and whose right half is white."""


def halves(width: int = 120, height: int = 80) -> Image.Image:
    """A picture whose left half is black and whose right half is white."""
    picture = Image.new("RGB", (width, height), "white")
    picture.paste("black", (0, 0, width // 2, height))
    return picture


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def only(body: bytes) -> Pixels:
    [pixels] = picture_pages(body)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return pixels


def sides(pixels: Pixels) -> tuple[int, int]:
    """The mean brightness of the left and the right half."""
    middle = pixels.shape[1] // 2
    return round(float(pixels[:, :middle].mean())), round(float(pixels[:, middle:].mean()))


def test_every_kind_of_picture_is_tried_here() -> None:
    assert set(SAVED_AS) | {"image/heic"} == PICTURES


@pytest.mark.parametrize("kind", SAVED_AS.values())
def test_a_picture_of_any_format_is_seen(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    pixels = only(saved(halves(), kind))
    assert pixels.shape == (80, 120, 3)
    left, right = sides(pixels)
    assert left < 6
    assert right > 249
    red = only(saved(Image.new("RGB", (40, 40), (250, 0, 0)), kind))
    assert red[20, 20, 2] > 230 > 40 > red[20, 20, 0]  # blue before green before red


def test_heic_is_seen() -> None:
    pytest.importorskip("pi_heif", reason="needs the extra `ocr`")
    left, right = sides(only(HEIC))
    assert left < 6
    assert right > 249
    assert detect_media_type(HEIC) == "image/heic"


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "I", "I;16", "F"])
def test_a_picture_of_any_mode_is_seen(mode: str) -> None:
    kind = {"CMYK": "TIFF", "F": "TIFF", "PA": "TIFF", "I": "TIFF"}.get(mode, "PNG")
    if mode == "I;16":
        values = np.asarray(halves().convert("L"), dtype=np.uint16) * 257
        picture = Image.fromarray(values)
    else:
        picture = halves().convert(mode) if mode != "PA" else halves().convert("LA")
    assert sides(only(saved(picture, kind))) == (0, 255)


def test_what_is_transparent_is_white() -> None:
    picture = Image.new("RGBA", (120, 80), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 60, 80))
    assert sides(only(saved(picture, "PNG"))) == (0, 255)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_a_picture_is_turned_as_the_camera_was_held(kind: str) -> None:
    exif = Image.Exif()
    exif[274] = 3  # upside down
    left, right = sides(only(saved(halves(), kind, exif=exif)))
    assert left > 249
    assert right < 6
    exif[274] = 6
    assert only(saved(halves(), kind, exif=exif)).shape == (120, 80, 3)


def test_the_pages_of_a_tiff_are_pages_and_its_thumbnails_are_none() -> None:
    pages = [Image.new("L", (60, 40), shade) for shade in (10, 60, 110)]
    body = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert [page[0, 0, 0] for page in picture_pages(body)] == [10, 60, 110]
    found = read_picture(body, lambda pixels: [] if pixels[0, 0, 0] == 60 else [f"Shade {pixels[0, 0, 0]}"])
    assert [(block.text, block.page) for block in found.blocks] == [("Shade 10", 1), ("Shade 110", 3)]
    assert found.page_count == 3
    thumbnail = Image.new("L", (6, 4), 200)
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    body = saved(pages[0], "TIFF", save_all=True, append_images=[thumbnail])
    assert [page[0, 0, 0] for page in picture_pages(body)] == [10]


def test_of_an_animation_the_first_picture_is_read() -> None:
    frames = [Image.new("L", (60, 40), shade) for shade in (10, 200)]
    for kind in ("GIF", "PNG", "WEBP"):
        assert len(list(picture_pages(saved(frames[0], kind, save_all=True, append_images=frames[1:])))) == 1


def test_one_picture_is_a_document_without_pages() -> None:
    found = read_picture(saved(halves(), "PNG"), lambda _: ["One", "Two"])
    assert isinstance(found, DocumentBlocks)
    assert [(block.text, block.page) for block in found.blocks] == [("One", None), ("Two", None)]
    assert found.page_count == 0


def test_a_large_picture_is_made_smaller() -> None:
    pixels = only(saved(Image.new("L", (6000, 5000)), "PNG"))
    height, width, _ = pixels.shape
    assert 0.9 * MAX_RECOGNISED_PIXELS < width * height <= MAX_RECOGNISED_PIXELS
    assert width / height == pytest.approx(1.2, rel=0.01)


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says how large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore:Image size")  # Pillow's own, lower limit
@pytest.mark.parametrize("size", [(12_000, 8_000), (60_000, 60_000), (2_000_000_000, 1_000)])
def test_a_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(ExtractionError) as refused:
        list(picture_pages(huge_png(*size)))
    assert refused.value.expectation == "oversize"


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_bomb_on_a_later_page_is_refused_too() -> None:
    pages = [Image.new("1", (60, 40)), Image.new("1", (12_000, 8_000))]
    body = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="group4")
    with pytest.raises(ExtractionError) as refused:
        list(picture_pages(body))
    assert refused.value.expectation == "oversize"


@pytest.mark.parametrize("kind", SAVED_AS.values())
def test_a_damaged_picture_is_an_error_with_a_name(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    body = saved(halves(), kind)
    for broken in (body[: len(body) // 2], body[:40] + bytes(40) + body[80:], b"GIF89a"):
        try:
            read_picture(broken, lambda _: ["words"])
        except ExtractionError as error:
            assert error.expectation == "unreadable"  # noqa: PT017 - some damage can be seen past
        except (OSError, SyntaxError, ValueError):
            pass  # extract_document names these


@pytest.mark.parametrize(("kind", "media_type"), [(k, m) for m, k in SAVED_AS.items()])
def test_without_ocr_a_picture_is_refused_with_the_command_that_adds_it(kind: str, media_type: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    parser = SandboxedParser(ParserLimits())
    try:
        with pytest.raises(ExtractionError, match="make setup EXTRAS=ocr") as refused:
            parser.extract_document(saved(halves(), kind), media_type)
    finally:
        parser.close()
    assert refused.value.expectation == "unsupported_media_type"
    with pytest.raises(ExtractionError, match="Pictures of this kind are not read"):
        extract_document(b"8BPS\x00\x01", "image/vnd.adobe.photoshop")
