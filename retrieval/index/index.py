"""The index: built as generations, changed in epochs, served by releases.

A build makes a new generation beside the live one; an apply makes a new epoch within one. Neither changes
anything that a reader of a release sees: see schema.sql.
"""

import contextlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field

from retrieval.index import apply as epochs
from retrieval.index import build as steps
from retrieval.index import postings as words
from retrieval.index.binary_copy import InvalidIndexBatch
from retrieval.index.build import INDEX_COLUMNS, Progress, RowNumbering, partition_name
from retrieval.index.progress import watched
from retrieval.index.types import (
    IndexConflict,
    IndexPoint,
    IndexRelease,
    IndexState,
    LiveHistoryEntry,
    ReleaseDetails,
    ReleaseExists,
    UnknownRelease,
)
from retrieval.lineage import Lineage
from retrieval.store.postgres import DatabaseRow, Postgres, fetch_value

INDEX_VERSION = 3
"""Raised when what a generation stores changes: older ones are rebuilt beside, then retired."""

_BUILD_LOCK = 0x48656165


class IndexConfig(BaseModel):
    """How the index is built."""

    hnsw_m: int = Field(default=16, ge=2, le=100)
    """Neighbours of a vector in the HNSW graph; more finds more and takes more memory."""
    hnsw_ef_construction: int = Field(default=128, ge=4, le=1000)
    """Candidates looked at while a vector is put in; at least twice `hnsw_m`."""
    lock_timeout_s: float = Field(default=5.0, gt=0)
    """How long dropping an old generation may hold up new readers while it waits for those in flight."""


def _silent(stage: str, rows: int) -> None:
    pass


