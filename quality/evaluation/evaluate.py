"""Measures how well a search finds the documents that questions are about."""

import hashlib
import heapq
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import ir_measures
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from ir_measures import RR, Measure, R, nDCG

from retrieval.chunking.sentences import sentence_spans

CHUNKS_PER_DOCUMENT = 4
"""Chunks asked for per document wanted: one document often fills several of the first places."""

_SHORTEST_WORDS = 6
_LONGEST_WORDS = 20


class BadQuestions(ValueError):
    """A file of questions can not be used; the message names the line."""


class RankedChunk(Protocol):
    """What of a search result is measured."""

    @property
    def doc_id(self) -> str:
        """The document that the chunk is part of."""
        ...


SearchFunction = Callable[[str, int], Sequence[RankedChunk]]
"""Takes a question and a number of chunks; returns the chunks, best first."""


@dataclass(frozen=True)
class Question:
    """A question and the documents that answer it.

    Attributes:
        question: As a person would ask it.
        expected: URIs or ids of the documents, any of which is right.
    """

    question: str
    expected: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """What one search mode reached on a set of questions.

    Attributes:
        metrics: `ndcg@k`, `recall@k` and `rr@k` over documents, means over all questions.
        p50_ms: Median time of a search.
        p95_ms: 95th percentile.
        questions: How many were asked.
        unmatched: Expected documents that the lake does not hold; their questions count as not answered.
    """

    metrics: dict[str, float]
    p50_ms: float
    p95_ms: float
    questions: int
    unmatched: tuple[str, ...]


