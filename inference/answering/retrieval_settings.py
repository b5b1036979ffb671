"""How passages are found for a question: what of it can change an answer, and its digest."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from common.redaction import redact_urls
from inference.engines.digest import model_files_digest
from retrieval.rerank.reranker import RerankerConfig, RerankError
from retrieval.search.searcher import RetrievalMode, SearchConfig

SearchMode = RetrievalMode | Literal["reranked"]

PASSAGES_PER_QUESTION = 10
"""How many chunks are retrieved for a question."""


@dataclass(frozen=True)
class Approval:
    """What was approved to answer.

    Attributes:
        engine: The digest of the engine less the embedder (`approval_digest`); None where it is not known,
            and then nothing is what was approved.
        retrieval: The digest of the settings by which it was given its passages; None likewise.
    """

    engine: str | None
    retrieval: str | None


@dataclass(frozen=True)
class LiveRelease:
    """All that can change an answer to a tenant's questions, as it is live: one record.

    Attributes:
        tenant: The tenant.
        release: The release of the index.
        embedder: The digest of its embedding model.
        engine: The name of the engine that answers.
        engine_digest: Its digest less the embedder, as it was approved.
        adapter: The digest of the adapter that a local model answers with; None without one.
        retrieval: The digest of how passages are found.
        code: The digest of the code.
    """

    tenant: str
    release: str
    embedder: str
    engine: str
    engine_digest: str
    adapter: str | None
    retrieval: str
    code: str

    @property
    def digest(self) -> str:
        """16 hex digits of a hash over all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RetrievalSettings:
    """How passages are found for a question.

    Attributes:
        search: How candidates are found and fused.
        reranker: What orders the best of them, if anything does.
        passages_per_question: How many chunks are retrieved for a question.
    """

    search: SearchConfig
    reranker: RerankerConfig
    passages_per_question: int = PASSAGES_PER_QUESTION

    @property
    def mode(self) -> SearchMode:
        """The search mode for questions: `reranked` if a reranker is configured, else `hybrid`."""
        return "reranked" if self.reranker.configured else "hybrid"

    @cached_property
    def digest(self) -> str:
        """16 hex digits of a hash over all of it, and the files of the reranker's model.

        Raises:
            RerankError: There is no such model.
        """
        reranker = self.reranker.model_dump(mode="json", exclude={"api_key", "model"})
        if self.reranker.endpoint:
            reranker["endpoint"] = redact_urls(self.reranker.endpoint)
        if model := self.reranker.model:
            if not model.exists():
                raise RerankError(
                    f"no reranker at {model}: name a sentence-transformers CrossEncoder's folder"
                )
            reranker["model"] = model_files_digest(model)
        decides = [self.mode, self.passages_per_question, self.search.model_dump(mode="json"), reranker]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
