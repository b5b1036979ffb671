"""What embedders are measured with: texts of the installed software, and test collections."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ir_measures import Qrel, ScoredDoc, calc_aggregate, nDCG

from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus

DEPTH = 10
_DOCUMENT_WORDS = 180
"""About the 240 tokens of an abstract, or of a chunk."""

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]


class NoTestCollection(RuntimeError):
    """The folder holds no test collection."""


@dataclass(frozen=True)
class TextEncoder:
    """What makes vectors of documents, and of questions."""

    documents: Encode
    questions: Encode


def sample(texts: Sequence[str], count: int) -> list[str]:
    """Returns so many of the texts, the same each time."""
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:count]]


def prose(count: int) -> list[str]:
    """Returns real prose in documents of one length, from the texts of the installed software."""
    rows = read_environment_corpus(list_environment_corpus())
    words = [body.decode("utf-8", "replace").split() for body in rows["body"].to_pylist() if body]
    texts = [
        " ".join(each[at : at + _DOCUMENT_WORDS])
        for each in words
        for at in range(0, len(each) - _DOCUMENT_WORDS, _DOCUMENT_WORDS)
    ]
    return sample(texts, count)


def documents(data: Path) -> list[str]:
    """Returns the documents of a collection, title and text."""
    return [_text(row) for row in _jsonl(data / "corpus.jsonl")]


def ndcg(data: Path, encoder: TextEncoder) -> float:
    """Returns the nDCG@10 of an exact search in a collection."""
    corpus, queries = (_jsonl(data / name) for name in ("corpus.jsonl", "queries.jsonl"))
    qrels = [
        Qrel(query, document, int(score))
        for line in (data / "qrels" / "test.tsv").read_text().splitlines()[1:]
        for query, document, score in [line.split("\t")]
    ]
    asked = {qrel.query_id for qrel in qrels}
    ids = [row["_id"] for row in queries if row["_id"] in asked]
    documents = encoder.documents([_text(row) for row in corpus])
    scores = encoder.questions([row["text"] for row in queries if row["_id"] in asked]) @ documents.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    found = [
        ScoredDoc(query, corpus[place]["_id"], float(scores[row, place]))
        for row, query in enumerate(ids)
        for place in best[row]
    ]
    return float(calc_aggregate([nDCG @ DEPTH], qrels, found)[nDCG @ DEPTH])


def _text(row: dict[str, str]) -> str:
    return f"{row.get('title', '')} {row['text']}".strip()


def _jsonl(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise NoTestCollection(f"there is no {path}: name a folder in BEIR's layout")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
