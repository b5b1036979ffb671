"""Finds which files of a source to read again, and which revisions to append to the bronze table.

A file is read when its size or time differs from when it was last read (its hash then decides whether it
changed), and a document that is no longer there gets a tombstone.
"""

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from assets.engine.relations import Relations
from assets.lake.lake import Lake
from assets.lake.tables import RAW_DOCUMENTS
from assets.parsing.content_type import ARCHIVES
from assets.sources.source_config import Source, SourceShrunk
from assets.sources.source_reader import spark_errors_of_source
from assets.sources.source_schemas import UNREACHABLE_FILE_ERRORS
from common.counts import counted
from common.ids import DOC_ID_SQL, doc_id

STATE = """
    select doc_id, revision, tenant, source, uri, title, media_type, content_sha256, size_bytes,
           file_size_bytes, file_modified_at, source_version, error, first_seen_at, fetched_at, deleted
    from raw qualify row_number() over (partition by doc_id order by revision desc) = 1
"""
"""SQL over the table `raw` for the newest revision of each document, without its bytes."""

# By LIKE: DuckDB 2 fails to fold split_part over a column that is null in all rows of a file.
_ARCHIVES_SQL = " OR ".join(
    f"media_type = '{media_type}' OR media_type LIKE '{media_type};%'" for media_type in sorted(ARCHIVES)
)
IS_ARCHIVE = f"(error IS NULL AND coalesce({_ARCHIVES_SQL}, false))"
"""SQL for whether a row of the bronze table is an archive: no document, but what its files were inside of."""

_FEW_DOCUMENTS = 10

_SEEN = """
    with seen as (
        select split_part(uri, '#', 1) as uri,
               bool_or(error is not null and content_sha256 is null and not contains(uri, '#')) as failed,
               arg_max(file_size_bytes, fetched_at) as size_bytes,
               arg_max(file_modified_at, fetched_at) as modified_at,
               arg_max_null(source_version, fetched_at) as version
        from state where not deleted group by all
    )
"""
_DIFFERS = """
    (size_bytes is distinct from file_size_bytes or modified_at is distinct from file_modified_at
     or version is distinct from source_version)
"""

_STALE = f"""
    {_SEEN} select listing.* from listing left join seen using (uri)
    where seen.uri is null or failed or {_DIFFERS} order by listing.uri
"""

_RETRIED = f"{_SEEN} select count(*) as n from listing join seen using (uri) where not {_DIFFERS}"
"""SQL for how many files of a listing are as they were when they were last read."""

_VANISHED = """
    select state.* from state left join listing on split_part(state.uri, '#', 1) = listing.uri
    where not deleted and listing.uri is null
"""


def stale_source_files(listing: pa.Table, state: pa.Table) -> pa.Table:
    """Returns the files of a listing to read: new, of another size or time, or out of reach the last time.

    Args:
        listing: The files that the source has now: `uri`, `file_size_bytes`, `file_modified_at`.
        state: The rows of `STATE` for this source: what the lake knows about its documents.

    Returns:
        Rows of the listing. One file can hold many documents, which share the part of their URI before `#`.
    """
    return Lake.query(_STALE, listing=listing, state=state)


def retried_source_files(read: pa.Table, state: pa.Table) -> int:
    """Returns how many files are read though they have not changed; arguments as of `stale_source_files`."""
    return int(Lake.query(_RETRIED, listing=read, state=state)["n"][0].as_py())


def vanished_source_documents(listing: pa.Table, state: pa.Table) -> pa.Table:
    """Returns the documents whose file is no longer listed; arguments as of `stale_source_files`."""
    return Lake.query(_VANISHED, listing=listing, state=state)


_FILE_COLUMNS = (
    *("uri", "title", "media_type", "content_sha256", "size_bytes", "file_size_bytes", "file_modified_at"),
    *("source_version", "error"),
)
"""What a revision says of its file as it is, and a tombstone as it last was."""

_LAST_COLUMNS = ("revision", *_FILE_COLUMNS, "first_seen_at", "deleted")

# One of a file's documents stands for it: the rest of a million rows need no row of their own to say that the
# file was touched.
_BEFORE = f"""
    SELECT doc_id, {", ".join(f"{name} AS last_{name}" for name in _LAST_COLUMNS)},
        NOT deleted AND uri IS NOT DISTINCT FROM min(CASE WHEN NOT deleted THEN uri END) OVER (
            PARTITION BY split_part(uri, '#', 1)
        ) AS stands_for_file
    FROM {{known}}
"""

