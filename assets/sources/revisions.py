"""What a source has that the lake has not: which files to read again, and what to append for them.

A file is read when its size or time differs from when it was last read (its hash then decides whether it
changed), and a document that is no longer there gets a tombstone.
"""

from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from assets.lake.ids import doc_id_column
from assets.lake.tables import RAW_DOCUMENTS
from assets.sources.source_config import Source
from assets.sources.source_schemas import UNREACHABLE_FILE_ERRORS

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

# One of a file's documents stands for it: the rest of a million rows need no row of their own to say that the
# file was touched.
_BEFORE = """
    select doc_id, columns(* exclude (doc_id)) as 'last_\\0',
           not deleted and uri is not distinct from
           min(uri) filter (not deleted) over (partition by split_part(uri, '#', 1)) as stands_for_file
    from state
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


_AS_READ = (
    *("uri", "title", "media_type", "content_sha256", "size_bytes", "file_size_bytes", "file_modified_at"),
    "error",
)
"""What a revision says of its file as it is, and a tombstone as it last was."""

_REVISIONS = f"""
    with read as (select *, sha256(concat_ws(chr(31), $tenant, $source, uri)) as doc_id from found),
    before as ({_BEFORE}),
    joined as (
        select coalesce(read.doc_id, before.doc_id) as doc_id, columns(read.* exclude (doc_id)),
               columns(before.* exclude (doc_id)), uri is null as gone,
               last_revision is null or last_deleted or error is distinct from last_error
               or content_sha256 is distinct from last_content_sha256 as changed,
               last_revision is not null and not last_deleted and last_error is null
               and coalesce(bool_or(error in $unreachable) over (
                   partition by split_part(coalesce(uri, last_uri), '#', 1)
               ), false) as kept
        from read full join before on read.doc_id = before.doc_id
    )
    select doc_id, coalesce(last_revision, 0) + 1 as revision, $tenant as tenant, $source as source,
           {", ".join(f"case when gone then last_{name} else {name} end as {name}" for name in _AS_READ)},
           case when not gone and changed then body end as body,
           coalesce(last_first_seen_at, $now) as first_seen_at, $now as fetched_at, gone as deleted
    from joined
    where not kept
      and case when gone then not last_deleted else changed or (error is null and stands_for_file) end
