"""The recipe: all settings that decide the content of the tables, in one nested model."""

import hashlib
from typing import TYPE_CHECKING

from pydantic import BaseModel

from assets.answers.checks import AnswerLimits
from assets.dedup.minhash import MinHashConfig
from assets.parsing.sandbox import ParserLimits
from assets.text.readability import ReadabilityThresholds
from assets.text.training_fit import TrainingThresholds
from common.ids import config_digest
from quality.drift import DriftConfig
from quality.evaluation.engine_gate import EngineGate
from quality.evaluation.release_gate import ReleaseGate
from retrieval.chunking.chunker import ChunkerConfig
from retrieval.embedding.config import EmbedderConfig
from retrieval.search.searcher import SearchConfig
from training.datasets.config import TrainingSetConfig

if TYPE_CHECKING:
    from retrieval.embedding.embedding_model import EmbeddingModel


class Recipe(BaseModel):
    """The settings that decide how each table is made from its inputs."""

    readability: ReadabilityThresholds = ReadabilityThresholds()
    """Which documents are quarantined because nothing useful can be made of them."""
    training: TrainingThresholds = TrainingThresholds()
    """Which documents are fit for a training set; the others are found all the same."""
    parser: ParserLimits = ParserLimits()
    """What the parsing of one document may take."""
    minhash: MinHashConfig = MinHashConfig()
    """When two documents are the same."""
    chunker: ChunkerConfig = ChunkerConfig()
    """How a document is cut."""
    embedder: EmbedderConfig = EmbedderConfig()
    """Which model makes vectors, and how fast."""
    search: SearchConfig = SearchConfig()
    """How lists are made and fused."""
    drift: DriftConfig = DriftConfig()
    """When what comes differs from what was there, and what follows."""
    gate: ReleaseGate = ReleaseGate()
    """What an index must reach before it is served."""
    answers: AnswerLimits = AnswerLimits()
    """What a batch of answers must keep to."""
    engine_gate: EngineGate = EngineGate()
    """What a changed engine must keep to, to answer instead of the one before."""
    training_sets: TrainingSetConfig = TrainingSetConfig()
    """How training examples are made, and what a training set must be."""

    def chunker_digest(self, model: "EmbeddingModel") -> str:
        """Returns a digest of what decides how a document is cut: budget, and tokenizer that counts it."""
        tokenizer = hashlib.sha256(model.tokenizer_path.read_bytes()).hexdigest()
        return config_digest(f"{self.chunker.digest}/{tokenizer}")