class Index:
    """Writes the index and says what is live.

    Args:
        postgres: The serving database.
        config: How it is built.
    """

    def __init__(self, postgres: Postgres, config: IndexConfig | None = None) -> None:
        self._postgres = postgres
        self._config = config or IndexConfig()

    def state(self, model_digest: str, chunker_digest: str) -> IndexState | None:
        """The newest finished generation of this model and chunker, or None where one has to be built."""
        with self._postgres.owner() as connection:
            row = connection.execute(
                "SELECT generation, epoch, model_digest, chunker_digest, dimension, lineage "
                "FROM headwater.index_state WHERE model_digest = %s AND chunker_digest = %s "
                "AND index_version = %s AND status = 'ready' ORDER BY generation DESC LIMIT 1",
                (model_digest, chunker_digest, INDEX_VERSION),
            ).fetchone()
        return _state(row) if row else None

    def newest_state(self) -> IndexState | None:
        """The newest finished generation of any model and chunker, or None before the first."""
        with self._postgres.owner() as connection:
            row = connection.execute(
                "SELECT generation, epoch, model_digest, chunker_digest, dimension, lineage "
                "FROM headwater.index_state WHERE status = 'ready' ORDER BY generation DESC LIMIT 1"
            ).fetchone()
        return _state(row) if row else None

    def build(
        self,
        model_digest: str,
        chunker_digest: str,
        dimension: int,
        batches: Iterable[pa.RecordBatch],
        lineage: Lineage,
        on_progress: Progress = _silent,
        after: int = 0,
    ) -> IndexState:
        """Builds a new generation beside the live one. It is served once a release points at it.

        All in one transaction: a build that dies leaves a row saying `building`, which the next one clears.

        Args:
            model_digest: Of the embedding model.
            chunker_digest: Of the chunker.
            dimension: Numbers in a vector.
            batches: The chunks, as `INDEX_COLUMNS` and `vector`; read once.
            lineage: What they were made from.
            on_progress: Called with a stage and the rows it has done.
            after: The new generation's number is higher, also where the index was lost and is made again:
                what was decided of an old generation must not be taken for this one's.

        Raises:
            IndexConflict: Another build is running.
            InvalidIndexBatch: A batch can not be indexed, or two rows have one chunk_id.
        """
        with self._postgres.maintenance() as connection, _only_builder(connection):
            connection.execute("DELETE FROM headwater.index_state WHERE status = 'building'")
            connection.execute(
                "SELECT setval(pg_get_serial_sequence('headwater.index_state', 'generation'), %(after)s) "
                "WHERE %(after)s > (SELECT coalesce(max(generation), 0) FROM headwater.index_state)",
                {"after": after},
            )
            number = fetch_value(
                connection,
                "INSERT INTO headwater.index_state "
                "(model_digest, chunker_digest, index_version, dimension, lineage, status) "
                "VALUES (%s, %s, %s, %s, %s, 'building') RETURNING generation",
                model_digest, chunker_digest, INDEX_VERSION, dimension,
                Jsonb(lineage.model_dump(mode="json")),
            )  # fmt: skip
            chunks = partition_name("chunks", number)
            with connection.transaction():
                steps.create_partitions(connection, number)
                rows = steps.numbered_rows(batches, RowNumbering(number, 1, 0, dimension), on_progress)
                steps.copy_chunks(connection, chunks, rows, freeze=True)
                count = fetch_value(connection, SQL("SELECT count(*) FROM {}").format(chunks))
                steps.sort_chunks_by_scope(connection, number)
                try:
                    steps.create_chunk_indexes(connection, number)
                except psycopg.errors.UniqueViolation as error:
                    raise InvalidIndexBatch(
                        f"two rows have one chunk_id: {error.diag.message_detail}"
                    ) from error
                on_progress("indexed", count)
                steps.insert_scopes(connection, chunks)
                words.fill_postings(connection, number, count, on_progress)
                steps.create_posting_indexes(connection, number)
                on_progress("postings", count)
                with watched(self._postgres, connection, "graph", on_progress):
                    steps.create_hnsw_graph(
                        connection, number, dimension, self._config.hnsw_m, self._config.hnsw_ef_construction
                    )
                on_progress("graph", count)
                steps.attach_partitions(connection, number)
                connection.execute(
                    "UPDATE headwater.index_state "
                    "SET status = 'ready', next_chunk_no = %s, changed_at = now() WHERE generation = %s",
                    (count, number),
                )
            steps.vacuum_partitions(connection, number)
        return IndexState(number, 1, model_digest, chunker_digest, dimension, lineage)

    def apply(
        self,
        state: IndexState,
        upserts: Iterable[pa.RecordBatch],
        removed_chunk_ids: Iterable[str],
        lineage: Lineage,
    ) -> IndexState:
        """Changes a generation in one transaction, as its next epoch; readers of others see no difference.

        A chunk that is there already is closed and put in anew where anything about it changed, and left
        alone where nothing did. When nothing changed at all the epoch stays and only the lineage moves on.

        Args:
            state: What the change was worked out from.
            upserts: Chunks that are new or changed, as in `build`.
            removed_chunk_ids: Chunks that went away; unknown ones are no error.
            lineage: What the generation is made from after the change.

        Raises:
            IndexConflict: The generation is no longer at `state.epoch`; nothing was changed.
            InvalidIndexBatch: As in `build`, or a chunk is both removed and upserted.
        """
        number, epoch = state.generation, state.epoch + 1
        with self._postgres.owner() as connection:
            row = connection.execute(
                "SELECT epoch, next_chunk_no, status FROM headwater.index_state "
                "WHERE generation = %s FOR UPDATE",
                (number,),
            ).fetchone()
            if row is None or row[2] != "ready" or row[0] != state.epoch:
                now = f"is {row[2]} at epoch {row[0]}" if row else "is gone"
                raise IndexConflict(
                    f"generation {number} {now}, and the change was worked out from epoch {state.epoch}"
                )
            last_no = epochs.stage_index_changes(
                connection, upserts, removed_chunk_ids, RowNumbering(number, epoch, row[1], state.dimension)
            )
            changed = epochs.merge_staged_changes(connection, number, epoch)
            if not changed:
                epoch = state.epoch
            connection.execute(
                "UPDATE headwater.index_state "
                "SET epoch = %s, next_chunk_no = %s, lineage = %s, changed_at = now() WHERE generation = %s",
                (epoch, last_no, Jsonb(lineage.model_dump(mode="json")), number),
            )
        if changed:
            with self._postgres.maintenance() as connection:
                steps.vacuum_partitions(connection, number)
        return IndexState(number, epoch, state.model_digest, state.chunker_digest, state.dimension, lineage)

    def snapshot(self, point: IndexPoint) -> pa.Table:
        """The rows that a reader at `point` sees, of every tenant, by chunk_id.

        Returns:
            chunk_id, tenant, doc_id, uri, content_sha256, text_sha256, language (strings), ordinal,
            char_start, char_end (int32).
        """
        kinds = {
            name: INDEX_COLUMNS.field(name).type
            for name in (
                "chunk_id", "tenant", "doc_id", "uri", "content_sha256", "text_sha256", "language", "ordinal",
                "char_start", "char_end",
            )
        }  # fmt: skip
        copy = SQL(
            "COPY (SELECT {columns} FROM headwater.chunks "
            "WHERE generation = {generation} AND valid_from <= {epoch} "
            "AND (valid_to IS NULL OR valid_to > {epoch}) ORDER BY chunk_id) TO STDOUT (FORMAT csv, HEADER)"
        ).format(
            columns=SQL(", ").join(
                SQL("split_part(scope, E'\\x1f', 1) AS tenant") if name == "tenant" else Identifier(name)
                for name in kinds
            ),
            generation=Literal(point.generation),
            epoch=Literal(point.epoch),
        )
        with self._postgres.owner() as connection, connection.cursor() as cursor, cursor.copy(copy) as stream:
            text = b"".join(stream)
        return pa.csv.read_csv(
            BytesIO(text),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
        )

    def release(
        self, release_id: str, point: IndexPoint, expected: str | None, details: ReleaseDetails
    ) -> IndexRelease:
        """Makes a moment of the index live under a name, if `expected` is still the live release.

        Args:
            release_id: Its name.
            point: What it serves.
            expected: The release that was live when `point` was judged; None for the first.
            details: What it was judged by and what it was made from.

        Raises:
            IndexConflict: Another release went live meanwhile.
            ReleaseExists: The name is taken.
            UnknownRelease: The generation is not there, or has not come to that epoch.
        """
        with self._postgres.owner() as connection:
            there = connection.execute(
                "SELECT FROM headwater.index_state "
                "WHERE generation = %s AND epoch >= %s AND status = 'ready' FOR SHARE",
                (point.generation, point.epoch),
            ).fetchone()
            if there is None:
                raise UnknownRelease(
                    f"release {release_id!r} can not go live: generation {point.generation} has no epoch "
                    f"{point.epoch}"
                )
            try:
                connection.execute(
                    # Which release was before which is told by their times, also where the clock went back.
                    "INSERT INTO headwater.releases (release_id, generation, epoch, details, released_at) "
                    "SELECT %s, %s, %s, %s, greatest(clock_timestamp(), "
                    "max(released_at) + interval '1 microsecond') FROM headwater.releases",
                    (release_id, point.generation, point.epoch, Jsonb(details.model_dump(mode="json"))),
                )
            except psycopg.errors.UniqueViolation as error:
                raise ReleaseExists(
                    f"release {release_id!r} was made before; give this one another name"
                ) from error
            _swap(connection, expected, release_id)
            return _releases(connection, release_id)[0]

    def rollback(self, release_id: str) -> IndexRelease:
        """Makes an earlier release live again.

        Raises:
            UnknownRelease: There is no such release; lists those there are.
            IndexConflict: Another release went live at the same time.
        """
        with self._postgres.owner() as connection:
            known = {release.release_id: release for release in _releases(connection)}
            if release_id not in known:
                names = ", ".join(known) or "none"
                raise UnknownRelease(f"there is no release {release_id!r} to go back to; known: {names}")
            live = fetch_value(connection, "SELECT release_id FROM headwater.live FOR UPDATE")
            _swap(connection, live, release_id)
        return known[release_id]

    def live(self) -> IndexRelease | None:
        """The release that searches read, or None before the first."""
        with self._postgres.owner() as connection:
            name = fetch_value(connection, "SELECT release_id FROM headwater.live")
            return _releases(connection, name)[0] if name else None

    def releases(self) -> list[IndexRelease]:
        """Every release that can still be served, newest first."""
        with self._postgres.owner() as connection:
            return _releases(connection)

    def live_history(self) -> list[LiveHistoryEntry]:
        """What was live since when, oldest first; releases that are no longer kept are in it too."""
        with self._postgres.owner() as connection:
            rows = connection.execute(
                "SELECT live_since, release_id FROM headwater.live_history ORDER BY live_since"
            ).fetchall()
        return [LiveHistoryEntry(*row) for row in rows]

    def groups(self) -> dict[str, list[str]]:
        """Each tenant's groups that documents were given to; tenants without any are not in it."""
        with self._postgres.owner() as connection:
            rows = connection.execute(
                "SELECT tenant, array_agg(DISTINCT name ORDER BY name) FROM headwater.scopes, "
                "unnest(groups) AS name GROUP BY tenant"
            ).fetchall()
        return {row[0]: row[1] for row in rows}

    def document_rows(self, doc_id: str) -> list[dict[str, Any]]:
        """Every row that the index holds of a document, in any generation, served or not.

        Returns:
            generation, chunk_id, valid_from and valid_to (epochs; None while it is valid), by generation.
        """
        columns = ("generation", "chunk_id", "valid_from", "valid_to")
        with self._postgres.owner() as connection:
            rows = connection.execute(
                "SELECT generation, chunk_id, valid_from, valid_to FROM headwater.chunks WHERE doc_id = %s "
                "ORDER BY generation, ordinal, valid_from",
                (doc_id,),
            ).fetchall()
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def maintain(self) -> dict[str, int]:
        """Cleans and analyses every generation that is ready, and rebuilds an HNSW graph that has bloated.

        A large graph keeps what left it, out of every search's reach, until that is a fifth of it; then it is
        made anew, beside the old one.

        Returns:
            generations, and how many graphs were rebuilt.
        """
        rebuilt = 0
        with self._postgres.maintenance() as connection:
            ready = connection.execute(
                "SELECT generation, dimension FROM headwater.index_state WHERE status = 'ready'"
            ).fetchall()
            for number, dimension in ready:
                with connection.transaction():
                    # Writers of it wait meanwhile.
                    connection.execute(
                        "SELECT FROM headwater.index_state WHERE generation = %s FOR UPDATE", (number,)
                    )
                    words.repack_postings(connection, number)
                steps.vacuum_partitions(connection, number)
                rebuilt += steps.clean_hnsw_graph(connection, number, dimension, self._config.hnsw_m)
        return {"generations": len(ready), "graphs_rebuilt": rebuilt}

    def prune(self, keep: Iterable[tuple[int, int]]) -> int:
        """Removes, for good, what no kept moment can see; `maintain` takes it out of the HNSW graph too.

        The live release is always kept. A generation without a kept moment is dropped whole, except one being
        built. In the others the newest epoch stays too, since the next change starts there. Releases of
        moments that are not kept go.

        Args:
            keep: (generation, epoch) pairs.

        Returns:
            How many chunk rows were removed from generations that stay.

        Raises:
            IndexConflict: Readers did not let go of a dropped generation in time; nothing was changed.
        """
        kept = set(keep)
        with self._postgres.owner() as connection:
            connection.execute(
                "SELECT set_config('lock_timeout', %s, true)",
                (f"{round(self._config.lock_timeout_s * 1000)}ms",),
            )
            # Writers of these generations wait, or are fenced.
            states = connection.execute(
                "SELECT generation, epoch FROM headwater.index_state WHERE status = 'ready' "
                "ORDER BY generation FOR UPDATE"
            ).fetchall()
            live = connection.execute(
                "SELECT generation, epoch FROM headwater.live JOIN headwater.releases USING (release_id) "
                "FOR UPDATE OF live"
            ).fetchone()
            kept |= {(live[0], live[1])} if live else set()
            connection.execute(
                "DELETE FROM headwater.releases WHERE (generation, epoch) NOT IN "
                "(SELECT * FROM unnest(%s::integer[], %s::bigint[]))",
                ([number for number, _ in kept], [epoch for _, epoch in kept]),
            )
            removed: dict[int, int] = {}
            for number, newest in states:
                kept_epochs = sorted(epoch for kept_number, epoch in kept if kept_number == number)
                if kept_epochs:
                    removed[number] = epochs.prune_epochs(connection, number, [*kept_epochs, newest])
                    continue
                try:
                    steps.drop_partitions(connection, number)
                except psycopg.errors.LockNotAvailable as error:
                    raise IndexConflict(f"generation {number} is being read; prune again later") from error
                connection.execute("DELETE FROM headwater.statistics WHERE generation = %s", (number,))
                connection.execute(
                    "UPDATE headwater.index_state SET status = 'retired', changed_at = now() "
                    "WHERE generation = %s",
                    (number,),
                )
        if any(removed.values()):
            with self._postgres.maintenance() as connection:
                for number in removed:
                    steps.vacuum_partitions(connection, number)
        return sum(removed.values())