_FILES_HELD = """
    SELECT DISTINCT split_part(uri, '#', 1) AS file FROM {known} WHERE NOT deleted AND error IS NULL
"""

_EMPTIED_FILES = """
    SELECT min(uri), count(*) FROM [revisions] SEMI JOIN {files_held} ON uri = file WHERE error IS NOT NULL
"""
"""SQL for the first of the files that held rows and now yield none, and for how many they are."""

_JOINED = f"""
    SELECT /*+ BROADCAST(u) */ coalesce(r.doc_id, b.doc_id) AS doc_id,
        {", ".join(f"r.{name}" for name in (*_FILE_COLUMNS, "body"))},
        {", ".join(f"b.last_{name}" for name in _LAST_COLUMNS)},
        b.stands_for_file, r.uri IS NULL AS gone, u.error IS NOT NULL AS unreachable
    FROM (SELECT *, {DOC_ID_SQL} AS doc_id FROM {{read}}) AS r
    FULL JOIN {{before}} AS b ON r.doc_id = b.doc_id
    LEFT JOIN {{unreachable}} AS u ON r.error = u.error
"""

_REVISIONS = f"""
    SELECT doc_id, CAST(coalesce(last_revision, 0) + 1 AS INT) AS revision, {{tenant}} AS tenant,
        {{source}} AS source,
        {", ".join(f"CASE WHEN gone THEN last_{name} ELSE {name} END AS {name}" for name in _FILE_COLUMNS)},
        CASE WHEN NOT gone AND changed THEN body END AS body,
        coalesce(last_first_seen_at, timestamp_micros({{now_us}})) AS first_seen_at,
        timestamp_micros({{now_us}}) AS fetched_at, gone AS deleted
    FROM (
        SELECT *, last_revision IS NULL OR last_deleted OR error IS DISTINCT FROM last_error
                OR content_sha256 IS DISTINCT FROM last_content_sha256
                OR media_type IS DISTINCT FROM last_media_type
                OR title IS DISTINCT FROM last_title AS changed,
            last_revision IS NOT NULL AND NOT last_deleted AND last_error IS NULL
                AND coalesce([is unreachable], false) AS kept
        FROM {{joined}}
    )
    WHERE NOT kept
        AND CASE WHEN gone THEN NOT last_deleted
            ELSE changed OR (stands_for_file AND (error IS NULL OR content_sha256 IS NOT NULL)) END
"""


def define_revisions(
    on: Relations, name: str, known: pa.Table, source: Source, now: datetime, accept_loss: bool = False
) -> None:
    """Defines the rows to append for files that were read. Each file is read once.

    If a file can not be reached right after it was listed, its documents stay as they were, and the next run
    tries again.

    The new relation has the columns of `bronze.raw_documents`: a revision for each document that is new or
    whose bytes or title changed, a tombstone for each document that its file no longer holds, and for a file
    with a new time but the same documents one row without a body, which records the time so that the file is
    not read again.

    Args:
        on: Holds `read`, the documents of the files read: `uri`, `title`, `media_type`, `content_sha256`,
            `size_bytes`, `body`, `file_size_bytes`, `file_modified_at`, `error`.
        name: The relation to define.
        known: The rows of `STATE` that came from those files before.
        source: The source of the files.
        now: The time of this reading.
        accept_loss: Whether a file of rows may lose all its rows.

    Raises:
        SourceShrunk: A file of rows had some and now yields none.
        SourceUnreachable: Spark could not read the files.
    """
    on.add("known", known)
    on.add("unreachable", pa.table({"error": list(UNREACHABLE_FILE_ERRORS)}))
    on.define("before", _BEFORE)
    on.define("joined", _JOINED, tenant=source.tenant, source=source.name)
    query = _REVISIONS.replace("[is unreachable]", _is_unreachable(known, source))
    columns = ", ".join(RAW_DOCUMENTS.schema.names)
    now_us = int(now.timestamp()) * 1_000_000 + now.microsecond
    select = f"SELECT {columns} FROM ({query})"
    # Evaluated here, a fault is known to be this source's. Whole local files fail one by one, in rows.
    evaluated = source.kind != "files" or source.local_root is None
    with spark_errors_of_source(source):
        on.define(name, select, evaluated, tenant=source.tenant, source=source.name, now_us=now_us)
        if source.text_column and not accept_loss:
            on.define("files_held", _FILES_HELD)
            _refuse_emptied_files(source, *on.row(_EMPTIED_FILES.replace("[revisions]", f"{{{name}}}")))


