"""The steps that fill a generation of the index, each over an open connection of the owner."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import Connection, sql
from psycopg.sql import SQL, Identifier, Literal

from retrieval.access import SCOPE_SEPARATOR, encode_scopes
from retrieval.index.binary_copy import InvalidIndexBatch, binary_copy_stream, vectors_as_matrix
from retrieval.store.postgres import DatabaseRow, fetch_value

Progress = Callable[[str, int], None]
"""Called with a stage and the rows it has done."""

INDEX_COLUMNS = pa.schema(
    [
        pa.field("char_start", pa.int32(), nullable=False),
        pa.field("char_end", pa.int32(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("token_count", pa.int32(), nullable=False),
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("heading", pa.string()),
        pa.field("content_sha256", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
    ]
)
"""What a batch must hold, in any order, beside `vector`: (fixed-size) lists of float32 of one length."""

GROUPS_COLUMN = pa.field("access_groups", pa.string())
"""What a batch may hold too: each row's `group_set`; without it everybody of the tenant may read them."""

STORED_COLUMNS = ["scope" if name == "tenant" else name for name in INDEX_COLUMNS.names]
"""The columns of a chunk's row that come from a batch, but for the vector."""

_COPIED = ["generation", "chunk_no", "valid_from", *STORED_COLUMNS, "embedding"]
_PARTITIONED = ("chunks", "postings", "frequencies")
_EMPTY_GRAPH_BYTES = 1 << 20
"""A graph smaller than that is not worth its rebuilding."""
_LARGE_GRAPH_ROWS = 10_000
_BLOAT = 0.2
"""What a large graph may hold beyond its rows, as a share of them."""
_PAGE_BYTES = 8160


@dataclass(frozen=True)
class RowNumbering:
    """What every row of one load shares, and the number of its first."""

    generation: int
    epoch: int
    first_chunk_no: int
    dimension: int


def partition_name(table: str, generation: int) -> Identifier:
    """The name of a generation's part of a partitioned table."""
    return Identifier("headwater", f"{table}_g{generation}")


def numbered_rows(
    batches: Iterable[pa.RecordBatch], numbering: RowNumbering, loaded: Progress
) -> Iterator[pa.RecordBatch]:
    """Checks batches of chunks and gives them their generation, row numbers and first epoch.

    Raises:
        InvalidIndexBatch: A column is missing or has another type, a value is missing or cannot be stored, or
            a vector has another length than the generation's.
    """
    number = numbering.first_chunk_no
    for batch in batches:
        missing = {*INDEX_COLUMNS.names, "vector"} - set(batch.schema.names)
        if missing:
            raise InvalidIndexBatch(f"a batch of chunks has no column {', '.join(sorted(missing))}")
        columns = [_checked(batch, field) for field in INDEX_COLUMNS]
        place = INDEX_COLUMNS.get_field_index("tenant")
        columns[place] = _scopes(batch, columns[place])
        dimension = vectors_as_matrix(batch.column("vector")).shape[1]
        if batch.num_rows and dimension != numbering.dimension:
            raise InvalidIndexBatch(
                f"a batch holds vectors of {dimension} numbers and the index is for {numbering.dimension}: "
                "they come from different models"
            )
        count = batch.num_rows
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(np.full(count, numbering.generation, np.int32)),
                pa.array(np.arange(number, number + count, dtype=np.int64)),
                pa.array(np.full(count, numbering.epoch, np.int64)),
                *columns,
                batch.column("vector"),
            ],
            names=_COPIED,
        )
        number += count
        loaded("chunks", number - numbering.first_chunk_no)