@contextlib.contextmanager
def _only_builder(connection: Connection[DatabaseRow]) -> Iterator[None]:
    """Keeps other builds out.

    Raises:
        IndexConflict: Another one is running.
    """
    if not fetch_value(connection, "SELECT pg_try_advisory_lock(%s)", _BUILD_LOCK):
        raise IndexConflict("another build of the index is running; wait for it to end")
    try:
        yield
    finally:
        # The server lets go of it too when the connection ends, but a moment later.
        with contextlib.suppress(psycopg.Error):
            connection.execute("SELECT pg_advisory_unlock(%s)", (_BUILD_LOCK,))


def _swap(connection: Connection[DatabaseRow], expected: str | None, release_id: str) -> None:
    if not fetch_value(connection, "SELECT headwater.swap_live(%s, %s)", expected, release_id):
        live = fetch_value(connection, "SELECT release_id FROM headwater.live")
        raise IndexConflict(
            f"{live!r} is live, not {expected!r}, which {release_id!r} was judged against; judge it again"
        )


def _releases(connection: Connection[DatabaseRow], release_id: str | None = None) -> list[IndexRelease]:
    rows = connection.execute(
        "SELECT release_id, generation, epoch, released_at, details FROM headwater.releases "
        "WHERE %(name)s::text IS NULL OR release_id = %(name)s ORDER BY released_at DESC, release_id",
        {"name": release_id},
    ).fetchall()
    return [
        IndexRelease(release_id, generation, epoch, released_at, ReleaseDetails.model_validate(details))
        for release_id, generation, epoch, released_at, details in rows
    ]


def _state(row: DatabaseRow) -> IndexState:
    generation, epoch, model_digest, chunker_digest, dimension, lineage = row
    made_from = Lineage.model_validate(lineage)
    return IndexState(generation, epoch, model_digest, chunker_digest, dimension, made_from)
