"""What a source has that the lake has not: which files to read again, and what to append for them.

A file is read when its size or time differs from when it was last read (its hash then decides whether it
changed), and a document that is no longer there gets a tombstone.
"""

from datetime import datetime

import duckdb
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from assets.ids import doc_id_column
from assets.tables import RAW_DOCUMENTS
from assets.transforms.sources import Source

STATE = """
    select doc_id, revision, tenant, source, uri, title, media_type, content_sha256, size_bytes,
           file_size_bytes, file_modified_at, error, first_seen_at, fetched_at, deleted
    from raw qualify row_number() over (partition by doc_id order by revision desc) = 1
"""
"""Every document's newest revision without its bytes, as SQL over the table `raw`."""

_STALE = """
    with seen as (
        select split_part(uri, '#', 1) as uri, bool_or(error is not null) as failed,
               arg_max(file_size_bytes, fetched_at) as size_bytes,
               arg_max(file_modified_at, fetched_at) as modified_at
        from state where not deleted group by all
    )
    select listing.* from listing left join seen using (uri)
    where seen.uri is null or failed or size_bytes is distinct from file_size_bytes
       or modified_at is distinct from file_modified_at
    order by listing.uri
"""

_VANISHED = """
    select state.* from state left join listing on split_part(state.uri, '#', 1) = listing.uri
    where not deleted and listing.uri is null
"""


def stale_files(listing: pa.Table, state: pa.Table) -> pa.Table:
    """The files of a listing that must be read: new, of another size or time, or unreadable last time.

    Args:
        listing: `uri`, `file_size_bytes`, `file_modified_at`: a source as it is.
        state: The rows of `STATE` for this source: what the lake knows of it.

    Returns:
        Rows of the listing. One file can hold many documents, which share the part of their URI before `#`.
    """
    with duckdb.connect() as connection:
        connection.register("listing", listing)
        connection.register("state", state)
        return connection.sql(_STALE).to_arrow_table()


def vanished_documents(listing: pa.Table, state: pa.Table) -> pa.Table:
    """The documents that the lake has and whose file the source no longer lists; arguments as above."""
    with duckdb.connect() as connection:
        connection.register("listing", listing)
        connection.register("state", state)
        return connection.sql(_VANISHED).to_arrow_table()


def revisions(read: DataFrame, state: DataFrame, source: Source, now: datetime) -> DataFrame:
    """The rows to append for files that were read.

    Args:
        read: The documents of the files read: `uri`, `title`, `media_type`, `content_sha256`, `size_bytes`,
            `body`, `file_size_bytes`, `file_modified_at`, `error`.
        state: The rows of `STATE` that came from those files before, as a frame.
        source: Whose they are.
        now: The time of this reading.

    Returns:
        Rows of `bronze.raw_documents`: a revision for each new or changed document, a tombstone for each that
        its file no longer holds, and for a file whose bytes were only touched one row without a body, which
        says its new time so that it is not read again.
    """
    read = read.withColumn("doc_id", doc_id_column(source.tenant, source.name, F.col("uri")))
    before = state.select(
        "doc_id",
        F.col("revision").alias("last_revision"),
        F.col("content_sha256").alias("last_sha256"),
        F.col("error").alias("last_error"),
        F.col("first_seen_at").alias("seen_at"),
        F.col("deleted").alias("was_deleted"),
    )
    changed = (
        F.col("last_revision").isNull()
        | F.col("was_deleted")
        | ~F.col("last_sha256").eqNullSafe(F.col("content_sha256"))
        | ~F.col("last_error").eqNullSafe(F.col("error"))
    )
    joined = read.join(before, "doc_id", "left").withColumn("changed", changed)
    # One untouched document stands for its file: the rest of a million rows need no row of their own.
    file = Window.partitionBy(F.substring_index("uri", "#", 1)).orderBy("changed", "uri")
    touched = (
        joined.where("error is null")
        .withColumn("rank", F.row_number().over(file))
        .where("rank = 1 and not changed")
    )
    kept = joined.where("changed").unionByName(
        touched.drop("rank").withColumn("body", F.lit(None).cast("binary"))
    )
    rows = _stamped(
        kept,
        revision=F.coalesce("last_revision", F.lit(0)) + 1,
        tenant=F.lit(source.tenant),
        source=F.lit(source.name),
        first_seen_at=F.coalesce("seen_at", F.lit(now)),
        fetched_at=F.lit(now),
        deleted=F.lit(False),
    )
    missing = state.where("not deleted").join(read.select("doc_id"), "doc_id", "left_anti")
    return rows.unionByName(tombstones(missing, now))


def tombstones(documents: DataFrame, now: datetime) -> DataFrame:
    """A row that says it is gone for each document of a frame of `STATE` rows."""
    return _stamped(
        documents,
        revision=F.col("revision") + 1,
        body=F.lit(None).cast("binary"),
        fetched_at=F.lit(now),
        deleted=F.lit(True),
    )


def _stamped(rows: DataFrame, **stamps: Column) -> DataFrame:
    return rows.select(*[stamps.get(name, F.col(name)).alias(name) for name in RAW_DOCUMENTS.schema.names])


def latest_bodies(appended: DataFrame) -> DataFrame:
    """The revision of each document that decides what it says now, among rows of `bronze.raw_documents`.

    Rows that only say that a file was touched carry no bytes and decide nothing.
    """
    telling = appended.where("deleted or body is not null or error is not null")
    newest = telling.groupBy("doc_id").agg(F.max("revision").alias("revision"))
    # Only ids are grouped, so the bytes do not cross a shuffle.
    return telling.join(F.broadcast(newest), ["doc_id", "revision"], "left_semi")
