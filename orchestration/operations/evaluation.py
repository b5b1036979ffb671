"""`headwater evaluate`: builds a scratch index of a test collection and measures every search mode in it."""

from collections.abc import Callable, Sequence
from functools import partial

from common.progress import Progress
from inference.answering.retrieval_settings import SearchMode
from orchestration.operations.scratch_index import ScratchChunks, ScratchIndex, open_scratch_index
from orchestration.settings import Settings
from orchestration.unlearned import searching_versions, unlearned_collection
from quality.evaluation.beir_collection import BeirCollection
from quality.evaluation.collection_evaluation import CollectionEvaluation, evaluate_collection
from quality.evaluation.retrieval_metrics import CHUNKS_PER_DOCUMENT, EvaluatedChunk, SearchFunction
from retrieval.search.searcher import RETRIEVAL_MODES

RERANKED: SearchMode = "reranked"


def evaluate_command_modes(settings: Settings) -> tuple[SearchMode, ...]:
    """Returns the search modes to measure; `reranked` is among them if a reranker is configured."""
    return (*RETRIEVAL_MODES, RERANKED) if settings.reranker.configured else RETRIEVAL_MODES


def evaluate_in_scratch_index(
    settings: Settings, collection: BeirCollection, chunks: ScratchChunks, progress: Callable[[str], None]
) -> CollectionEvaluation:
    """Indexes a collection in a scratch server, and returns the evaluation of every search mode on it.

    Queries that the embedder learned from are left out.

    Raises:
        EvaluateRefused: A document is too long to be one chunk.
        RerankError: The configured reranker's folder is not one.
        NothingHeldOut: The embedder learned from all queries.
    """
    learned = searching_versions(settings)
    collection = unlearned_collection(settings.training_place.registry, learned, collection, progress)
    with open_scratch_index(settings, collection, chunks, progress) as index:
        return evaluate_searches(settings, index, collection, chunks, progress)


def evaluate_searches(
    settings: Settings,
    index: ScratchIndex,
    collection: BeirCollection,
    chunks: ScratchChunks,
    progress: Callable[[str], None],
) -> CollectionEvaluation:
    """Returns the evaluation of every search mode on a collection, by the index that was opened with it."""
    searches: dict[str, SearchFunction] = {mode: partial(index.search, mode) for mode in RETRIEVAL_MODES}
    if settings.reranker.configured:
        searches[RERANKED] = index.rerank
    asked = Progress("queries asked, in all modes", len(collection.queries) * len(searches))

    def ask(search: SearchFunction, text: str, k: int) -> Sequence[EvaluatedChunk]:
        asked.advance()
        return search(text, k)

    searches = {mode: partial(ask, search) for mode, search in searches.items()}
    chunks_per_document = 1 if chunks == "document" else CHUNKS_PER_DOCUMENT
    return evaluate_collection(collection, searches, chunks_per_document, progress)
