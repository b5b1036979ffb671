"""The postings, which say which chunks hold a lexeme, and the counts that BM25 needs.

Postings are stored in blocks: a row holds up to `POSTINGS_PER_BLOCK` postings of one lexeme in one scope, by
ascending chunk number, in a tenth of the space that one row per posting would take. A change only adds
blocks. Postings of chunks that are no longer valid stay in them; a search reads in the chunk's own row
whether it is valid. `remove_postings` removes the postings of chunks that no kept epoch shows, and
`repack_postings` joins the small blocks that many small changes have added.
"""

from psycopg import Connection, sql
from psycopg.sql import SQL, Identifier, Literal

from common.progress import Progress
from retrieval.index.partitions import partition_name
from retrieval.store.postgres import DatabaseRow, fetch_postgres_value

POSTINGS_PER_BLOCK = 120
"""Each takes twelve bytes, so that five blocks fill a page of PostgreSQL."""

POSTED_COLUMNS = SQL("chunk_no, scope, language, title, heading, text")
"""The columns of a chunk that its lexemes are read from."""

_SORTED_CHUNKS = 500_000
"""Chunks whose lexemes are sorted into blocks at a time: some gigabytes on disk while it lasts."""
_READ_CHUNKS = 20_000
"""Chunks whose lexemes are read per statement, so that the server can be interrupted in between."""

# How often a chunk holds a lexeme in each of its fields. With its length in lexemes in the upper half it is
# one 64-bit number, which `headwater_search.weighted_tf` reads.
_PACK = "(least(heading_tf, 255) << 24) | (least(title_tf, 255) << 16) | least(text_tf, 65535)"


def fill_postings(connection: Connection[DatabaseRow], generation: int, count: int) -> None:
    """Fills the postings, statistics and frequencies of a loaded generation, some of its chunks at a time.

    Args:
        connection: The owner's connection, in a transaction.
        generation: The number of the generation, whose chunks are loaded and whose other tables are empty.
        count: The number of its chunks, which are numbered from 0.
    """
    progress = Progress("chunks whose words are indexed", count)
    for first in range(0, count, _SORTED_CHUNKS):
        end = min(count, first + _SORTED_CHUNKS)
        for start in range(first, end, _READ_CHUNKS):
            part = SQL("(SELECT * FROM {} WHERE chunk_no >= {} AND chunk_no < {})").format(
                partition_name("chunks", generation), Literal(start), Literal(min(end, start + _READ_CHUNKS))
            )
            terms = read_chunk_lexemes(connection, "terms", part)
            progress.reach(min(end, start + _READ_CHUNKS))
        insert_postings(connection, generation, terms)
        nothing = SQL("(SELECT * FROM {} WHERE false)").format(terms)
        insert_bm25_statistics(connection, generation, 1, terms, nothing)
        connection.execute("DROP TABLE terms")
    insert_first_frequencies(connection, generation)


def read_chunk_lexemes(connection: Connection[DatabaseRow], into: str, chunks: sql.Composable) -> Identifier:
    """Writes the lexemes of chunks into a temporary table, which is created if it does not exist.

    Args:
        connection: The owner's connection, in a transaction; the table is dropped at the transaction's end.
        into: The table's name.
        chunks: The SQL of a relation with `POSTED_COLUMNS`.

    Returns:
        The table: chunk_no, scope, language, length (in lexemes), lexemes and counts (arrays of one length).
    """
    connection.execute(
        SQL("""
            CREATE TEMPORARY TABLE IF NOT EXISTS {into} (
                chunk_no bigint, scope text COLLATE "C", language text COLLATE "C", length bigint,
                lexemes text[], counts bigint[]
            ) ON COMMIT DROP;
            INSERT INTO {into}
            SELECT c.chunk_no, c.scope, c.language, coalesce(w.length, 0) AS length, w.lexemes, w.counts
            FROM {chunks} c
            CROSS JOIN LATERAL (
                SELECT sum(title_tf + heading_tf + text_tf)::bigint AS length, array_agg(lexeme) AS lexemes,
                    array_agg({pack}) AS counts
                FROM (
                    SELECT lexeme, sum(title_tf) AS title_tf, sum(heading_tf) AS heading_tf,
                        sum(text_tf) AS text_tf
                    FROM (
                        SELECT lexeme, tf AS title_tf, 0 AS heading_tf, 0 AS text_tf
                        FROM headwater.terms(c.language, c.title, false)
                        UNION ALL
                        SELECT lexeme, 0, tf, 0 FROM headwater.terms(c.language, c.heading, false)
                        UNION ALL
                        SELECT lexeme, 0, 0, tf FROM headwater.terms(c.language, c.text, false)
                    ) fields
                    GROUP BY lexeme
                ) words
            ) w
        """).format(into=Identifier(into), chunks=chunks, pack=SQL(_PACK))
    )
    connection.execute(SQL("ANALYZE {}").format(Identifier(into)))
    return Identifier(into)