def _refuse_emptied_files(source: Source, first: str | None, count: int) -> None:
    if count:
        others = f" and {counted(count - 1, 'other')}" if count > 1 else ""
        raise SourceShrunk(
            f"source {source.name}: {first}{others} held documents and now yields none (gone or damaged); "
            "nothing was changed. If they were meant to go: `headwater run --accept-shrink`"
        )


def _is_unreachable(known: pa.Table, source: Source) -> str:
    """Returns SQL for whether the file of a document could not be reached."""
    if source.text_column:
        return "false"
    if not pc.any(pc.match_substring(known["uri"], "#")).as_py():
        return "unreachable"
    # What is attached to a mail goes with its file. Bodies cross a shuffle for it: only where there is any.
    return "bool_or(unreachable) OVER (PARTITION BY split_part(coalesce(uri, last_uri), '#', 1))"


_EARLIER = """
    select doc_id, (coalesce(last_revision, 0) + row_number() over own)::int as revision,
           $tenant as tenant, $source as source,
           * exclude (doc_id, place, last_revision, last_sha256, seen_at),
           coalesce(seen_at, $now) as first_seen_at, $now as fetched_at, false as deleted
    from (
        select earlier.*, known.revision as last_revision, known.first_seen_at as seen_at,
               lag(earlier.content_sha256, 1, case when not known.deleted then known.content_sha256 end)
                   over (partition by doc_id order by place) as last_sha256
        from earlier left join known using (doc_id)
    )
    where content_sha256 is distinct from last_sha256
    window own as (partition by doc_id order by place)
"""


def earlier_revisions(
    known: pa.Table, earlier: pa.Table, source: Source, now: datetime
) -> tuple[pa.Table, pa.Table]:
    """Returns revisions of what documents were since the last reading, and what is known after them.

    Args:
        known: The rows of `STATE` of the documents.
        earlier: Contents with the schema `SOURCE_CONTENT_SCHEMA`, those of a document oldest first.
        source: Their source.
        now: The time of this reading.

    Returns:
        Rows of `bronze.raw_documents`, and the rows of `STATE` with these as the newest revisions.
    """
    ids = [doc_id(source.tenant, source.name, uri) for uri in earlier["uri"].to_pylist()]
    placed = earlier.append_column("doc_id", pa.array(ids, pa.string())).append_column(
        "place", pa.array(range(len(ids)), pa.int64())
    )
    values = {"tenant": source.tenant, "source": source.name, "now": now}
    rows = Lake.query(_EARLIER, values, earlier=placed, known=known)
    rows = rows.select(RAW_DOCUMENTS.schema.names).cast(RAW_DOCUMENTS.schema)
    newest = pa.concat_tables([known, rows.select(known.column_names).cast(known.schema)])
    return rows, Lake.query(STATE, raw=newest).cast(known.schema)


def tombstones(documents: pa.Table, now: datetime) -> pa.Table:
    """Returns a tombstone, a row of `bronze.raw_documents`, for each document of a table of `STATE` rows."""
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


def define_latest_revisions(on: Relations, name: str, appended: str) -> None:
    """Defines the newest revision of each document among rows of the bronze table.

    Rows that only record a file's new time have no bytes and are ignored.

    Args:
        on: The relations.
        name: The name of the relation to define; it has the columns of the rows.
        appended: The name of the relation with the rows.
    """
    # Only ids are grouped, so that the bytes do not cross a shuffle.
    on.define(
        name,
        f"""
        SELECT /*+ BROADCAST(newest) */ * FROM {{{appended}}} SEMI JOIN (
            SELECT doc_id, max(revision) AS revision FROM {{{appended}}}
            WHERE deleted OR body IS NOT NULL OR error IS NOT NULL GROUP BY doc_id
        ) AS newest USING (doc_id, revision)
        """,
    )


def check_source_shrink(source: Source, vanished: int, known: int, max_shrink: float) -> None:
    """Raises `SourceShrunk` if too many documents are gone, as when a source's disk is not mounted.

    Raises:
        SourceShrunk: More than `_FEW_DOCUMENTS` documents are gone, and more than the allowed share.
    """
    if vanished > max(_FEW_DOCUMENTS, max_shrink * known):
        raise SourceShrunk(
            f"source {source.name}: {vanished} of its {known} documents are gone from {source.location}; "
            "nothing was changed. If they were meant to go: `headwater run --accept-shrink`"
        )
