"""Decompresses gzip, bzip2, xz and Zstandard data within bounds."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
        body: The compressed data.
        coding: `gzip`, `bzip2`, `xz` or `zstd`.

    Attributes:
        trailing_bytes: Once all is read, the number of bytes after it that are no compressed data.
    """

    def __init__(self, body: bytes, coding: str) -> None:
        self._body, self._coding = memoryview(body), coding
        self._pieces = self._decompressed()
        self._held = b""
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
        rest, streams = self._body, 0
        while rest.nbytes:
            if streams and rest[0] == 0 and not any(rest):
                return  # padding, as on tapes
            if streams and not bytes(rest[:8]).startswith(_SIGNATURES[self._coding]):
                self.trailing_bytes = rest.nbytes
                return
            used = 0
            for piece, read in self._stream(rest):
                used = read
                yield piece
            rest, streams = rest[used:], streams + 1

    def _stream(self, data: memoryview) -> Iterator[tuple[bytes, int]]:
        """Yields the pieces of one stream, each with how many bytes of the data have been used so far."""
        codec = _CODECS[self._coding]
        stream, place = codec.start(), 0
        try:
            while not stream.eof:
                piece = data[place : place + codec.input_bytes]
                if not piece.nbytes:
                    raise EOFError("it is cut off")
                place += piece.nbytes
                if codec.bounded:
                    yield stream.decompress(piece, _PIECE_BYTES), place
                    while not (stream.eof or stream.needs_input):
                        yield stream.decompress(b"", _PIECE_BYTES), place
                else:
                    yield stream.decompress(bytes(piece)), place
            yield b"", place - len(stream.unused_data)
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
    reader = DecompressingReader(body, coding)
    content = reader.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ExtractionError(
            "oversize",
            f"The {coding} data decompresses to more than the limit of {limit_bytes:,} bytes: if it is no "
            "decompression bomb, decompress it, divide it and add the parts.",
        )
    return Decompressed(content, reader.trailing_bytes)
