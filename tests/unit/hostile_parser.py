"""The parsers' process with parsers that do what hostile documents make parsers do."""

import ctypes
import os
import sys
import time

from assets.parsing import extract, worker
from assets.parsing.blocks import Block, Content


def _sleep(body: bytes) -> Content:
    time.sleep(600)
    return Content([])


def _allocate(body: bytes) -> Content:
    held = []
    while True:
        held.append(bytearray(64 << 20))


def _abort(body: bytes) -> Content:
    os.abort()


def _segfault(body: bytes) -> Content:
    ctypes.string_at(0)
    return Content([])


def _exit(body: bytes) -> Content:
    sys.exit(3)


def _chatter(body: bytes) -> Content:
    print("a parser that prints", flush=True)
    return Content([Block(f"secret {os.environ.get('HEADWATER_SECRET')} and {sys.stdin.read()!r} was read")])


_PARSERS = (_sleep, _allocate, _abort, _segfault, _exit, _chatter)
HOSTILE = {f"test/{each.__name__.strip('_')}": each for each in _PARSERS}

if __name__ == "__main__":
    extract._READERS.update(HOSTILE)
    worker.main(sys.argv[1:])
