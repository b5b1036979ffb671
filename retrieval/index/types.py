"""Moments of the index: what can be written to, read and released, and what can go wrong with one."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from retrieval.embedding.embedder import EmbedderConfig
from retrieval.lineage import Lineage


class IndexConflict(RuntimeError):
    """Another writer was faster; nothing was changed. Read the state again and decide anew."""


class UnknownRelease(LookupError):
    """No release of that name can be served."""


class ReleaseExists(ValueError):
    """A release of that name was made before."""


class IndexPoint(Protocol):
    """A moment of the index that can be read."""

    @property
    def generation(self) -> int:
        """Which model and chunker."""
        ...

    @property
    def epoch(self) -> int:
        """How many changes into it."""
        ...


@dataclass(frozen=True)
class IndexState:
    """A generation as its last writer left it.

    Attributes:
        generation: Its number.
        epoch: Its number of changes; an `apply` names the one it was worked out from.
        model_digest: Which embedding model its vectors are from.
        chunker_digest: Which chunker its rows are from.
        dimension: Numbers in a vector.
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
    """A moment of the index under a name.

    Attributes:
        release_id: Its name.
        generation: Which generation it reads.
        epoch: At which epoch.
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
    """When a release went live; it was until the next one did.

    Attributes:
        live_since: The time.
        release_id: Which.
    """

    live_since: datetime
    release_id: str
