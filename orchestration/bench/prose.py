"""Real prose of any machine: what its installed distributions say about themselves."""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

_PROSE = re.compile(r"METADATA$|LICEN[CS]E|COPYING|NOTICE|AUTHORS|README|\.(txt|md|rst)$", re.IGNORECASE)
_PIECE_WORDS = 1000


def prose_pieces() -> Iterator[list[str]]:
    """Real prose cut into pieces of so many words."""
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or []:
            path = Path(str(file.locate()))
            if _PROSE.search(file.name) and path.is_file():
                words = path.read_text(errors="ignore").split(" ")
                for at in range(0, len(words), _PIECE_WORDS):
                    yield words[at : at + _PIECE_WORDS]
