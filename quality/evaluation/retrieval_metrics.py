"""Retrieval metrics: how well a search finds the documents that questions are about."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import RR, Measure, R, nDCG

from quality.evaluation.questions import Question

CHUNKS_PER_DOCUMENT = 4
"""Chunks asked for per document wanted: one document often fills several of the first places."""


class EvaluatedChunk(Protocol):
    """The part of a search hit that the metrics need."""

    @property
    def chunk_id(self) -> str:
        """The chunk."""
        ...

    @property
    def doc_id(self) -> str:
        """The document that the chunk is part of."""
        ...


SearchFunction = Callable[[str, int], Sequence[EvaluatedChunk]]
"""Takes a question and a number of chunks; returns the chunks, best first."""


@dataclass(frozen=True)
class EvaluatedRanking:
    """The documents that one search mode found for queries.

    Attributes:
        documents: The documents found for each query, best first, with scores that fall by one per rank.
        milliseconds: The time of each search, (queries,) float64, in the order of the queries.
    """

    documents: dict[str, dict[str, float]]
    milliseconds: npt.NDArray[np.float64]

    @property
    def p50_ms(self) -> float:
        """The median time of a search."""
        return float(np.percentile(self.milliseconds, 50))

    @property
    def p95_ms(self) -> float:
        """The 95th percentile of the times."""
        return float(np.percentile(self.milliseconds, 95))


@dataclass(frozen=True)
class SearchEvaluation:
    """The metrics of one search mode on a set of questions.

    Attributes:
        values: `ndcg@k`, `recall@k` and `rr@k` of each question, (questions,) float64.
        milliseconds: The time of each search, (questions,) float64.
        unmatched: Expected documents that the lake does not hold; their questions count as not answered.
    """

    values: dict[str, npt.NDArray[np.float64]]
    milliseconds: npt.NDArray[np.float64]
    unmatched: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each metric over all questions."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def rank_for_evaluation(
    queries: Mapping[str, str], search: SearchFunction, k: int, chunks_per_document: int = CHUNKS_PER_DOCUMENT
) -> EvaluatedRanking:
    """Returns the documents that a search finds for each query; a document has the rank of its best chunk.

    Args:
        queries: The texts of the queries by id; at least one.
        search: The search function of one mode, for one tenant.
        k: The most documents per query.
        chunks_per_document: How many chunks to ask for, per document wanted.
    """
    found: dict[str, dict[str, float]] = {}
    seconds = np.empty(len(queries))
    for number, (query, text) in enumerate(queries.items()):
        began = time.perf_counter()
        hits = search(text, k * chunks_per_document)
        seconds[number] = time.perf_counter() - began
        documents = list(dict.fromkeys(hit.doc_id for hit in hits))[:k]
        # The metrics sort by score and break ties their own way: the place is the score.
        found[query] = {doc_id: float(k - place) for place, doc_id in enumerate(documents)}
    return EvaluatedRanking(found, seconds * 1000)


def query_metrics(
    measures: Mapping[str, Measure], relevant: Mapping[str, Mapping[str, int]], ranking: EvaluatedRanking
) -> dict[str, npt.NDArray[np.float64]]:
    """Returns each measure for each judged query.

    Returns:
        (queries,) float64 per measure, in the order of `relevant`; 0 for a query without results.
    """
    place = {query: number for number, query in enumerate(relevant)}
    names = {measure: name for name, measure in measures.items()}
    values = {name: np.zeros(len(place)) for name in measures}
    for metric in ir_measures.iter_calc(list(names), relevant, ranking.documents):
        values[names[metric.measure]][place[metric.query_id]] = metric.value
    return values


def evaluate_search(
    questions: Sequence[Question], search: SearchFunction, canonical: Mapping[str, str], k: int = 10
) -> SearchEvaluation:
    """Returns the metrics of one search mode on questions, from comparing found with expected documents.

    A question whose documents are not in the lake counts as not answered, so that a lost document lowers the
    metrics on which a release depends.

    Args:
        questions: The questions; at least one.
        search: The search function of one mode, for one tenant.
        canonical: A mapping from every URI and doc_id of the lake to the canonical doc_id: its own, or for a
            duplicate that of the document that was kept.
        k: The cut-off of the metrics, in documents.

    Raises:
        ValueError: There are no questions.
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
    ranking = rank_for_evaluation({query: question.question for query, question in asked.items()}, search, k)
    measures = {f"ndcg@{k}": nDCG @ k, f"recall@{k}": R @ k, f"rr@{k}": RR @ k}
    return SearchEvaluation(
        values=query_metrics(measures, relevant, ranking),
        milliseconds=ranking.milliseconds,
        unmatched=tuple(dict.fromkeys(unmatched)),
    )


def ann_recall(approximate: Iterable[Sequence[str]], exact: Iterable[Sequence[str]]) -> float:
    """Returns the share of the exact nearest neighbours that an approximate search found, over all queries.

    Args:
        approximate: The ids that the approximate search found, one sequence per query.
        exact: The ids that the exact search found, in the same order of queries.

    Raises:
        ValueError: The numbers of queries differ, or the exact search found nothing at all.
    """
    found = wanted = 0
    for near, true in zip(approximate, exact, strict=True):
        found += len(set(near) & set(true))
        wanted += len(set(true))
    if not wanted:
        raise ValueError("the exact search found nothing to compare with")
    return found / wanted
