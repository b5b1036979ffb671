"""The release log: the one truth about what is live, and every decision about it.

A row of `headwater.release_log` is a verdict, a move of what is live, or a hold. What is live of a kind and a
subject is the digest of its newest move. A move locks the log, checks the hold and what is expected to be
live, and adds its row, all in one transaction: of two moves at once one is told. Whatever else says what is
live (Delta's tables, the aliases of models, MLflow) is made from these rows, by `move_id`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from psycopg import Connection

from retrieval.index.types import IndexConflict
from retrieval.store.postgres import DatabaseRow, Postgres

Kind = Literal["index", "engine", "adapter", "hold"]

GATE = "gate"
"""Who decided what a measurement decided; a person's decision has the person's name."""

NO_RECORD = "{}"
"""The record of what was decided before there was a log, and of what has nothing live."""

_COLUMNS = "move_id, kind, subject, decision, digest, moves, before, reason, decided_by, record::text, at"


class ReleaseConflict(IndexConflict):
    """Something else was decided meanwhile. Nothing was changed; read what is live, and decide again."""


class ReleaseHeld(RuntimeError):
    """Somebody holds what is live. Nothing was changed."""


@dataclass(frozen=True)
class ReleaseHold:
    """What is live is held: nothing else goes live until the hold ends.

    Attributes:
        release_id: The release of the index that is live.
        held_by: Who holds it.
        reason: Why, in a sentence; may be empty.
        held_since: Since when.
    """

    release_id: str
    held_by: str
    reason: str
    held_since: datetime

    def __str__(self) -> str:
        """Returns it as a person reads it: what is held, by whom, since when and why."""
        since = f"{self.held_since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return f"{self.release_id} is held by {self.held_by} since {since}" + (
            f": {self.reason}" if self.reason else ""
        )


@dataclass(frozen=True)
class Decision:
    """A row of the release log.

    Attributes:
        kind: What it is about: the index, the engine, an adapter of the engine's model, or a hold of all.
        subject: The name of an adapter's model; empty for what all tenants share.
        decision: A verdict: `approved`, `refused`, `undecided` or, of an engine, `held`; a move: `released`,
            `promoted`, `rolled_back` or `stepped_down`; of a hold, `held` or `hold_ended`.
        digest: What was decided about: a release of the index, the digest of an engine or adapter, who holds;
            in a move None where nothing is live from now on.
        reason: Why, in a sentence.
        decided_by: `GATE`, or the name of a person.
        record: JSON: what was measured, and how it is made again.
        moves: Whether the digest is live from now on.
        before: In a move, the `move_id` of the move to whose state a rollback returns; None where nothing was
            live before.
        move_id: Its place in the log, from 1.
        at: When; later than every row before it, also where the clock was set back, but for what was decided
            before there was a log. None until it is logged.
    """

    kind: Kind
    subject: str
    decision: str
    digest: str | None
    reason: str
    decided_by: str
    record: str = NO_RECORD
    moves: bool = False
    before: int | None = None
    move_id: int = 0
    at: datetime | None = None


def lock_log(connection: Connection[DatabaseRow]) -> None:
    """Lets nobody else write to the log before the transaction ends; reading goes on.

    Whoever locks rows of releases or generations too locks the log first. PostgreSQL ends the transaction of
    a process that is suspended for half a minute, so that it does not block all others.
    """
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = '30s'")
    connection.execute("LOCK TABLE headwater.release_log IN SHARE ROW EXCLUSIVE MODE")


def read_decisions(
    connection: Connection[DatabaseRow], kind: Kind | None = None, subject: str | None = None
) -> list[Decision]:
    """Returns the rows of the log, oldest first: all, or those of a kind and a subject."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM headwater.release_log WHERE (%(kind)s::text IS NULL OR kind = %(kind)s) "
        "AND (%(subject)s::text IS NULL OR subject = %(subject)s) ORDER BY move_id",
        {"kind": kind, "subject": subject},
    )
    return [_decision(row) for row in rows.fetchall()]


