"""The index: built as generations, changed in epochs, served by releases.

A build makes a new generation beside the live one; an apply makes the next epoch of one. Neither changes
anything that a reader of a release sees: see retrieval/store/tables.sql.
"""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv
from psycopg.sql import SQL, Identifier, Literal
from psycopg.types.json import Jsonb
from pydantic import Field

from common.lineage import Lineage
from retrieval.access import SCOPE_TENANT_SQL
from retrieval.index.apply import lock_index_state, merge_staged_changes, stage_index_changes
from retrieval.index.build import INDEX_VERSION, begin_generation, exclusive_index_build, load_generation
from retrieval.index.dump import IndexDump, dump_index, restore_index
from retrieval.index.hnsw_graph import HnswGraphConfig, clean_hnsw_graphs, create_missing_hnsw_graphs
from retrieval.index.partitions import read_scope_keys, vacuum_partitions
from retrieval.index.postings import repack_postings
from retrieval.index.prune import prune_index
from retrieval.index.quarantine import read_document_rows, read_quarantined
from retrieval.index.release_log import (
    GATE,
    Decision,
    ReleaseHold,
    ReleaseLog,
    lock_log,
    move_live,
    read_hold,
    read_live,
    refuse_if_held,
    write_hold,
)
from retrieval.index.releases import (
    insert_index_release,
    read_index_releases,
    read_live_history,
    read_live_release,
    return_to,
)
from retrieval.index.rows import INDEX_COLUMNS, IndexRowNumbering, QuarantinedChunk
from retrieval.index.types import (
    IndexConflict,
    IndexPoint,
    IndexRelease,
    IndexReleaseDetails,
    IndexState,
    LiveHistoryEntry,
    UnknownIndexRelease,
)
from retrieval.store.postgres import DatabaseRow, Postgres

_ROWS_AT_COLUMNS = (
    "chunk_id", "tenant", "doc_id", "uri", "content_sha256", "text_sha256", "language", "ordinal",
    "char_start", "char_end",
)  # fmt: skip


class IndexConfig(HnswGraphConfig):
    """The settings of index builds."""

    lock_timeout_s: float = Field(default=5.0, gt=0)
    """How long pruning waits for readers in flight, and new readers for it."""


