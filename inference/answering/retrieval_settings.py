"""How passages are found for a question: what of it can change an answer, and its digest."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from inference.engines.digest import model_files_digest
from retrieval.redaction import redact_urls
from retrieval.rerank.reranker import RerankerConfig, RerankError
from retrieval.search.searcher import RetrievalMode, SearchConfig

SearchMode = RetrievalMode | Literal["reranked"]

PASSAGES_PER_QUESTION = 10
"""How many chunks are retrieved for a question."""


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
