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
    ReleaseHeld,
    ReleaseHold,
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


def read_hold(connection: Connection[DatabaseRow]) -> ReleaseHold | None:
    """Returns who holds the live release, or None; the pointer does not move before the transaction ends."""
    row = connection.execute(
        "SELECT release_id, held_by, held_because, held_since FROM headwater.live FOR UPDATE"
    ).fetchone()
    return None if row is None or row[1] is None else ReleaseHold(*row)


def refuse_if_held(connection: Connection[DatabaseRow], held_by: str | None = None) -> None:
    """Does nothing where the live release is not held, or by nobody but `held_by`.

    Raises:
        ReleaseHeld: Somebody else holds it.
    """
    hold = read_hold(connection)
    if hold is not None and hold.held_by != held_by:
        raise ReleaseHeld(f"{hold}; `headwater hold --off` ends that")


def write_hold(connection: Connection[DatabaseRow], held_by: str | None, reason: str | None) -> None:
    """Holds the live release from now on, or ends the hold where both are None."""
    connection.execute(
        "UPDATE headwater.live SET held_by = %(by)s, held_because = %(reason)s, "
        "held_since = CASE WHEN %(by)s::text IS NOT NULL THEN clock_timestamp() END",
        {"by": held_by, "reason": reason},
    )


def repoint_live(
    connection: Connection[DatabaseRow], release_id: str | None, expected: str | None = None
) -> IndexRelease:
    """Makes a kept release live, the live one if None, and returns it.

    Raises:
        UnknownIndexRelease: There is no such release; lists those there are.
        IndexConflict: `expected` is not the live release.
    """
    known = {release.release_id: release for release in read_index_releases(connection)}
    live = fetch_postgres_value(connection, "SELECT release_id FROM headwater.live FOR UPDATE")
    chosen = release_id or live
    if chosen is None:
        raise UnknownIndexRelease("nothing is live yet: run `headwater run`")
    if chosen not in known:
        names = ", ".join(known) or "none"
        was_live = any(entry.release_id == chosen for entry in read_live_history(connection))
        fault = f"release {chosen!r} is no longer kept" if was_live else f"there is no release {chosen!r}"
        raise UnknownIndexRelease(f"{fault}, so nothing goes back to it; known: {names}")
    swap_live_pointer(connection, expected or live, chosen)
    return known[chosen]


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