def _checked(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    column = batch.column(field.name)
    try:
        column = column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidIndexBatch(
            f"column {field.name!r} is {batch.schema.field(field.name).type}: {error}"
        ) from error
    if column.null_count and not field.nullable:
        raise InvalidIndexBatch(f"column {field.name!r} lacks a value in {column.null_count} rows of a batch")
    if pa.types.is_string(field.type):
        nul = pc.index(pc.match_substring(pc.fill_null(column, ""), "\0"), True).as_py()
        if nul >= 0:
            chunk_id = batch.column("chunk_id")[nul].as_py()
            raise InvalidIndexBatch(
                f"column {field.name!r} of chunk {chunk_id!r} holds a NUL, which PostgreSQL can not"
            )
    return column


def _scopes(batch: pa.RecordBatch, tenants: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring(tenants, SCOPE_SEPARATOR)).as_py():
        raise InvalidIndexBatch(
            "column 'tenant' holds a control character that separates a tenant from its groups"
        )
    if GROUPS_COLUMN.name not in batch.schema.names:
        return tenants
    return encode_scopes(tenants, _checked(batch, GROUPS_COLUMN))


def create_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Makes a generation's tables beside the others, not attached yet: nobody waits and nobody sees them."""
    for table in _PARTITIONED:
        _create_partition(connection, table, generation)


def _create_partition(connection: Connection[DatabaseRow], table: str, generation: int) -> None:
    connection.execute(
        SQL(
            "CREATE TABLE {part} (LIKE headwater.{table} INCLUDING STORAGE INCLUDING CONSTRAINTS, "
            "CONSTRAINT one_generation CHECK (generation = {generation})) {options}"
        ).format(
            part=partition_name(table, generation),
            table=Identifier(table),
            generation=Literal(generation),
            # Room on each page lets a chunk be closed in place, without new entries in its indexes. What is
            # removed leaves them when `clean_indexes` says so.
            options=SQL("WITH (fillfactor = 90, vacuum_index_cleanup = off)" if table == "chunks" else ""),
        )
    )
    # EXPLAIN of a query for a word or a name would say how often rows have it that one may not see.
    connection.execute(
        "SELECT headwater.keep_no_statistics(%s)", (partition_name(table, generation).as_string(connection),)
    )


def copy_chunks(
    connection: Connection[DatabaseRow], into: Identifier, rows: Iterator[pa.RecordBatch], freeze: bool
) -> None:
    """Loads rows through one binary COPY; `freeze` needs a table made in this transaction.

    Raises:
        InvalidIndexBatch: As in `rows_to_copy`.
    """
    copy = SQL("COPY {into} ({columns}) FROM STDIN WITH (FORMAT binary, FREEZE {freeze})").format(
        into=into, columns=SQL(", ").join(map(Identifier, _COPIED)), freeze=Literal(freeze)
    )
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        for piece in binary_copy_stream(rows):
            stream.write(piece)


def sort_chunks_by_scope(connection: Connection[DatabaseRow], generation: int) -> None:
    """Lays loaded chunks of one scope side by side, numbered so: what a tenant reads is on fewer pages.

    Chunks that come later lie where there is room.
    """
    chunks, unsorted = partition_name("chunks", generation), Identifier(f"unsorted_g{generation}")
    several = SQL("SELECT EXISTS (SELECT FROM {chunks} WHERE scope <> (SELECT scope FROM {chunks} LIMIT 1))")
    if not fetch_value(connection, several.format(chunks=chunks)):
        return
    connection.execute(SQL("ALTER TABLE {} RENAME TO {}").format(chunks, unsorted))
    _create_partition(connection, "chunks", generation)
    connection.execute(
        SQL(
            "INSERT INTO {chunks} (generation, chunk_no, {others}) "
            "SELECT generation, row_number() OVER (ORDER BY scope, chunk_no) - 1, {others} FROM {unsorted} "
            "ORDER BY scope, chunk_no; DROP TABLE {unsorted}"
        ).format(
            chunks=chunks,
            others=SQL(", ").join(map(Identifier, _COPIED[2:])),
            unsorted=Identifier("headwater", f"unsorted_g{generation}"),
        )
    )


def create_chunk_indexes(connection: Connection[DatabaseRow], generation: int) -> None:
    """Indexes loaded chunks by identity and scope.

    Raises:
        psycopg.errors.UniqueViolation: Two rows have one chunk_id.
    """
    for columns in (
        # None names valid_to: that keeps closing a row cheap.
        "UNIQUE INDEX ON {} (chunk_id, valid_from)",
        "UNIQUE INDEX ON {} (chunk_no) INCLUDE (generation, scope)",
        "INDEX ON {} (scope)",
    ):
        connection.execute(SQL("CREATE " + columns).format(partition_name("chunks", generation)))


def create_posting_indexes(connection: Connection[DatabaseRow], generation: int) -> None:
    """Indexes a generation's postings and frequencies, when they are all there."""
    for table, columns in (
        ("postings", "(scope, lexeme, first_no)"),
        ("frequencies", "(scope, lexeme, epoch) INCLUDE (generation, chunk_count)"),
    ):
        connection.execute(
            SQL("CREATE UNIQUE INDEX ON {} " + columns).format(partition_name(table, generation))
        )


def create_hnsw_graph(
    connection: Connection[DatabaseRow],
    generation: int,
    dimension: int,
    hnsw_m: int,
    hnsw_ef_construction: int,
) -> None:
    """Makes a loaded generation's HNSW graph: by far the longest part of a build."""
    connection.execute(
        SQL(
            "CREATE INDEX ON {chunks} USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops) "
            "WITH (m = {m}, ef_construction = {ef_construction})"
        ).format(
            chunks=partition_name("chunks", generation),
            dimension=Literal(dimension),
            m=Literal(hnsw_m),
            ef_construction=Literal(hnsw_ef_construction),
        )
    )


def insert_scopes(connection: Connection[DatabaseRow], chunks: sql.Composable) -> None:
    """Lists the groups that rows in `chunks` are for, so that a reader in one of them finds their scope."""
    connection.execute(
        SQL("""
            INSERT INTO headwater.scopes (scope, tenant, groups)
            SELECT scope, split_part(scope, {mark}, 1), string_to_array(split_part(scope, {mark}, 2), ',')
            FROM {chunks} WHERE strpos(scope, {mark}) > 0 GROUP BY scope ON CONFLICT DO NOTHING
        """).format(chunks=chunks, mark=Literal(SCOPE_SEPARATOR))
    )


def attach_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Makes a loaded generation part of the whole; readers of other generations are not held up."""
    for table in _PARTITIONED:
        # A grant given by mistake on the part itself would go around the whole's policies. Only now, because
        # COPY does not load tables that have any.
        for statement in (
            "ALTER TABLE {part} ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE {part} FORCE ROW LEVEL SECURITY",
            "CREATE POLICY owner_writes ON {part} TO headwater_owner USING (true)",
        ):
            connection.execute(SQL(statement).format(part=partition_name(table, generation)))
        connection.execute(
            SQL("ALTER TABLE headwater.{table} ATTACH PARTITION {part} FOR VALUES IN ({generation})").format(
                table=Identifier(table),
                part=partition_name(table, generation),
                generation=Literal(generation),
            )
        )
        connection.execute(
            SQL("ALTER TABLE {part} DROP CONSTRAINT one_generation").format(
                part=partition_name(table, generation)
            )
        )


def drop_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Drops a generation's tables; waits for the transactions that read the index."""
    for table in _PARTITIONED:
        connection.execute(SQL("DROP TABLE IF EXISTS {}").format(partition_name(table, generation)))


def vacuum_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Cleans and analyses a generation, but for the entries of removed chunks in their indexes."""
    for table in _PARTITIONED:
        connection.execute(SQL("VACUUM (ANALYZE) {}").format(partition_name(table, generation)))


def clean_hnsw_graph(
    connection: Connection[DatabaseRow], generation: int, dimension: int, hnsw_m: int
) -> bool:
    """Takes removed chunks out of their indexes: of a small graph always, of a large one when it pays.

    To take a row out of an HNSW graph VACUUM looks for new neighbours for all that had it as one, one by one:
    for one row in a few hundred that takes longer than to make the graph anew. Until so many left that they
    get in the way of a search they stay in it, where nothing finds them.

    Args:
        connection: Of the owner, outside a transaction.
        generation: Whose.
        dimension: Numbers in a vector, two bytes each.
        hnsw_m: Neighbours of a vector on a layer, twice as many on the lowest; six bytes each.

    Returns:
        Whether the graph was made anew; readers went on meanwhile.
    """
    graph = _graph(connection, generation)
    if graph is None:
        return False
    # pgvector's hnsw.h: whole elements on a page of 8 KB, each with vector, neighbours and 96 bytes more.
    element_bytes = 2 * dimension + 12 * hnsw_m + 96
    pages = 1 / (_PAGE_BYTES // element_bytes) if element_bytes <= _PAGE_BYTES else 2
    bloated = graph.size_bytes > (1 + _BLOAT) * graph.rows * pages * 8192 + _EMPTY_GRAPH_BYTES
    if bloated:
        connection.execute(SQL("REINDEX INDEX CONCURRENTLY {}").format(SQL(graph.name)))
    if bloated or graph.rows < _LARGE_GRAPH_ROWS:
        connection.execute(SQL("VACUUM (INDEX_CLEANUP ON) {}").format(partition_name("chunks", generation)))
    return bloated


class _Graph(NamedTuple):
    name: str
    size_bytes: int
    rows: int


def _graph(connection: Connection[DatabaseRow], generation: int) -> _Graph | None:
    """A generation's HNSW graph; its rows are those that the last VACUUM counted."""
    found = connection.execute(
        "SELECT i.indexrelid::regclass::text, pg_relation_size(i.indexrelid), "
        "greatest(t.reltuples, 0)::bigint FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE a.amname = 'hnsw' AND t.oid = %s::regclass",
        (partition_name("chunks", generation).as_string(connection),),
    ).fetchone()
    return _Graph(*found) if found else None
