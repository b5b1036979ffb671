"""The settings that decide what is made: one model, nested from the rooms that use them."""

from pydantic import BaseModel

from assets.transforms.bounded import ParserLimits
from assets.transforms.minhash import MinHashConfig
from assets.transforms.signals import QualityThresholds
from quality.drift import DriftConfig
from quality.release_gate import ReleaseGate
from retrieval.chunker import ChunkerConfig
from retrieval.embedder import EmbedderConfig
from retrieval.search import SearchConfig


class Recipe(BaseModel):
    """How each table is made from its inputs."""

    quality: QualityThresholds = QualityThresholds()
    """Which documents are kept out."""
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
