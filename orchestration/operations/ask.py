"""Opens the query service of a state folder, with its index, its models and its journal of answers."""

from assets.engine_releases import answering_engine_config
from assets.lake.answers import JOURNAL_ANSWERS, AnswerJournal
from inference.answering.answer import AnswerRecord
from inference.answering.query_service import QueryService
from inference.answering.release_models import ReleaseModels
from inference.engines.generator import EngineConfig
from inference.engines.worker_engine import Workplace
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres


def open_ask_service(settings: Settings, engine: EngineConfig | None = None) -> QueryService:
    """Returns the query service of a state folder; closing it commits the answers that it gave.

    Args:
        settings: The settings of the state folder.
        engine: The engine that answers; the live one if None.
    """
    journal = AnswerJournal(settings.answers_dir)

    def record(answer: AnswerRecord) -> None:
        if journal.add(answer) >= JOURNAL_ANSWERS:
            commit()

    def commit() -> None:
        if not journal.is_empty():
            open_configured_lake(settings)  # which commits the journal

    postgres = Postgres(settings.home, settings.postgres)
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    return QueryService(
        Index(postgres),
        Searcher(postgres, settings.recipe.search),
        ReleaseModels(model, settings.home),
        settings.reranker,
        lambda: engine or answering_engine_config(open_configured_lake(settings), settings.generator),
        record,
        commit,
        Workplace(settings.worker_dir),
    )
