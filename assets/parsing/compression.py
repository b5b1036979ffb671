"""Decompresses gzip, bzip2, xz and Zstandard data within bounds."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from assets.parsing.blocks import ExtractionError
from assets.parsing.content_type import CONTENT_CODINGS

_PIECE_BYTES = 1 << 20
_WINDOW_BYTES = 128 << 20  # of xz and Zstandard: what their programs use at their highest levels


def _zstd() -> Any:
    from zstandard import ZstdDecompressor

    return ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()


@dataclass(frozen=True)
class _Codec:
    """How one content coding is decompressed.

    Attributes:
        start: Returns a decompressor of one stream; a file can hold several after one another.
        input_bytes: How much is given to it at once. Without a bound on its output, this bounds it.
        bounded: Whether it can be told how much to return at most.
    """

    start: Callable[[], Any]
    input_bytes: int
    bounded: bool


_CODECS = {
    # Deflate makes at most 1,032 bytes of one, a block of Zstandard 128 KiB of four.
    "gzip": _Codec(lambda: zlib.decompressobj(wbits=31), 1 << 14, False),
    "zstd": _Codec(_zstd, 1 << 10, False),
    "bzip2": _Codec(bz2.BZ2Decompressor, 1 << 16, True),
    "xz": _Codec(lambda: lzma.LZMADecompressor(memlimit=2 * _WINDOW_BYTES), 1 << 16, True),
}
_SIGNATURES = {coding: signature for signature, coding in CONTENT_CODINGS.values()}


@dataclass(frozen=True, slots=True)
class Decompressed:
    """What compressed data holds.

    Attributes:
        content: The decompressed bytes.
        trailing_bytes: The number of bytes after the compressed data that are no compressed data.
    """

    content: bytes
    trailing_bytes: int


class DecompressingReader(io.RawIOBase):
    """Reads decompressed data as a stream, without holding it.

    Its methods raise `ExtractionError`: `unreadable` where the data is damaged or cut off.

    Args:
        compressed: The compressed data; it can be read and sought in.
        coding: `gzip`, `bzip2`, `xz` or `zstd`.

    Attributes:
        trailing_bytes: Once all is read, the number of bytes after it that are no compressed data.
    """

    def __init__(self, compressed: BinaryIO, coding: str) -> None:
        self._compressed, self._coding = compressed, coding
        self._rest = b""  # what was read and not decompressed yet
        self._pieces = self._decompressed()
        self._held = b""  # what was decompressed and not returned yet
        self.trailing_bytes = 0

    def readable(self) -> bool:
        """Returns true."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Returns the next `size` bytes, fewer only at the end; all that are left if `size` is negative."""
        found = bytearray(self._held)
        while size < 0 or len(found) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            found += piece
        end = len(found) if size < 0 else size
        self._held = bytes(found[end:])
        return bytes(found[:end])

    def count(self, limit_bytes: int) -> int:
        """Returns the number of bytes that are left, holding none of them, or a number above the limit."""
        total = len(self._held)
        for piece in self._pieces:
            total += len(piece)
            if total > limit_bytes:
                break
        return total

    def _decompressed(self) -> Iterator[bytes]:
        yield from self._stream()
        while True:
            self._rest = self._rest or self._compressed.read(_PIECE_BYTES)
            while self._rest and not any(self._rest):  # padding, as on tapes
                self._rest = self._compressed.read(_PIECE_BYTES)
            signature = _SIGNATURES[self._coding]
            self._rest += self._compressed.read(len(signature))
            if not self._rest:
                return
            if not self._rest.startswith(signature):
                place = self._compressed.tell()
                self.trailing_bytes = len(self._rest) + self._compressed.seek(0, io.SEEK_END) - place
                return
            yield from self._stream()

    def _stream(self) -> Iterator[bytes]:
        """Yields the pieces of one stream."""
        codec = _CODECS[self._coding]
        stream = codec.start()
        try:
            while not stream.eof:
                if not self._rest:
                    self._rest = self._compressed.read(codec.input_bytes)
                    if not self._rest:
                        raise EOFError("it is cut off")
                piece, self._rest = self._rest[: codec.input_bytes], self._rest[codec.input_bytes :]
                if codec.bounded:
                    yield stream.decompress(piece, _PIECE_BYTES)
                    while not (stream.eof or stream.needs_input):
                        yield stream.decompress(b"", _PIECE_BYTES)
                else:
                    yield stream.decompress(piece)
            self._rest = stream.unused_data + self._rest
        except (ExtractionError, MemoryError, GeneratorExit):
            raise
        except Exception as error:  # each library has errors of its own
            raise ExtractionError(
                "unreadable",
                f"The {self._coding} data is damaged ({error}): get the file again, or decompress what is "
                "sound of it and add that.",
            ) from error


def decompress(body: bytes, coding: str, limit_bytes: int) -> Decompressed:
    """Returns what compressed data holds.

    Args:
        body: The compressed data: one stream, or several after one another.
        coding: `gzip`, `bzip2`, `xz` or `zstd`.
        limit_bytes: The most that it may decompress to. Not much more is decompressed to find that out.

    Raises:
        ExtractionError: `oversize`; `unreadable` if the data is damaged or cut off.
    """
    reader = DecompressingReader(io.BytesIO(body), coding)
    content = reader.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ExtractionError(
            "oversize",
            f"The {coding} data decompresses to more than the limit of {limit_bytes:,} bytes: if it is no "
            "decompression bomb, decompress it, divide it and add the parts.",
        )
    return Decompressed(content, reader.trailing_bytes)