def insert_postings(connection: Connection[DatabaseRow], generation: int, terms: sql.Composable) -> int:
    """Inserts the postings of chunks whose numbers are above all others; returns the number of new blocks."""
    entries = SQL(
        "(SELECT scope, lexeme, chunk_no, (length << 32) | count AS counts "
        "FROM {terms} CROSS JOIN LATERAL unnest(lexemes, counts) AS words (lexeme, count))"
    ).format(terms=terms)
    return _insert_blocks(connection, generation, entries)


def _insert_blocks(
    connection: Connection[DatabaseRow],
    generation: int,
    entries: sql.Composable,
    gone: sql.Composable | None = None,
) -> int:
    statement = SQL("""
        {gone}
        INSERT INTO {postings} (generation, first_no, scope, lexeme, chunk_nos, counts)
        SELECT {generation}, min(chunk_no), scope, lexeme,
            array_agg(chunk_no::integer ORDER BY chunk_no), array_agg(counts ORDER BY chunk_no)
        FROM (
            SELECT chunk_no, scope, lexeme, counts,
                (row_number() OVER (PARTITION BY scope, lexeme ORDER BY chunk_no) - 1) / {block} AS block
            FROM {entries} entries
        ) numbered
        GROUP BY scope, lexeme, block
    """)
    return connection.execute(
        statement.format(
            gone=gone or SQL(""),
            postings=partition_name("postings", generation),
            generation=Literal(generation),
            block=Literal(POSTINGS_PER_BLOCK),
            entries=entries,
        )
    ).rowcount


def insert_bm25_statistics(
    connection: Connection[DatabaseRow],
    generation: int,
    epoch: int,
    added: sql.Composable,
    closed: sql.Composable,
) -> None:
    """Writes the chunk counts and lengths that BM25 needs, for the scopes in which an epoch changes them.

    Args:
        connection: The owner's connection.
        generation: The number of the generation.
        epoch: The new epoch.
        added: The chunks that it adds, from `read_chunk_lexemes`.
        closed: The chunks that it closes, from `read_chunk_lexemes`.
    """
    connection.execute(
        SQL("""
            WITH moved AS (
                SELECT scope, language, sum(sign) AS chunks, sum(sign * length) AS length
                FROM (
                    SELECT scope, language, length, 1 AS sign FROM {added}
                    UNION ALL
                    SELECT scope, language, length, -1 FROM {closed}
                ) rows
                GROUP BY scope, language
            )
            INSERT INTO headwater.statistics (generation, scope, language, epoch, chunk_count, total_length)
            SELECT {generation}, scope, language, {epoch},
                coalesce(before.chunk_count, 0) + moved.chunks,
                coalesce(before.total_length, 0) + moved.length
            FROM moved
            LEFT JOIN LATERAL (
                SELECT chunk_count, total_length FROM headwater.statistics s
                WHERE s.generation = {generation} AND s.scope = moved.scope AND s.language = moved.language
                ORDER BY epoch DESC LIMIT 1
            ) before ON true
            -- A generation is built in parts.
            ON CONFLICT (generation, scope, language, epoch)
            DO UPDATE SET chunk_count = excluded.chunk_count, total_length = excluded.total_length
        """).format(added=added, closed=closed, generation=Literal(generation), epoch=Literal(epoch))
    )


def insert_first_frequencies(connection: Connection[DatabaseRow], generation: int) -> None:
    """Counts from all postings how many chunks hold each lexeme, for a generation's first epoch."""
    connection.execute(
        SQL("""
            INSERT INTO {frequencies} (generation, epoch, chunk_count, scope, lexeme)
            SELECT {generation}, 1, sum(cardinality(chunk_nos)), scope, lexeme
            FROM {postings} GROUP BY scope, lexeme
        """).format(
            frequencies=partition_name("frequencies", generation),
            postings=partition_name("postings", generation),
            generation=Literal(generation),
        )
    )


