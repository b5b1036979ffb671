"""The sandbox's process with readers that hang, use all memory, crash or print, as on hostile documents."""

import ctypes
import os
import sys
import time

from assets.parsing import extract, worker
from assets.parsing.blocks import DocumentBlocks, TextBlock


def _sleep(body: bytes) -> DocumentBlocks:
    time.sleep(600)
    return DocumentBlocks([])


def _allocate(body: bytes) -> DocumentBlocks:
    held = []
    while True:
        held.append(bytearray(64 << 20))


def _abort(body: bytes) -> DocumentBlocks:
    os.abort()


def _segfault(body: bytes) -> DocumentBlocks:
    ctypes.string_at(0)
    return DocumentBlocks([])


def _exit(body: bytes) -> DocumentBlocks:
    sys.exit(3)


def _chatter(body: bytes) -> DocumentBlocks:
    print("a parser that prints", flush=True)
    return DocumentBlocks(
        [TextBlock(f"secret {os.environ.get('HEADWATER_SECRET')} and {sys.stdin.read()!r} was read")]
    )


_PARSERS = (_sleep, _allocate, _abort, _segfault, _exit, _chatter)
HOSTILE = {f"test/{each.__name__.strip('_')}": each for each in _PARSERS}

if __name__ == "__main__":
    extract._READERS.update(HOSTILE)
    worker.run_parser_worker(sys.argv[1:])
