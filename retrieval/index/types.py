"""The values that the index's callers pass around, and the errors that they handle."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from retrieval.embedding.embedder import EmbedderConfig
from retrieval.lineage import Lineage


class IndexConflict(RuntimeError):
    """Another writer or reader was first, and nothing was changed. Read the state again, then decide anew."""


class UnknownRelease(LookupError):
    """No release of that name can be served."""


class ReleaseExists(ValueError):
    """A release of that name was made before."""


class IndexPoint(Protocol):
    """An epoch of a generation: an `IndexState` or an `IndexRelease`."""

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
        epoch: The number of its changes. A writer gives it back, so that it can't overtake another one.
        model_digest: The embedding model that made the vectors.
        chunker_digest: The chunker that made the rows.
        dimension: Numbers per vector.
        lineage: What it was made from (design, invariant 1).
    """

    generation: int
    epoch: int
    model_digest: str
    chunker_digest: str
    dimension: int
    lineage: Lineage = field(compare=False)


class ReleaseDetails(BaseModel, frozen=True):
    """What a release was judged by and what it was made from.

    Attributes:
        metrics: Its evaluation, by the name of the metric.
        versions: The version of every table that it was made from.
        model_digest: The embedding model of its vectors.
        embedder: Where that model was, so that it can be asked when another model is in use.
        run_id: The Dagster run that released it.
    """

    metrics: dict[str, float]
    versions: dict[str, int]
    model_digest: str
    embedder: EmbedderConfig
    run_id: str


@dataclass(frozen=True)
class IndexRelease:
    """An epoch of a generation under a name.

    Attributes:
        release_id: The name.
        generation: The generation that it reads.
        epoch: The epoch that it reads.
        released_at: When it first went live.
        details: What it was judged by and what it was made from.
    """

    release_id: str
    generation: int
    epoch: int
    released_at: datetime
    details: ReleaseDetails = field(compare=False)


@dataclass(frozen=True)
class LiveHistoryEntry:
    """When a release went live; it stayed live until the next entry.

    Attributes:
        live_since: When it went live.
        release_id: The release.
    """

    live_since: datetime
    release_id: str
