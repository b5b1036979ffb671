"""The values that the index takes and returns, and its errors."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from common.lineage import Lineage
from retrieval.embedding.config import EmbedderConfig


class IndexConflict(RuntimeError):
    """Another writer or reader was faster. Nothing was changed; the caller should read the state again."""


class UnknownIndexRelease(LookupError):
    """No release of that name can be served."""


class IndexReleaseExists(ValueError):
    """A release of that name was made before."""


class IndexPoint(Protocol):
    """A state of the index that can be read: an epoch of a generation."""

    @property
    def generation(self) -> int:
        """The generation: one model and one chunker."""
        ...

    @property
    def epoch(self) -> int:
        """The number of changes that the generation has had."""
        ...


@dataclass(frozen=True)
class IndexState:
    """A generation as its last writer left it.

    Attributes:
        generation: Its number.
        epoch: The number of its changes. A writer passes it back, so that a change by another writer is
            noticed.
        model_digest: The embedding model that made the vectors.
        chunker_digest: The chunker that made the rows.
        dimension: The length of a vector.
        lineage: The table versions that the generation was made from, and the run.
    """

    generation: int
    epoch: int
    model_digest: str
    chunker_digest: str
    dimension: int
    lineage: Lineage = field(compare=False)


class IndexReleaseDetails(BaseModel, frozen=True):
    """A release's evaluation, and the tables, model and run that it was made from.

    Attributes:
        metrics: The evaluation's values, by the name of the metric.
        versions: The version of every table that the release was made from.
        model_digest: The digest of the embedding model of its vectors.
        embedder: The configuration of that model, so that it can embed queries when another model is in use.
        run_id: The Dagster run that released it.
    """

    metrics: dict[str, float]
    versions: dict[str, int]
    model_digest: str
    embedder: EmbedderConfig
    run_id: str


@dataclass(frozen=True)
class IndexRelease:
    """A release: an epoch of a generation with a name.

    Attributes:
        release_id: The name.
        generation: The generation that it reads.
        epoch: The epoch that it reads.
        released_at: When it first went live.
        details: The release's evaluation and origin.
    """

    release_id: str
    generation: int
    epoch: int
    released_at: datetime
    details: IndexReleaseDetails = field(compare=False)

    @property
    def record(self) -> str:
        """What the release log keeps of it, as JSON of `IndexRecord`."""
        return IndexRecord(
            generation=self.generation,
            epoch=self.epoch,
            model_digest=self.details.model_digest,
            metrics=self.details.metrics,
            versions=self.details.versions,
        ).model_dump_json()


class IndexRecord(BaseModel, frozen=True):
    """What the release log keeps of a state of the index, with a verdict or a move.

    Attributes:
        generation: Its generation.
        epoch: The epoch of that generation.
        model_digest: The embedding model of its vectors.
        metrics: Its evaluation, by the name of the metric.
        versions: The version of every table that it was made from.
        against: The release that was live when it was evaluated; None before the first, and of moves.
        questions_digest: The digest of the questions of its evaluation; None of moves.
    """

    generation: int
    epoch: int
    model_digest: str
    metrics: dict[str, float]
    versions: dict[str, int]
    against: str | None = None
    questions_digest: str | None = None


@dataclass(frozen=True)
class LiveHistoryEntry:
    """When a release went live; it stayed live until the next entry.

    Attributes:
        live_since: When it went live.
        release_id: The release.
    """

    live_since: datetime
    release_id: str