"""


def revisions(
    read: DataFrame, known: pa.Table, source: Source, now: datetime, accept_loss: bool = False
) -> DataFrame:
    """The rows to append for files that were read. Each file is read once.

    A file that can not be reached right after it was listed says nothing of its documents: they stay as they
    were, and the next run tries again. A file of rows that held some and now yields none fails the run.

    Args:
        read: The documents of the files read: `uri`, `title`, `media_type`, `content_sha256`, `size_bytes`,
            `body`, `file_size_bytes`, `file_modified_at`, `error`.
        known: The rows of `STATE` that came from those files before.
        source: Whose they are.
        now: The time of this reading.
        accept_loss: Whether a file of rows may lose them all.

    Returns:
        Rows of `bronze.raw_documents`: a revision for each new or changed document, a tombstone for each that
        its file no longer holds, and for a file whose bytes were only touched one row without a body, which
        says its new time so that it is not read again.
    """
    read = read.withColumn("doc_id", doc_id_column(source.tenant, source.name, F.col("uri")))
    stamps = {
        "tenant": F.lit(source.tenant),
        "source": F.lit(source.name),
        "fetched_at": F.lit(now),
    }
    if not known.num_rows:  # a first reading: its bytes need not cross a join
        return _stamped(read, revision=F.lit(1), first_seen_at=F.lit(now), deleted=F.lit(False), **stamps)
    with duckdb.connect() as connection:
        connection.register("state", known)
        before = connection.sql(_BEFORE).to_arrow_table()
    if source.text_column and not accept_loss:
        read = _refusing_loss(read, known, source)
    joined = read.join(read.sparkSession.createDataFrame(before), "doc_id", "full_outer")
    joined = joined if source.text_column else _reached(joined, known)
    gone = F.col("uri").isNull()
    changed = (
        F.col("last_revision").isNull()
        | F.col("last_deleted")
        | ~F.col("last_content_sha256").eqNullSafe(F.col("content_sha256"))
        | ~F.col("last_error").eqNullSafe(F.col("error"))
    )
    touched = F.col("error").isNull() & F.col("stands_for_file")
    told = joined.where(F.when(gone, ~F.col("last_deleted")).otherwise(changed | touched))
    as_read = {name: F.when(gone, F.col(f"last_{name}")).otherwise(F.col(name)) for name in _AS_READ}
    return _stamped(
        told,
        **as_read,
        **stamps,
        revision=F.coalesce("last_revision", F.lit(0)) + 1,
        body=F.when(~gone & changed, F.col("body")),
        first_seen_at=F.coalesce("last_first_seen_at", F.lit(now)),
        deleted=gone,
    )


def _file_of(uri: str) -> Column:
    return F.split_part(F.col(uri), F.lit("#"), F.lit(1))


def _refusing_loss(read: DataFrame, known: pa.Table, source: Source) -> DataFrame:
    """What was read; evaluating it fails where a file that held rows yields none."""
    with duckdb.connect() as connection:
        connection.register("state", known)
        live = "select distinct split_part(uri, '#', 1) from state where not deleted and error is null"
        files = [row[0] for row in connection.sql(live).fetchall()]
    said = F.concat(
        F.lit(f"source {source.name}: "),
        F.col("uri"),
        F.lit(" held documents and now yields none (it went away or was damaged); nothing was changed. "),
        F.lit("If they were meant to go: `headwater run --accept-shrink`"),
    )
    lost = F.col("error").isNotNull() & F.col("uri").isin(files)
    return read.withColumn("error", F.when(lost, F.raise_error(said)).otherwise(F.col("error")))


def _reached(joined: DataFrame, known: pa.Table) -> DataFrame:
    """The rows less those of documents that are known and whose file could not be reached."""
    lost = F.col("error").isin(*UNREACHABLE_FILE_ERRORS)
    if pc.any(pc.match_substring(known["uri"], "#")).as_py():  # what is attached to a mail goes with its file
        file = F.coalesce(_file_of("uri"), _file_of("last_uri"))
        lost = F.max(F.coalesce(lost, F.lit(False))).over(Window.partitionBy(file))
    standing = F.col("last_revision").isNotNull() & ~F.col("last_deleted") & F.col("last_error").isNull()
    kept = F.coalesce(lost & standing, F.lit(False))
    return joined.withColumn("kept", kept).where("not kept")


def revisions_here(read: pa.Table, known: pa.Table, source: Source, now: datetime) -> pa.Table:
    """`revisions` of files that are here."""
    values = {
        "tenant": source.tenant,
        "source": source.name,
        "now": now,
        "unreachable": list(UNREACHABLE_FILE_ERRORS),
    }
    with duckdb.connect() as connection:
        connection.register("found", read)
        connection.register("state", known)
        rows = connection.sql(_REVISIONS, params=values).to_arrow_table()
    return rows.select(RAW_DOCUMENTS.schema.names).cast(RAW_DOCUMENTS.schema)


def tombstones(documents: pa.Table, now: datetime) -> pa.Table:
    """A row that says it is gone for each document of a table of `STATE` rows."""
    return (
        pa.table(
            {
                **{name: documents[name] for name in documents.column_names},
                "revision": pc.add(documents["revision"], 1),
                "body": pa.nulls(documents.num_rows, pa.binary()),
                "fetched_at": pa.repeat(pa.scalar(now), documents.num_rows),
                "deleted": pa.repeat(True, documents.num_rows),
            }
        )
        .select(RAW_DOCUMENTS.schema.names)
        .cast(RAW_DOCUMENTS.schema)
    )


def _stamped(rows: DataFrame, **stamps: Column) -> DataFrame:
    return rows.select(*[stamps.get(name, F.col(name)).alias(name) for name in RAW_DOCUMENTS.schema.names])


_TELLING = """
    select * from appended where deleted or body is not null or error is not null
    qualify row_number() over (partition by doc_id order by revision desc) = 1
"""


def latest_bodies_here(appended: pa.Table) -> pa.Table:
    """`latest_bodies` of rows that are here."""
    with duckdb.connect() as connection:
        connection.register("appended", appended)
        return connection.sql(_TELLING).to_arrow_table().cast(appended.schema)


def latest_bodies(appended: DataFrame) -> DataFrame:
    """The revision of each document that decides what it says now, among rows of `bronze.raw_documents`.

    Rows that only say that a file was touched carry no bytes and decide nothing.
    """
    telling = appended.where("deleted or body is not null or error is not null")
    newest = telling.groupBy("doc_id").agg(F.max("revision").alias("revision"))
    # Only ids are grouped, so the bytes do not cross a shuffle.
    return telling.join(F.broadcast(newest), ["doc_id", "revision"], "left_semi")
