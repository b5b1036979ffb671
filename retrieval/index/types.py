"""Moments of the index: what can be written to, read and released, and what can go wrong with one."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

Lineage = dict[str, Any]


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


@dataclass(frozen=True)
class IndexRelease:
    """A moment of the index under a name.

    Attributes:
        release_id: Its name.
        generation: Which generation it reads.
        epoch: At which epoch.
        released_at: When it first went live.
        details: What it was judged by and what it pins.
    """

    release_id: str
    generation: int
    epoch: int
    released_at: datetime
    details: dict[str, Any] = field(compare=False)


@dataclass(frozen=True)
class LiveHistoryEntry:
    """When a release went live; it was until the next one did.

    Attributes:
        live_since: The time.
        release_id: Which.
    """

    live_since: datetime
    release_id: str