def read_live(connection: Connection[DatabaseRow], kind: Kind, subject: str = "") -> Decision | None:
    """Returns the move by which something is live, with digest None for nothing; None before the first."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM headwater.release_log WHERE kind = %s AND subject = %s AND moves "
        "ORDER BY move_id DESC LIMIT 1",
        (kind, subject),
    ).fetchone()
    return _decision(row) if row else None


def read_way_back(connection: Connection[DatabaseRow], kind: Kind, subject: str = "") -> list[Decision]:
    """Returns the moves to whose states one rollback after another returns, the next first.

    What was rolled back from is not among them, and nor is what is live.
    """
    rows = connection.execute(
        f"""
        WITH RECURSIVE way AS (
            (SELECT * FROM headwater.release_log WHERE kind = %s AND subject = %s AND moves
             ORDER BY move_id DESC LIMIT 1)
            UNION ALL
            SELECT earlier.* FROM way JOIN headwater.release_log earlier ON earlier.move_id = way.before
        )
        SELECT {_COLUMNS} FROM way ORDER BY move_id DESC OFFSET 1
        """,
        (kind, subject),
    )
    return [_decision(row) for row in rows.fetchall()]


def read_hold(connection: Connection[DatabaseRow]) -> ReleaseHold | None:
    """Returns who holds what is live, or None."""
    row = connection.execute(
        "SELECT coalesce((SELECT release_id FROM headwater.live), ''), digest, reason, at "
        "FROM headwater.release_log WHERE kind = 'hold' ORDER BY move_id DESC LIMIT 1"
    ).fetchone()
    return None if row is None or row[1] is None else ReleaseHold(*row)


def refuse_if_held(connection: Connection[DatabaseRow], held_by: str | None = None) -> None:
    """Locks the log; does nothing else where nothing is held, or by nobody but `held_by`.

    Raises:
        ReleaseHeld: Somebody else holds what is live.
    """
    lock_log(connection)
    hold = read_hold(connection)
    if hold is not None and hold.held_by != held_by:
        raise ReleaseHeld(f"{hold}; nothing else goes live until `headwater hold --off`")


def write_hold(
    connection: Connection[DatabaseRow], held_by: str | None, reason: str, decided_by: str
) -> None:
    """Holds what is live from now on, or ends the hold where `held_by` is None; the log is locked."""
    decision = "held" if held_by else "hold_ended"
    insert_decision(connection, Decision("hold", "", decision, held_by, reason, decided_by, moves=True))


def insert_decision(connection: Connection[DatabaseRow], decision: Decision) -> Decision:
    """Adds a row to the log, which the transaction has locked, and returns it as it is there."""
    row = connection.execute(
        """
        INSERT INTO headwater.release_log
            (kind, subject, decision, digest, moves, before, reason, decided_by, record, at)
        SELECT %(kind)s, %(subject)s, %(decision)s, %(digest)s, %(moves)s, %(before)s, %(reason)s,
            %(decided_by)s, %(record)s::jsonb,
            coalesce(%(at)s, greatest(clock_timestamp(), max(at) + interval '1 microsecond'))
        FROM headwater.release_log RETURNING move_id, at
        """,
        asdict(decision),
    ).fetchone()
    assert row is not None  # noqa: S101 - of RETURNING
    return replace(decision, move_id=row[0], at=row[1])


def move_live(
    connection: Connection[DatabaseRow], decision: Decision, expected: str | None, held_by: str | None = None
) -> Decision:
    """Has the digest of a decision be live; a rollback returns to what is live now.

    Args:
        connection: The owner's connection, in a transaction.
        decision: What goes live, and why.
        expected: The digest that must be live; None for nothing.
        held_by: Who may move although they hold what is live.

    Raises:
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another digest is live.
    """
    refuse_if_held(connection, held_by)
    live = read_live(connection, decision.kind, decision.subject)
    _require_live(live.digest if live else None, expected, decision)
    before = live.move_id if live else None
    return insert_decision(connection, replace(decision, moves=True, before=before))


def move_back(
    connection: Connection[DatabaseRow],
    decision: Decision,
    to: Decision | None,
    expected: str | None,
    held_by: str | None = None,
) -> Decision:
    """Has what an earlier move made live be live again; the next rollback goes on back from there.

    Args:
        connection: The owner's connection, in a transaction.
        decision: Who decided, and why; digest and record are those of `to`.
        to: A move of `read_way_back`; None for nothing, as before the first.
        expected: The digest that must be live.
        held_by: Who may move although they hold what is live.

    Raises:
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another digest is live, or `to` is no longer on the way back.
    """
    refuse_if_held(connection, held_by)
    live = read_live(connection, decision.kind, decision.subject)
    _require_live(live.digest if live else None, expected, decision)
    if to is None:
        return insert_decision(connection, replace(decision, moves=True))
    if all(each.move_id != to.move_id for each in read_way_back(connection, decision.kind, decision.subject)):
        raise ReleaseConflict(f"{to.digest} is no longer what a rollback returns to; try again")
    back = replace(decision, digest=to.digest, record=to.record, before=to.before, moves=True)
    return insert_decision(connection, back)


def _require_live(digest: str | None, expected: str | None, decision: Decision) -> None:
    if digest != expected:
        raise ReleaseConflict(
            f"{digest or 'nothing'!r} is live, not {expected or 'nothing'!r}, beside which "
            f"{decision.digest or 'the change'!r} was judged; judge it again"
        )


class ReleaseLog:
    """The release log of a database, each call in a transaction of its own.

    Args:
        postgres: The database.
    """

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    def decisions(self, kind: Kind | None = None, subject: str | None = None) -> list[Decision]:
        """Returns the rows of the log, oldest first: all, or those of a kind and a subject."""
        with self._postgres.owner() as connection:
            return read_decisions(connection, kind, subject)

    def live(self, kind: Kind, subject: str = "") -> Decision | None:
        """Returns the move by which something is live; None before the first."""
        with self._postgres.owner() as connection:
            return read_live(connection, kind, subject)

    def newest_verdict(self, kind: Kind, digest: str | None = None) -> Decision | None:
        """Returns the newest verdict on a digest, or on any of the kind; None if there is none."""
        with self._postgres.owner() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM headwater.release_log WHERE kind = %(kind)s AND NOT moves "
                "AND (%(digest)s::text IS NULL OR digest = %(digest)s) ORDER BY move_id DESC LIMIT 1",
                {"kind": kind, "digest": digest},
            ).fetchone()
        return _decision(row) if row else None

    def live_of_kind(self, kind: Kind) -> list[Decision]:
        """Returns the newest move of each subject; its digest is None where nothing is live."""
        with self._postgres.owner() as connection:
            rows = connection.execute(
                f"SELECT DISTINCT ON (subject) {_COLUMNS} FROM headwater.release_log "
                "WHERE kind = %s AND moves ORDER BY subject, move_id DESC",
                (kind,),
            ).fetchall()
        return [_decision(row) for row in rows]

    def way_back(self, kind: Kind, subject: str = "") -> list[Decision]:
        """Returns the moves to whose states one rollback after another returns, the next first."""
        with self._postgres.owner() as connection:
            return read_way_back(connection, kind, subject)

    def hold(self) -> ReleaseHold | None:
        """Returns who holds what is live, or None."""
        with self._postgres.owner() as connection:
            return read_hold(connection)

    def newest_move_id(self) -> int:
        """Returns the place of the newest row of the log; 0 where there is none."""
        with self._postgres.owner() as connection:
            row = connection.execute("SELECT coalesce(max(move_id), 0) FROM headwater.release_log").fetchone()
        return row[0] if row else 0

    def add_verdict(self, decision: Decision, since: int) -> Decision:
        """Adds a verdict, which moves nothing.

        Args:
            decision: The verdict.
            since: The newest row of the log when the measurement began.

        Raises:
            ReleaseConflict: Something was decided about the same kind and subject since then.
        """
        with self._postgres.owner() as connection:
            lock_log(connection)
            decided = read_decisions(connection, decision.kind, decision.subject)
            if decided and decided[-1].move_id > since:
                raise ReleaseConflict(
                    f"{decided[-1].digest or 'nothing'} was {decided[-1].decision} meanwhile; measure again"
                )
            return insert_decision(connection, decision)

    def move(self, decision: Decision, expected: str | None) -> Decision:
        """Has the digest of a decision be live; see `move_live`."""
        with self._postgres.owner() as connection:
            return move_live(connection, decision, expected)

    def move_back(self, decision: Decision, to: Decision | None, expected: str | None) -> Decision:
        """Has what an earlier move made live be live again; see `move_back`."""
        with self._postgres.owner() as connection:
            return move_back(connection, decision, to, expected)

    def adopt(self, decisions: Sequence[Decision]) -> None:
        """Adds decisions that were kept elsewhere before there was this log; each with its own time.

        Does nothing about a kind and subject that the log knows already. A `before` of theirs counts from 1
        over the decisions given.
        """
        with self._postgres.owner() as connection:
            lock_log(connection)
            known = {(each.kind, each.subject) for each in read_decisions(connection)}
            added = dict[int | None, int]()
            for place, each in enumerate(decisions, 1):
                if (each.kind, each.subject) not in known:
                    placed = replace(each, before=added.get(each.before))
                    added[place] = insert_decision(connection, placed).move_id


def _decision(row: DatabaseRow) -> Decision:
    move_id, kind, subject, decision, digest, moves, before, reason, decided_by, record, at = row
    return Decision(kind, subject, decision, digest, reason, decided_by, record, moves, before, move_id, at)
