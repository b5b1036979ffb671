"""The metrics that the release gate judges: every tenant's questions, asked in every search mode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from quality.evaluation.questions import Question
from quality.evaluation.release_gate import ANN_RECALL, NDCG, QUESTIONS
from quality.evaluation.retrieval_metrics import EvaluatedChunk, SearchEvaluation, ann_recall, evaluate_search

_K = 10
_JUDGED_MODE = "hybrid"
"""Its metrics have plain names; those of another mode have `/mode` behind them."""
_VECTOR_MODE = "vector"

TenantSearch = Callable[[str, str, int], Sequence[EvaluatedChunk]]
"""Takes a tenant, a question and a number of chunks; returns the chunks, best first."""


@dataclass(frozen=True)
class ReleaseEvaluation:
    """The evaluation of one state of the index.

    Attributes:
        metrics: Its metrics, by name.
        ndcg: By tenant, nDCG@10 of the hybrid search at each of its questions, (questions,) float64.
    """

    metrics: dict[str, float]
    ndcg: dict[str, npt.NDArray[np.float64]]

    def gains_over(self, live: "ReleaseEvaluation") -> dict[str, npt.NDArray[np.float64]]:
        """Returns by tenant what its nDCG has more than the live release's at each question."""
        return {tenant: each - live.ndcg[tenant] for tenant, each in self.ndcg.items() if tenant in live.ndcg}


def release_metrics(
    questions: Mapping[str, Sequence[Question]],
    canonical: Mapping[str, Mapping[str, str]],
    searches: Mapping[str, TenantSearch],
    exact_search: TenantSearch,
) -> ReleaseEvaluation:
    """Returns the metrics of one state of the index on every tenant's questions.

    Args:
        questions: The questions of each tenant, at least one.
        canonical: By tenant, a mapping from URI and doc_id to the canonical document's doc_id.
        searches: The search function of each mode, `hybrid` and `vector` among them.
        exact_search: The vector search that compares every chunk.

    Returns:
        `ndcg@10`, `recall@10` and `rr@10` of the hybrid search as means over all questions, `p50_ms` and
        `p95_ms` as percentiles over all of its searches; the metrics of another mode are named as in
        `ndcg@10/lexical`; `ann_recall@10` of the vector search against the exact one; and `questions`, their
        number.
    """
    figures = {QUESTIONS: float(sum(map(len, questions.values())))}
    ndcg = dict[str, npt.NDArray[np.float64]]()
    for mode, search in searches.items():
        by_tenant = [
            evaluate_search(asked, partial(search, tenant), canonical.get(tenant, {}), _K)
            for tenant, asked in questions.items()
        ]
        if mode == _JUDGED_MODE:
            ndcg = {tenant: each.values[NDCG] for tenant, each in zip(questions, by_tenant, strict=True)}
        suffix = "" if mode == _JUDGED_MODE else f"/{mode}"
        figures |= {name + suffix: value for name, value in _pooled(by_tenant).items()}
    asked_of = [(tenant, each.question) for tenant, asked in questions.items() for each in asked]
    near, exact = (
        [[hit.chunk_id for hit in search(tenant, question, _K)] for tenant, question in asked_of]
        for search in (searches[_VECTOR_MODE], exact_search)
    )
    return ReleaseEvaluation(figures | {ANN_RECALL: ann_recall(near, exact)}, ndcg)


def _pooled(evaluations: Sequence[SearchEvaluation]) -> dict[str, float]:
    def over_all(parts: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        return np.concatenate(parts)

    milliseconds = over_all([each.milliseconds for each in evaluations])
    means = {
        name: float(over_all([each.values[name] for each in evaluations]).mean())
        for name in evaluations[0].values
    }
    p50_ms, p95_ms = np.percentile(milliseconds, [50, 95])
    return means | {"p50_ms": float(p50_ms), "p95_ms": float(p95_ms)}