def load_questions(path: Path) -> list[Question]:
    """Reads questions from JSON lines: `{"question": "…", "uri": "…"}`; `uri` may be a list, or be `doc_id`.

    Raises:
        BadQuestions: When the file is absent, empty, or a line is not such an object; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BadQuestions(f"no questions file at {path}") from None
    except UnicodeDecodeError as error:
        raise BadQuestions(f"{path} is not UTF-8 text: {error}") from error
    questions = [
        _question(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not questions:
        raise BadQuestions(f"{path} holds no questions")
    return questions


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadQuestions(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadQuestions(f'{where}: expected an object such as {{"question": "…", "uri": "…"}}')
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise BadQuestions(f'{where}: "question" must be a text that is not empty')
    expected = row.get("uri", row.get("doc_id"))
    expected = [expected] if isinstance(expected, str) else expected
    if not isinstance(expected, list) or not expected or not all(isinstance(e, str) and e for e in expected):
        raise BadQuestions(f'{where}: "uri" (or "doc_id") must be a text or a list of texts')
    return Question(question.strip(), tuple(expected))


@dataclass(frozen=True)
class Ranking:
    """What one search mode found for each of some queries.

    Attributes:
        documents: For each query its documents, best first, as scores that fall by one a place.
        milliseconds: What each search took, (queries,) float64, in the order of the queries.
    """

    documents: dict[str, dict[str, float]]
    milliseconds: npt.NDArray[np.float64]

    @property
    def p50_ms(self) -> float:
        """The median time of a search."""
        return float(np.percentile(self.milliseconds, 50))

    @property
    def p95_ms(self) -> float:
        """The 95th percentile."""
        return float(np.percentile(self.milliseconds, 95))


def rank_documents(
    queries: Mapping[str, str], search: SearchFunction, k: int, chunks_per_document: int = CHUNKS_PER_DOCUMENT
) -> Ranking:
    """Asks every query. A document is as good as its best chunk.

    Args:
        queries: By id; at least one.
        search: One mode of the search, for one tenant.
        k: The most documents a query.
        chunks_per_document: How many chunks are asked for, for each of them.
    """
    found: dict[str, dict[str, float]] = {}
    seconds = np.empty(len(queries))
    for number, (query, text) in enumerate(queries.items()):
        began = time.perf_counter()
        hits = search(text, k * chunks_per_document)
        seconds[number] = time.perf_counter() - began
        documents = list(dict.fromkeys(hit.doc_id for hit in hits))[:k]
        # Metrics sort by score and break ties their own way: the place is the score.
        found[query] = {doc_id: float(k - place) for place, doc_id in enumerate(documents)}
    return Ranking(found, seconds * 1000)


def query_metrics(
    measures: Mapping[str, Measure], relevant: Mapping[str, Mapping[str, int]], ranking: Ranking
) -> dict[str, npt.NDArray[np.float64]]:
    """Each measure of each judged query, 0 where nothing was found; (queries,) in the order of `relevant`."""
    place = {query: number for number, query in enumerate(relevant)}
    names = {measure: name for name, measure in measures.items()}
    values = {name: np.zeros(len(place)) for name in measures}
    for metric in ir_measures.iter_calc(list(names), relevant, ranking.documents):
        values[names[metric.measure]][place[metric.query_id]] = metric.value
    return values


def paired_bootstrap(
    differences: npt.NDArray[np.float64], level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of a mean over queries, such as that of one mode's metric less another's.

    Sakai, "Evaluating Evaluation Metrics based on the Bootstrap" (2006): queries are drawn with replacement,
    and both modes keep the queries that they share.

    Args:
        differences: One a query.
        level: The interval's coverage.
        samples: How often the queries are drawn.
        seed: Of the draws.
    """
    draws = np.random.default_rng(seed).integers(0, len(differences), (samples, len(differences)))
    low, high = np.quantile(differences[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def evaluate(
    questions: Sequence[Question], search: SearchFunction, canonical: Mapping[str, str], k: int = 10
) -> Evaluation:
    """Asks every question and compares the documents found with those expected.

    A question whose documents are not in the lake counts as not answered: a document lost on the way must
    lower the figure that a release depends on.

    Args:
        questions: At least one.
        search: One mode of the search, for one tenant.
        canonical: From every URI and doc_id of the lake to the doc_id that stands for it (itself, or for a
            duplicate the one that was kept).
        k: Cut-off of the metrics, in documents.

    Raises:
        ValueError: When there are no questions.
    """
    if not questions:
        raise ValueError("no questions to evaluate on")
    asked = {str(number): question for number, question in enumerate(questions)}
    unmatched = [name for question in questions for name in question.expected if name not in canonical]
    # A document that is not there keeps its own name, which no search returns.
    relevant = {
        query: {canonical.get(name, name): 1 for name in question.expected}
        for query, question in asked.items()
    }
    ranking = rank_documents({query: question.question for query, question in asked.items()}, search, k)
    measures = {f"ndcg@{k}": nDCG @ k, f"recall@{k}": R @ k, f"rr@{k}": RR @ k}
    return Evaluation(
        metrics={
            name: float(values.mean()) for name, values in query_metrics(measures, relevant, ranking).items()
        },
        p50_ms=ranking.p50_ms,
        p95_ms=ranking.p95_ms,
        questions=len(questions),
        unmatched=tuple(dict.fromkeys(unmatched)),
    )


def known_item_questions(chunks: pa.Table, n: int, seed: int) -> list[Question]:
    """Makes questions for a lake that has none: a sentence from the middle of a chunk, and its document.

    This is known-item search (Beitzel et al., 2003): weaker evidence than questions that people wrote, but
    enough to see an index that lost documents or whose vectors are wrong.

    Args:
        chunks: `chunk_id`, `doc_id` and `text`.
        n: The most questions; at most one a document.
        seed: Other seeds choose other chunks; the same seed and chunks give the same questions in any order.
    """

    def rank(chunk_id: str) -> str:
        return hashlib.sha256(f"{seed}\x1f{chunk_id}".encode()).hexdigest()

    best: dict[str, tuple[str, int]] = {}  # doc_id to its first-ranked chunk: (rank, row)
    for row, (chunk_id, doc_id) in enumerate(
        zip(chunks.column("chunk_id").to_pylist(), chunks.column("doc_id").to_pylist(), strict=True)
    ):
        candidate = (rank(chunk_id), row)
        best[doc_id] = min(best.get(doc_id, candidate), candidate)
    # Some chunks hold no sentence, so more are looked at than are needed.
    chosen = heapq.nsmallest(4 * n, ((key, row, doc_id) for doc_id, (key, row) in best.items()))
    questions: list[Question] = []
    for _, row, doc_id in chosen:
        sentence = _middle_sentence(chunks.column("text")[row].as_py())
        if sentence and len(questions) < n:
            questions.append(Question(sentence, (doc_id,)))
    return questions


def _middle_sentence(text: str) -> str | None:
    sentences = [" ".join(text[start:end].split()) for start, end in sentence_spans(text)]
    usable = [s for s in sentences if len(s.split()) >= _SHORTEST_WORDS]
    return " ".join(usable[len(usable) // 2].split()[:_LONGEST_WORDS]) if usable else None


def ann_recall(approximate: Iterable[Sequence[str]], exact: Iterable[Sequence[str]]) -> float:
    """The share of the exact nearest neighbours that the approximate search found, over all queries.

    Args:
        approximate: Ids found, a sequence a query.
        exact: Ids that an exact search finds, in the same order of queries.

    Raises:
        ValueError: When the two differ in their number of queries, or the exact search found nothing at all.
    """
    found = wanted = 0
    for near, true in zip(approximate, exact, strict=True):
        found += len(set(near) & set(true))
        wanted += len(set(true))
    if not wanted:
        raise ValueError("the exact search found nothing to compare with")
    return found / wanted
