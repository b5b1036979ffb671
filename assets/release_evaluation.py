"""Evaluates a state of the index on every tenant's questions, for the release gate."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, DOCUMENTS, DUPLICATES, RAW_DOCUMENTS
from assets.sources.source_registry import SourceRegistry
from common.progress import Progress
from quality.evaluation.known_items import KnownItem, known_item_questions
from quality.evaluation.questions import Question, load_questions
from quality.evaluation.release_metrics import ReleaseEvaluation, release_metrics
from retrieval.chunking.sentences import sentence_spans
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import IndexPoint
from retrieval.language.words import split_words
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import RETRIEVAL_MODES, RetrievalMode, Searcher, SearchHit

MADE_PER_TENANT = 50
MADE_FOR_A_METHOD = 300
"""Questions made for a tenant to judge another embedder or chunker by: a sample, of which 208 show that it is
no worse if it is the same at each. Where only documents changed, they are a fixed set of checks."""
IsLearned = Callable[[Sequence[str]], npt.NDArray[np.bool_]]
"""Takes questions; returns for each whether a model learned from it; (questions,)."""
_SAMPLED_PER_QUESTION = 4
"""Documents sampled per known-item question: some chunks hold no sentence."""


def candidate_questions(
    lake: Lake,
    sources: SourceRegistry,
    pins: Mapping[str, int],
    is_learned: IsLearned,
    most_made: int = MADE_PER_TENANT,
) -> dict[str, list[Question]]:
    """Returns the questions of each tenant: those of its sources, or else some made from its chunks.

    A question is left out if all of its documents have left their source, because nothing can answer it, and
    if the model learned from it. A tenant is left out only if nothing else can be asked of its chunks.

    Args:
        lake: The tables.
        sources: The sources, with their files of questions.
        pins: The versions of the tables.
        is_learned: Whether the model learned from questions, or nearly the same.
        most_made: The most questions that are made for a tenant.
    """
    of_sources = _source_questions(lake, sources, pins)
    questions = {
        tenant: left for tenant, asked in of_sources.items() if (left := _unlearned(asked, is_learned))
    }
    sampled = sample_candidate_documents(
        lake, pins[CHUNKS.name], _SAMPLED_PER_QUESTION * most_made, except_tenants=questions
    )
    for tenant, documents in sampled.items():
        made = known_item_questions(documents, len(documents), sentence_spans, split_words)
        if known_items := _unlearned(made, is_learned)[:most_made]:
            questions[tenant] = known_items
    return questions


def tenants_without_questions(lake: Lake, pins: Mapping[str, int], asked: Collection[str]) -> list[str]:
    """Returns the tenants whose documents are in the index and of whom nothing is asked, sorted."""
    tenants = lake.query(
        "select distinct tenant from chunks where not list_contains($asked::varchar[], tenant) order by 1",
        {"asked": list(asked)},
        chunks=lake.delta(CHUNKS.name, pins[CHUNKS.name]),
    )
    return [str(each) for each in tenants["tenant"].to_pylist()]


def _unlearned(asked: Sequence[Question], is_learned: IsLearned) -> list[Question]:
    learned = is_learned([each.question for each in asked])
    return [each for each, known in zip(asked, learned, strict=True) if not known]


def _source_questions(
    lake: Lake, sources: SourceRegistry, pins: Mapping[str, int]
) -> dict[str, list[Question]]:
    asked = [(source.tenant, source.questions) for source in sources.list() if source.questions]
    if not asked:
        return {}
    live = lake.query(
        "select tenant, uri, doc_id from raw group by all having not arg_max(deleted, revision)",
        raw=lake.delta(RAW_DOCUMENTS.name, pins[RAW_DOCUMENTS.name]),
    )
    tenants = live["tenant"].to_pylist()
    known = {pair for name in ("uri", "doc_id") for pair in zip(tenants, live[name].to_pylist(), strict=True)}
    questions: dict[str, list[Question]] = {}
    for tenant, file in asked:
        for question in load_questions(Path(file)):
            if any((tenant, expected) in known for expected in question.expected):
                questions.setdefault(tenant, []).append(question)
    return questions


def sample_candidate_documents(
    lake: Lake, chunks_version: int, limit: int, except_tenants: Collection[str] = ()
) -> dict[str, list[KnownItem]]:
    """Returns a sample of documents of each tenant, with one chunk each; SQL reads no other chunk's text.

    Args:
        lake: The tables.
        chunks_version: The version of `gold.chunks` to sample from.
        limit: The most documents per tenant.
        except_tenants: Tenants that are left out.

    Returns:
        The documents by tenant. A hash of the chunk ids decides which documents and chunks are
        chosen, so the sample does not depend on the order in which they are stored.
    """
    rows = lake.query(
        """
        with ranked as (
            select tenant, doc_id, min(struct_pack(rank := sha256(concat_ws(chr(31), '0', chunk_id)),
                                                   chunk_id := chunk_id)) as first
            from chunks where not list_contains($except_tenants::varchar[], tenant) group by tenant, doc_id
        ), sampled as (
            select first.rank as rank, first.chunk_id as chunk_id from ranked
            qualify row_number() over (partition by tenant order by first.rank) <= $limit
        )
        select tenant, doc_id, heading, text from chunks join sampled using (chunk_id) order by tenant, rank
        """,
        {"except_tenants": list(except_tenants), "limit": limit},
        chunks=lake.delta(CHUNKS.name, chunks_version),
    )
    sampled: dict[str, list[KnownItem]] = {}
    for row in rows.to_pylist():
        item = KnownItem(row["doc_id"], row["heading"], row["text"])
        sampled.setdefault(row["tenant"], []).append(item)
    return sampled


def canonical_candidate_documents(lake: Lake, pins: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """Returns by tenant a mapping from every URI and doc_id to the canonical document's doc_id.

    The canonical document of a duplicate is the one that was kept.
    """
    rows = lake.query(
        """
        select tenant, uri, d.doc_id, coalesce(canonical_id, d.doc_id) as canonical_id
        from documents d left join duplicates using (doc_id)
        """,
        documents=lake.delta(DOCUMENTS.name, pins[DOCUMENTS.name]),
        duplicates=lake.delta(DUPLICATES.name, pins[DUPLICATES.name]),
    )
    found: dict[str, dict[str, str]] = {}
    for row in rows.to_pylist():
        names = found.setdefault(row["tenant"], {})
        names[row["uri"]] = names[row["doc_id"]] = row["canonical_id"]
    return found


def evaluate_candidate(
    questions: Mapping[str, Sequence[Question]],
    canonical: Mapping[str, Mapping[str, str]],
    searcher: Searcher,
    model: EmbeddingModel,
    at: IndexPoint,
    groups: Mapping[str, Collection[str]],
) -> ReleaseEvaluation:
    """Returns the metrics of one state of the index, from asking every question in every search mode.

    Args:
        questions: The questions of each tenant.
        canonical: The mapping from `canonical_candidate_documents`.
        searcher: The search.
        model: The index's embedding model, which embeds the questions.
        at: The state of the index.
        groups: The groups of each tenant; the questions are asked as a user in all of them.

    Returns:
        What `quality.evaluation.release_metrics.release_metrics` does.
    """
    texts = list(dict.fromkeys(each.question for asked in questions.values() for each in asked))
    vectors = dict(zip(texts, model.embedder.encode_queries(texts), strict=True))

    # In every mode, and for the recall of the graph by vectors and exactly once more.
    asked = sum(map(len, questions.values())) * (len(RETRIEVAL_MODES) + 2)
    progress = Progress("questions asked of the index", asked)

    def search(mode: RetrievalMode, tenant: str, question: str, k: int) -> list[SearchHit]:
        progress.advance()
        return searcher.search(
            tenant,
            SearchQuery.plain(question),
            vectors[question],
            k,
            mode,
            at,
            model_digest=model.digest,
            groups=groups.get(tenant, ()),
        )

    def exact_search(tenant: str, question: str, k: int) -> list[SearchHit]:
        progress.advance()
        return searcher.exact_neighbours(
            tenant, vectors[question], k, at, model_digest=model.digest, groups=groups.get(tenant, ())
        )

    return release_metrics(
        questions, canonical, {mode: partial(search, mode) for mode in RETRIEVAL_MODES}, exact_search
    )
