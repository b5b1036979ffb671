"""The query service of a state folder: its index, its models, and the lake that answers are recorded in."""

from functools import cache

from assets.lake.answers import append_answer
from assets.lake.lake import Lake
from inference.answering.query_service import AnswerRecord, QueryService
from inference.answering.release_models import ReleaseModels
from orchestration.settings import Settings, open_lake
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres


def open_query_service(settings: Settings) -> QueryService:
    """Returns the query service of a state folder; the lake is opened with the first answer."""

    @cache
    def lake() -> Lake:
        return open_lake(settings)

    def record(answer: AnswerRecord) -> None:
        append_answer(lake(), answer)

    postgres = Postgres(settings.home, settings.postgres)
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    return QueryService(
        Index(postgres),
        Searcher(postgres, settings.recipe.search),
        ReleaseModels(model, settings.home),
        settings.reranker,
        settings.generator,
        record,
    )
