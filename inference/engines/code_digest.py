"""The digest of the code that decides answers: another version of it is another engine."""

import hashlib
from functools import cache
from pathlib import Path

import inference
import retrieval

_DECIDING = {
    inference: ("answering", "engines", "engines/torch", "engines/worker", "prompting", "routing", "scoring"),
    retrieval: ("chunking/sentences.py", "embedding", "language", "rerank", "search"),
}
"""Modules, and folders of them, by the package that they are in."""


@cache
def code_digest() -> str:
    """Returns the hex SHA-256 over the sources that decide what is answered to a question and passages.

    That is the code that searches, embeds and reranks, writes prompts, decodes, scores and reads replies. Not
    in it are training and the making of an index, whose results have digests of their own; commands, tables
    and jobs, which pass on what was answered; and libraries: their versions are locked, and whoever changes
    the lock has to measure anew.

    It is computed once for each process, from the files that are installed then.
    """
    digest = hashlib.sha256()
    for package, places in _DECIDING.items():
        root = Path(package.__path__[0])
        for file in sorted(file for place in places for file in _modules(root / place)):
            content = file.read_bytes()
            digest.update(f"{package.__name__}/{file.relative_to(root)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _modules(place: Path) -> list[Path]:
    return [place] if place.suffix else list(place.glob("*.py"))
