"""Releases: names for epochs of the index, which of them is live, and which was live when."""

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from retrieval.index.types import (
    IndexConflict,
    IndexPoint,
    IndexRelease,
    IndexReleaseDetails,
    IndexReleaseExists,
    LiveHistoryEntry,
    UnknownIndexRelease,
)
from retrieval.store.postgres import DatabaseRow, fetch_postgres_value


def insert_index_release(
    connection: Connection[DatabaseRow], release_id: str, point: IndexPoint, details: IndexReleaseDetails
) -> None:
    """Names an epoch of the index, without making it live.

    Raises:
        IndexReleaseExists: The name is taken.
        UnknownIndexRelease: The generation does not exist, or has not reached that epoch.
    """
    there = connection.execute(
        "SELECT FROM headwater.index_state "
        "WHERE generation = %s AND epoch >= %s AND status = 'ready' FOR SHARE",
        (point.generation, point.epoch),
    ).fetchone()
    if there is None:
        raise UnknownIndexRelease(
            f"release {release_id!r} can not go live: generation {point.generation} has no epoch "
            f"{point.epoch}"
        )
    try:
        connection.execute(
            # Releases are ordered by their times, also where the clock was set back.
            "INSERT INTO headwater.releases (release_id, generation, epoch, details, released_at) "
            "SELECT %s, %s, %s, %s, greatest(clock_timestamp(), max(released_at) + interval '1 microsecond') "
            "FROM headwater.releases",
            (release_id, point.generation, point.epoch, Jsonb(details.model_dump(mode="json"))),
        )
    except psycopg.errors.UniqueViolation as error:
        raise IndexReleaseExists(
            f"release {release_id!r} was made before; give this one another name"
        ) from error


def swap_live_pointer(connection: Connection[DatabaseRow], expected: str | None, release_id: str) -> None:
    """Makes a release live if `expected` is the live release now.

    Raises:
        IndexConflict: Another release is live.
    """
    if not fetch_postgres_value(connection, "SELECT headwater.swap_live(%s, %s)", expected, release_id):
        live = fetch_postgres_value(connection, "SELECT release_id FROM headwater.live")
        raise IndexConflict(
            f"{live!r} is live, not {expected!r}, which {release_id!r} was judged against; judge it again"
        )


def read_index_releases(
    connection: Connection[DatabaseRow], release_id: str | None = None
) -> list[IndexRelease]:
    """Returns the releases that can still be served, newest first, or only the one of that name."""
    rows = connection.execute(
        "SELECT release_id, generation, epoch, released_at, details FROM headwater.releases "
        "WHERE %(name)s::text IS NULL OR release_id = %(name)s ORDER BY released_at DESC, release_id",
        {"name": release_id},
    ).fetchall()
    return [
        IndexRelease(name, generation, epoch, released_at, IndexReleaseDetails.model_validate(details))
        for name, generation, epoch, released_at, details in rows
    ]


def read_live_history(connection: Connection[DatabaseRow]) -> list[LiveHistoryEntry]:
    """Returns when each release went live, oldest first, also releases that are no longer kept."""
    rows = connection.execute(
        "SELECT live_since, release_id FROM headwater.live_history ORDER BY live_since"
    ).fetchall()
    return [LiveHistoryEntry(*row) for row in rows]
