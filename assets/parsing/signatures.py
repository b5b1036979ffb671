"""Tells binary formats by their first bytes.

These are the patterns of the WHATWG's MIME Sniffing Standard (sections 6.1 to 6.4:
https://mimesniff.spec.whatwg.org) and of formats that people keep beside their documents.
"""

import re
import tarfile

# Where the bytes stand, the bytes, and the media type; the first that fits counts.
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBPVP", "image/webp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"\x00\x00\x01\x00", "image/x-icon"),
    (0, b"8BPS\x00\x01", "image/vnd.adobe.photoshop"),
    (0, b"%!PS-Adobe-", "application/postscript"),
    (0, b"AT&TFORM", "image/vnd.djvu"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/avi"),
    (8, b"AIFF", "audio/aiff"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"OggS\x00", "application/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"MThd\x00\x00\x00\x06", "audio/midi"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"FLV\x01", "video/x-flv"),
    (0, b"\x00\x01\x00\x00\x00", "font/ttf"),
    (0, b"OTTO", "font/otf"),
    (0, b"ttcf", "font/collection"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
    (0, b"Rar!\x1a\x07", "application/x-rar-compressed"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"\x04\x22\x4d\x18", "application/x-lz4"),
    (0, b"!<arch>\n", "application/x-archive"),
    (0, b"\xed\xab\xee\xdb", "application/x-rpm"),
    (0, b"MSCF\x00\x00\x00\x00", "application/vnd.ms-cab-compressed"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (0, b"ARROW1\x00\x00", "application/vnd.apache.arrow.file"),
    (0, b"Obj\x01", "application/avro"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"\xca\xfe\xba\xbe\x00", "application/java-vm"),
    (0, b"\x00asm\x01\x00\x00\x00", "application/wasm"),
    (0, b"\xde\x12\x04\x95", "application/x-gettext-translation"),
    (0, b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
)
_BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "image/heic")
_BRANDS |= {b"avif": "image/avif", b"avis": "image/avif"}
_BRANDS |= {b"M4A ": "audio/mp4", b"qt  ": "video/quicktime"}
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # a first block, or the end of an empty file
_TAR_HEADER_BYTES = 512
_FRAMES = (b"RIFF", b"RIFX", b"RF64", b"FORM")  # what a signature that stands later comes after
_LOOKED_AT_BYTES = 256
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def binary_media_type(body: bytes) -> str | None:
    """Returns the media type that the first bytes of a binary file tell; None if they tell none."""
    for place, signature, media_type in _SIGNATURES:
        if not body.startswith(signature, place) or (place and not body.startswith(_FRAMES)):
            continue
        # Words can begin with the letters of a signature.
        if signature[-1:].isalnum() and not _CONTROL.search(body[:_LOOKED_AT_BYTES]):
            continue
        return media_type
    if body[4:8] == b"ftyp":
        return _BRANDS.get(body[8:12], "video/mp4")
    if body.startswith(b"BZh") and body[4:10] in _BZIP2_BLOCKS:
        return "application/x-bzip2"
    if (
        body.startswith(b"BM")
        and len(body) >= 26
        and int.from_bytes(body[14:18], "little") in (12, 40, 108, 124)
    ):
        return "image/bmp"
    return "application/x-tar" if _is_tar(body) else None


def _is_tar(body: bytes) -> bool:
    """Returns whether a file begins with the header of a TAR archive, whose checksum is right."""
    if len(body) < _TAR_HEADER_BYTES:
        return False
    try:
        tarfile.TarInfo.frombuf(body[:_TAR_HEADER_BYTES], "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError, OverflowError):
        return False
    return True