def insert_changed_frequencies(
    connection: Connection[DatabaseRow],
    generation: int,
    epoch: int,
    added: sql.Composable,
    closed: sql.Composable,
) -> None:
    """Counts how many chunks hold a lexeme, for the lexemes whose count an epoch changes.

    The arguments are those of `insert_bm25_statistics`.
    """
    connection.execute(
        SQL("""
            INSERT INTO {frequencies} (generation, epoch, chunk_count, scope, lexeme)
            SELECT {generation}, {epoch}, coalesce(before.chunk_count, 0) + moved.chunks, scope, lexeme
            FROM (
                SELECT scope, lexeme, sum(sign) AS chunks FROM (
                    SELECT scope, unnest(lexemes) AS lexeme, 1 AS sign FROM {added}
                    UNION ALL
                    SELECT scope, unnest(lexemes), -1 FROM {closed}
                ) postings
                GROUP BY scope, lexeme HAVING sum(sign) <> 0
            ) moved
            LEFT JOIN LATERAL (
                SELECT chunk_count FROM {frequencies} f
                WHERE f.scope = moved.scope AND f.lexeme = moved.lexeme ORDER BY epoch DESC LIMIT 1
            ) before ON true
        """).format(
            frequencies=partition_name("frequencies", generation),
            added=added,
            closed=closed,
            generation=Literal(generation),
            epoch=Literal(epoch),
        )
    )


def remove_postings(connection: Connection[DatabaseRow], generation: int, dead: sql.Composable) -> None:
    """Removes the postings of chunks; `dead` is a table of these chunks, from `read_chunk_lexemes`."""
    connection.execute(
        SQL("""
            WITH gone AS (
                DELETE FROM {postings} p USING (
                    SELECT DISTINCT scope, lexeme, block.first_no
                    FROM (SELECT scope, unnest(lexemes) AS lexeme, chunk_no FROM {dead}) entries
                    CROSS JOIN LATERAL (
                        SELECT first_no FROM {postings} b
                        WHERE b.scope = entries.scope AND b.lexeme = entries.lexeme
                            AND b.first_no <= entries.chunk_no
                        ORDER BY first_no DESC LIMIT 1
                    ) block
                ) touched
                WHERE p.scope = touched.scope AND p.lexeme = touched.lexeme AND p.first_no = touched.first_no
                RETURNING p.*
            )
            INSERT INTO {postings} (generation, first_no, scope, lexeme, chunk_nos, counts)
            SELECT {generation}, min(chunk_no), scope, lexeme, array_agg(chunk_no ORDER BY chunk_no),
                array_agg(count ORDER BY chunk_no)
            FROM gone CROSS JOIN LATERAL unnest(chunk_nos, counts) AS entries (chunk_no, count)
            WHERE chunk_no NOT IN (SELECT chunk_no FROM {dead})
            GROUP BY scope, lexeme, first_no
        """).format(
            postings=partition_name("postings", generation), dead=dead, generation=Literal(generation)
        )
    )


def repack_postings(connection: Connection[DatabaseRow], generation: int) -> int:
    """Joins the blocks of every lexeme that has more than twice the blocks that it needs.

    Readers see the same postings before and after; the caller must hold a lock that keeps other writers away.

    Returns:
        How many pairs of scope and lexeme were repacked.
    """
    connection.execute(
        SQL("""
            CREATE TEMPORARY TABLE crumbled ON COMMIT DROP AS
            SELECT scope, lexeme FROM {postings} GROUP BY scope, lexeme
            HAVING count(*) > 2 * ceil(sum(cardinality(chunk_nos)) / {block}::float8)
        """).format(postings=partition_name("postings", generation), block=Literal(POSTINGS_PER_BLOCK))
    )
    gone = SQL(
        "WITH gone AS (DELETE FROM {postings} p USING crumbled c "
        "WHERE p.scope = c.scope AND p.lexeme = c.lexeme RETURNING p.*)"
    ).format(postings=partition_name("postings", generation))
    entries = SQL(
        "(SELECT scope, lexeme, chunk_no, count AS counts "
        "FROM gone CROSS JOIN LATERAL unnest(chunk_nos, counts) AS words (chunk_no, count))"
    )
    _insert_blocks(connection, generation, entries, gone)
    return int(fetch_postgres_value(connection, "SELECT count(*) FROM crumbled"))
