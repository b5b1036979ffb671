"""Evaluates every search mode on a test collection: metrics with intervals over the queries, and times."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ir_measures import RR, R, nDCG

from quality.betting import interval
from quality.evaluation.beir_collection import BeirCollection
from quality.evaluation.retrieval_metrics import SearchFunction, query_metrics, rank_for_evaluation
from quality.evaluation.verdict import Gain, paired_gains

MEASURES = {"ndcg@10": nDCG @ 10, "recall@100": R @ 100, "mrr@10": RR @ 10}
_DEPTH = 100
_WARM_UP_QUERIES = 10
"""Searches before those that are timed: the first ones read the index from disk."""


class UnknownEvaluationMode(ValueError):
    """There is no search mode of that name; the message lists the modes."""


@dataclass(frozen=True)
class ModeEvaluation:
    """The evaluation of one search mode on a test collection.

    Attributes:
        values: The values of each of `MEASURES`, (queries,) float64.
        p50_ms: The median time of a search, without the embedding of the query.
        p95_ms: The 95th percentile of the times.
    """

    values: Mapping[str, npt.NDArray[np.float64]]
    p50_ms: float
    p95_ms: float

    def interval(self, measure: str) -> tuple[float, float, float]:
        """Returns the mean of a measure and its 95% interval, as `(mean, low, high)`."""
        return float(self.values[measure].mean()), *interval(self.values[measure], 0.0, 1.0)


@dataclass(frozen=True)
class CollectionEvaluation:
    """The evaluation of every search mode on a test collection.

    Attributes:
        dataset: The collection's name.
        documents: The number of its documents.
        modes: The evaluation of each mode, by the mode's name.
    """

    dataset: str
    documents: int
    modes: Mapping[str, ModeEvaluation]

    @property
    def queries(self) -> int:
        """The number of queries."""
        return len(next(iter(self.modes.values())).values["ndcg@10"])

    def to_dict(self) -> dict[str, Any]:
        """Returns the form that `headwater evaluate --json` prints."""
        modes = {
            name: {measure: float(values.mean()) for measure, values in mode.values.items()}
            | {"p50_ms": mode.p50_ms, "p95_ms": mode.p95_ms}
            for name, mode in self.modes.items()
        }
        return {
            "dataset": self.dataset,
            "documents": self.documents,
            "queries": self.queries,
            "modes": modes,
        }

    def compare(self, one: str, other: str) -> dict[str, Gain]:
        """Returns the mean gain of `one` over `other` in each measure, with a paired 95% interval.

        Raises:
            UnknownEvaluationMode: There is no such mode.
        """
        for name in (one, other):
            if name not in self.modes:
                raise UnknownEvaluationMode(
                    f"there is no mode {name!r} to compare; there are {', '.join(self.modes)}"
                )
        values, others = self.modes[one].values, self.modes[other].values
        return paired_gains({measure: values[measure] - others[measure] for measure in MEASURES})


def evaluate_collection(
    collection: BeirCollection,
    searches: Mapping[str, SearchFunction],
    chunks_per_document: int,
    progress: Callable[[str], None],
) -> CollectionEvaluation:
    """Returns the evaluation of every search mode on a collection, from asking all its queries.

    Args:
        collection: The collection; its documents must be in the index that is searched.
        searches: The search function of each mode.
        chunks_per_document: How many chunks to ask for, per document wanted.
        progress: Called with one line per mode.
    """
    modes: dict[str, ModeEvaluation] = {}
    first_queries = dict(list(collection.queries.items())[:_WARM_UP_QUERIES])
    for mode, search in searches.items():
        progress(f"asking {len(collection.queries)} queries: {mode}")
        rank_for_evaluation(first_queries, search, _DEPTH, chunks_per_document)
        ranking = rank_for_evaluation(collection.queries, search, _DEPTH, chunks_per_document)
        values = query_metrics(MEASURES, collection.relevant, ranking)
        modes[mode] = ModeEvaluation(values, ranking.p50_ms, ranking.p95_ms)
    return CollectionEvaluation(collection.name, len(collection.documents), modes)