class Index:
    """The search index in PostgreSQL: builds and changes it, and releases states of it.

    Args:
        postgres: The serving database.
        config: The settings of builds.
    """

    def __init__(self, postgres: Postgres, config: IndexConfig | None = None) -> None:
        self._postgres, self._config = postgres, config or IndexConfig()
        self.log = ReleaseLog(postgres)

    def state(self, model_digest: str, chunker_digest: str) -> IndexState | None:
        """Returns the newest finished generation of this model and chunker, or None if there is none."""
        with self._postgres.owner() as connection:
            row = connection.execute(
                "SELECT generation, epoch, model_digest, chunker_digest, dimension, lineage "
                "FROM headwater.index_state WHERE model_digest = %s AND chunker_digest = %s "
                "AND index_version = %s AND status = 'ready' ORDER BY generation DESC LIMIT 1",
                (model_digest, chunker_digest, INDEX_VERSION),
            ).fetchone()
        return _index_state(row) if row else None

    def newest_state(self, generation: int | None = None) -> IndexState | None:
        """Returns the newest finished generation of any model and chunker, or the one named; None without."""
        with self._postgres.owner() as connection:
            row = connection.execute(
                "SELECT generation, epoch, model_digest, chunker_digest, dimension, lineage "
                "FROM headwater.index_state WHERE status = 'ready' AND generation = coalesce(%s, generation) "
                "ORDER BY generation DESC LIMIT 1",
                (generation,),
            ).fetchone()
        return _index_state(row) if row else None

    def build(
        self,
        model_digest: str,
        chunker_digest: str,
        dimension: int,
        batches: Iterable[pa.RecordBatch],
        lineage: Lineage,
        after: int = 0,
    ) -> IndexState:
        """Builds a new generation beside the live one, which is served once a release points at it.

        The build is one transaction. An interrupted build leaves a row with the state `building`, which the
        next build removes. A chunk that can't be indexed is quarantined, and the other chunks are built.

        Args:
            model_digest: The digest of the embedding model.
            chunker_digest: The digest of the chunker.
            dimension: The length of a vector.
            batches: The chunks, with `INDEX_COLUMNS` and `vector`; they are read once.
            lineage: The table versions that the chunks were made from, and the run.
            after: A number that the new generation's number must exceed. After the index was lost and is
                built again, a decision about an old generation must not apply to a new one.

        Raises:
            IndexConflict: Another build is running.
            InvalidIndexBatch: A batch can not be indexed, or two rows have one chunk_id.
        """
        with self._postgres.maintenance() as connection, exclusive_index_build(connection):
            number = begin_generation(connection, model_digest, chunker_digest, dimension, lineage, after)
            with connection.transaction():
                load_generation(connection, number, dimension, batches, self._config)
            vacuum_partitions(connection, number)
        return IndexState(number, 1, model_digest, chunker_digest, dimension, lineage)

    def apply(
        self,
        state: IndexState,
        upserts: Iterable[pa.RecordBatch],
        removed_chunk_ids: Iterable[str],
        lineage: Lineage,
    ) -> IndexState:
        """Changes a generation in one transaction, as its next epoch; earlier epochs are read unchanged.

        An indexed chunk that has changed gets an end epoch and a new row; a chunk that has not changed keeps
        its row. If no chunk changed, the epoch stays and only the lineage is updated. A chunk that can't be
        indexed is quarantined.

        Args:
            state: The state on which the change is based.
            upserts: The new and changed chunks, as in `build`.
            removed_chunk_ids: The ids of the chunks to remove; unknown ids are ignored.
            lineage: The table versions that the generation is made from after the change.

        Raises:
            IndexConflict: The generation is no longer at `state.epoch`; nothing was changed.
            InvalidIndexBatch: As in `build`, or a chunk is both removed and upserted.
        """
        number, epoch = state.generation, state.epoch + 1
        with self._postgres.owner() as connection:
            next_chunk_no = lock_index_state(connection, state)
            numbering = IndexRowNumbering(
                number, epoch, next_chunk_no, state.dimension, read_scope_keys(connection)
            )
            stage_index_changes(connection, upserts, removed_chunk_ids, numbering)
            changed = merge_staged_changes(connection, numbering)
            if not changed:
                epoch = state.epoch
            connection.execute(
                "UPDATE headwater.index_state "
                "SET epoch = %s, next_chunk_no = %s, lineage = %s, changed_at = now() WHERE generation = %s",
                (epoch, numbering.next_chunk_no, Jsonb(lineage.model_dump(mode="json")), number),
            )
        if changed:
            with self._postgres.maintenance() as connection:
                vacuum_partitions(connection, number)
                create_missing_hnsw_graphs(connection, number, state.dimension, self._config)
        return IndexState(number, epoch, state.model_digest, state.chunker_digest, state.dimension, lineage)

    def rows_at(self, point: IndexPoint) -> pa.Table:
        """Returns the rows of all tenants that are visible at `point`, sorted by chunk_id.

        Returns:
            chunk_id, tenant, doc_id, uri, content_sha256, text_sha256, language (strings), ordinal,
            char_start, char_end (int32).
        """
        copy = SQL(
            "COPY (SELECT {columns} FROM headwater.chunks "
            "WHERE generation = {generation} AND valid_from <= {epoch} "
            "AND (valid_to IS NULL OR valid_to > {epoch}) ORDER BY chunk_id) TO STDOUT (FORMAT csv, HEADER)"
        ).format(
            columns=SQL(", ").join(
                SQL(SCOPE_TENANT_SQL + " AS tenant") if name == "tenant" else Identifier(name)
                for name in _ROWS_AT_COLUMNS
            ),
            generation=Literal(point.generation),
            epoch=Literal(point.epoch),
        )
        with self._postgres.owner() as connection, connection.cursor() as cursor, cursor.copy(copy) as stream:
            text = b"".join(stream)
        kinds = {name: INDEX_COLUMNS.field(name).type for name in _ROWS_AT_COLUMNS}
        return pa.csv.read_csv(
            BytesIO(text),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
        )

    def release(
        self,
        release_id: str,
        point: IndexPoint,
        expected: str | None,
        details: IndexReleaseDetails,
        reason: str = "",
        decided_by: str = GATE,
    ) -> IndexRelease:
        """Makes an epoch of the index live under a name, if `expected` is still the live release.

        Args:
            release_id: The release's name.
            point: The epoch to serve.
            expected: The release that was live when `point` was evaluated; None for the first.
            details: The release's evaluation and origin.
            reason: Why, in a sentence.
            decided_by: Who decided it.

        Raises:
            ReleaseConflict: Another release went live meanwhile.
            ReleaseHeld: What is live is held.
            IndexReleaseExists: The name is taken.
            UnknownIndexRelease: The generation does not exist, or has not reached that epoch.
        """
        decision = "released" if decided_by == GATE else "promoted"
        with self._postgres.owner() as connection:
            lock_log(connection)
            insert_index_release(connection, release_id, point, details)
            made = read_index_releases(connection, release_id)[0]
            move = Decision("index", "", decision, release_id, reason, decided_by, made.record)
            move_live(connection, move, expected)
        return made

    def promote(self, release_id: str, expected: str, reason: str, decided_by: str) -> IndexRelease:
        """Makes a kept release live that was live before, going on and not back.

        Raises:
            UnknownIndexRelease: It is no longer kept.
            ReleaseConflict: `expected` is not the live release.
            ReleaseHeld: What is live is held.
        """
        with self._postgres.owner() as connection:
            lock_log(connection)  # so that it is not pruned before it is live
            kept = read_index_releases(connection, release_id)
            if not kept:
                raise UnknownIndexRelease(f"release {release_id!r} is no longer kept")
            move = Decision("index", "", "promoted", release_id, reason, decided_by, kept[0].record)
            move_live(connection, move, expected)
        return kept[0]

    def rollback(
        self, release_id: str | None, expected: str | None = None, reason: str = "", decided_by: str = ""
    ) -> IndexRelease:
        """Makes an earlier release live again; see `return_to`."""
        with self._postgres.owner() as connection:
            lock_log(connection)
            return return_to(connection, release_id, decided_by, reason, expected)

    def hold(self, release_id: str | None, held_by: str, reason: str, back: bool = False) -> IndexRelease:
        """Holds what is live, after it went back to an earlier release if asked to: until `end_hold`.

        Args:
            release_id: The release; None for the live one, which stays so.
            held_by: Who holds it. Somebody who holds already may choose another release.
            reason: Why, in a sentence; may be empty.
            back: Whether None means the release before the live one.

        Returns:
            The release that is live now.

        Raises:
            UnknownIndexRelease: There is no such release, or none before; lists those there are.
            ReleaseHeld: Somebody else holds what is live.
        """
        with self._postgres.owner() as connection:
            refuse_if_held(connection, held_by)
            live = read_live(connection, "index")
            chosen = release_id or (None if back or live is None else live.digest)
            made = return_to(connection, chosen, held_by, reason, held_by=held_by)
            write_hold(connection, held_by, reason, held_by)
        return made

    def end_hold(self, ended_by: str = "") -> ReleaseHold | None:
        """Lets releases go live again, whoever held what is live; returns the hold that ended, or None."""
        with self._postgres.owner() as connection:
            lock_log(connection)
            hold = read_hold(connection)
            if hold is not None:
                write_hold(connection, None, "", ended_by)
        return hold

    def live_hold(self) -> ReleaseHold | None:
        """Returns who holds what is live, since when and why, or None."""
        return self.log.hold()

    def live(self) -> IndexRelease | None:
        """Returns the release that searches read, or None before the first."""
        with self._postgres.owner() as connection:
            return read_live_release(connection)

    def releases(self) -> list[IndexRelease]:
        """Returns every release that can still be served, newest first."""
        with self._postgres.owner() as connection:
            return read_index_releases(connection)

    def live_history(self) -> list[LiveHistoryEntry]:
        """Returns when each release went live, oldest first, also releases that are no longer kept."""
        with self._postgres.owner() as connection:
            return read_live_history(connection)

    def tenants(self) -> set[str]:
        """Returns the tenants that have, or had, documents in the index."""
        with self._postgres.owner() as connection:
            rows = connection.execute("SELECT DISTINCT tenant FROM headwater.scopes").fetchall()
        return {row[0] for row in rows}

    def groups(self) -> dict[str, list[str]]:
        """Returns the groups that documents were given to, by tenant; tenants without groups are left out."""
        with self._postgres.owner() as connection:
            rows = connection.execute(
                "SELECT tenant, array_agg(DISTINCT name ORDER BY name) FROM headwater.scopes, "
                "unnest(groups) AS name GROUP BY tenant"
            ).fetchall()
        return {row[0]: row[1] for row in rows}

    def quarantined(self, state: IndexState) -> list[QuarantinedChunk]:
        """Returns the chunks that a generation leaves out because they can't be indexed, with the reasons."""
        with self._postgres.owner() as connection:
            return [chunk for _, chunk in read_quarantined(connection, state.generation)]

    def document_rows(self, doc_id: str) -> list[dict[str, Any]]:
        """Returns all rows of a document in the index, in every generation, served or not.

        Returns:
            generation, chunk_id, valid_from and valid_to (epochs; None while it is valid), by generation.
            A quarantined chunk has no epochs, and a `quarantined` with the reason.
        """
        with self._postgres.owner() as connection:
            return read_document_rows(connection, doc_id)

    def dump(self, folder: Path) -> IndexDump:
        """Writes the rows of one snapshot of the index to files in a folder; writers are not blocked."""
        with self._postgres.owner() as connection:
            return dump_index(connection, folder)

    def restore(self, folder: Path, dump: IndexDump) -> None:
        """Fills the index of a new database from the files that `dump` wrote to a folder.

        Raises:
            InvalidIndexDump: The files do not hold rows of the index's tables; nothing was changed.
        """
        with self._postgres.maintenance() as connection:
            with connection.transaction():
                restore_index(connection, folder, dump, self._config)
            for number in dump.dimensions:
                vacuum_partitions(connection, number)
        self._postgres.close()  # the access key is another

    def maintain(self) -> dict[str, int]:
        """Vacuums every finished generation; builds graphs that are missing or have too many deleted rows.

        A large graph keeps deleted rows, which no search returns, until they are a fifth of it; then it is
        rebuilt beside the old one.

        Returns:
            The number of generations (`generations`), and of graphs that were rebuilt (`graphs_rebuilt`).
        """
        rebuilt = 0
        with self._postgres.maintenance() as connection:
            ready = connection.execute(
                "SELECT generation, dimension FROM headwater.index_state WHERE status = 'ready'"
            ).fetchall()
            for number, dimension in ready:
                with connection.transaction():
                    # The generation's writers wait meanwhile.
                    connection.execute(
                        "SELECT FROM headwater.index_state WHERE generation = %s FOR UPDATE", (number,)
                    )
                    repack_postings(connection, number)
                vacuum_partitions(connection, number)
                create_missing_hnsw_graphs(connection, number, dimension, self._config)
                rebuilt += clean_hnsw_graphs(connection, number, dimension, self._config)
        return {"generations": len(ready), "graphs_rebuilt": rebuilt}

    def prune(self, keep: Iterable[tuple[int, int]]) -> int:
        """Deletes the rows that no kept epoch shows; `maintain` later removes them from the HNSW graph.

        See `prune_index` for what is always kept.

        Args:
            keep: (generation, epoch) pairs.

        Returns:
            How many chunk rows were removed from generations that stay.

        Raises:
            IndexConflict: Readers or writers held their locks too long; nothing was changed.
        """
        timeout_s = self._config.lock_timeout_s
        try:
            with self._postgres.owner() as connection:
                connection.execute(
                    "SELECT set_config('lock_timeout', %s, true)", (f"{round(timeout_s * 1000)}ms",)
                )
                removed = prune_index(connection, {*keep})
        except psycopg.errors.LockNotAvailable as error:
            raise IndexConflict(
                f"the index is being read or changed and did not come free within {timeout_s:g} s: "
                "prune it again later"
            ) from error
        if any(removed.values()):
            with self._postgres.maintenance() as connection:
                for number in removed:
                    vacuum_partitions(connection, number)
        return sum(removed.values())


def _index_state(row: DatabaseRow) -> IndexState:
    generation, epoch, model_digest, chunker_digest, dimension, lineage = row
    made_from = Lineage.model_validate(lineage)
    return IndexState(generation, epoch, model_digest, chunker_digest, dimension, made_from)
