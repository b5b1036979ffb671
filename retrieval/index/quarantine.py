"""The chunks that a generation leaves out because PostgreSQL can't index them, each with the reason."""

from dataclasses import astuple
from typing import Any

from psycopg import Connection

from retrieval.index.rows import IndexRowNumbering, QuarantinedChunk
from retrieval.store.postgres import DatabaseRow

_COLUMNS = "chunk_id, doc_id, tenant, uri, expectation, reason"


def quarantine_chunks(connection: Connection[DatabaseRow], numbering: IndexRowNumbering) -> None:
    """Inserts the quarantined chunks of a build."""
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO headwater.quarantine (generation, {_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            [(numbering.generation, *astuple(chunk)) for chunk in numbering.quarantined],
        )


def replace_quarantined(connection: Connection[DatabaseRow], numbering: IndexRowNumbering) -> None:
    """Replaces the quarantined chunks that a staged change touches by those that it quarantines.

    Args:
        connection: The owner's connection, after `incoming` and `removed` were filled.
        numbering: The row numbering of the change, with the chunks that it quarantines.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO removed VALUES (%s) ON CONFLICT DO NOTHING",
            [(chunk.chunk_id,) for chunk in numbering.quarantined],
        )
    connection.execute(
        "DELETE FROM headwater.quarantine WHERE generation = %s "
        "AND chunk_id IN (SELECT chunk_id FROM incoming UNION ALL SELECT chunk_id FROM removed)",
        (numbering.generation,),
    )
    quarantine_chunks(connection, numbering)


def read_quarantined(
    connection: Connection[DatabaseRow], generation: int | None = None, doc_id: str | None = None
) -> list[tuple[int, QuarantinedChunk]]:
    """Returns quarantined chunks with their generations: all, or those of one generation or document."""
    rows = connection.execute(
        f"SELECT generation, {_COLUMNS} FROM headwater.quarantine "
        "WHERE (%(generation)s::integer IS NULL OR generation = %(generation)s) "
        "AND (%(doc_id)s::text IS NULL OR doc_id = %(doc_id)s) ORDER BY generation, uri, chunk_id",
        {"generation": generation, "doc_id": doc_id},
    ).fetchall()
    return [(row[0], QuarantinedChunk(*row[1:])) for row in rows]


def read_document_rows(connection: Connection[DatabaseRow], doc_id: str) -> list[dict[str, Any]]:
    """Returns all rows of a document, indexed or left out: see `Index.document_rows`."""
    columns = ("generation", "chunk_id", "valid_from", "valid_to")
    rows = connection.execute(
        "SELECT generation, chunk_id, valid_from, valid_to FROM headwater.chunks WHERE doc_id = %s "
        "ORDER BY generation, ordinal, valid_from",
        (doc_id,),
    ).fetchall()
    return [dict(zip(columns, row, strict=True)) for row in rows] + [
        {
            **dict(zip(columns, (generation, chunk.chunk_id, None, None), strict=True)),
            "quarantined": chunk.reason,
        }
        for generation, chunk in read_quarantined(connection, doc_id=doc_id)
    ]
