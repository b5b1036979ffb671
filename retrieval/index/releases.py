"""Releases: names for epochs of the index, which of them is live, and which was live when."""

from dataclasses import replace

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from retrieval.index.release_log import (
    Decision,
    move_back,
    move_live,
    read_decisions,
    read_live,
    read_way_back,
    refuse_if_held,
)
from retrieval.index.types import (
    IndexPoint,
    IndexRelease,
    IndexReleaseDetails,
    IndexReleaseExists,
    LiveHistoryEntry,
    UnknownIndexRelease,
)
from retrieval.store.postgres import DatabaseRow

_COLUMNS = "release_id, generation, epoch, released_at, details"


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


def return_to(
    connection: Connection[DatabaseRow],
    release_id: str | None,
    decided_by: str,
    reason: str,
    expected: str | None = None,
    held_by: str | None = None,
) -> IndexRelease:
    """Makes a kept release live again, and returns it; nothing moves where it is live.

    Args:
        connection: The owner's connection, in a transaction that has locked the log.
        release_id: The release; None for the newest kept one on the way back.
        decided_by: Who decided it.
        reason: Why, in a sentence; may be empty.
        expected: The release that must be live; None for any.
        held_by: Who may move although they hold what is live.

    Raises:
        UnknownIndexRelease: There is no such release, or none to go back to; lists those there are.
        ReleaseHeld: Somebody else holds what is live.
        ReleaseConflict: Another release is live.
    """
    known = {release.release_id: release for release in read_index_releases(connection)}
    live, way = read_live(connection, "index"), read_way_back(connection, "index")
    if live is None or live.digest is None:
        raise UnknownIndexRelease("nothing is live yet: run `headwater run`")
    names = ", ".join(known) or "none"
    if release_id is None:
        release_id = next((each.digest for each in way if each.digest in known), None)
        if release_id is None:
            raise UnknownIndexRelease(
                f"no release is kept from before {live.digest}: there is nothing to go back to; kept: {names}"
            )
    if release_id not in known:
        was_live = any(each.digest == release_id for each in read_decisions(connection, "index"))
        fault = (
            f"release {release_id!r} is no longer kept" if was_live else f"there is no release {release_id!r}"
        )
        raise UnknownIndexRelease(f"{fault}, so nothing goes back to it; known: {names}")
    refuse_if_held(connection, held_by)
    if release_id == live.digest:
        return known[release_id]
    on_the_way = next((each for each in way if each.digest == release_id), None)
    said = f"rolled back from {live.digest}" + (f": {reason}" if reason else "")
    made, expected = known[release_id], expected or live.digest
    decision = Decision("index", "", "rolled_back", release_id, said, decided_by, made.record)
    if on_the_way:
        move_back(
            connection, decision, replace(on_the_way, record=made.record), expected or live.digest, held_by
        )
    else:
        move_live(connection, decision, expected, held_by)
    return made


def read_index_releases(
    connection: Connection[DatabaseRow], release_id: str | None = None
) -> list[IndexRelease]:
    """Returns the releases that can still be served, newest first, or only the one of that name."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM headwater.releases "
        "WHERE %(name)s::text IS NULL OR release_id = %(name)s ORDER BY released_at DESC, release_id",
        {"name": release_id},
    ).fetchall()
    return [_index_release(row) for row in rows]


def read_live_release(connection: Connection[DatabaseRow]) -> IndexRelease | None:
    """Returns the release that is live, or None; one statement, so that no move comes between."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM headwater.live JOIN headwater.releases USING (release_id)"
    ).fetchone()
    return _index_release(row) if row else None


def _index_release(row: DatabaseRow) -> IndexRelease:
    name, generation, epoch, released_at, details = row
    return IndexRelease(name, generation, epoch, released_at, IndexReleaseDetails.model_validate(details))


def read_live_history(connection: Connection[DatabaseRow]) -> list[LiveHistoryEntry]:
    """Returns when each release went live, oldest first, also releases that are no longer kept."""
    rows = connection.execute(
        "SELECT at, digest FROM headwater.release_log WHERE kind = 'index' AND moves ORDER BY move_id"
    ).fetchall()
    return [LiveHistoryEntry(*row) for row in rows]
