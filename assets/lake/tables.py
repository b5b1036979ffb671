"""Every table of the lake, as data: its columns, its key, and what its content digest covers."""

from dataclasses import dataclass

import pyarrow as pa

from assets.text.signals import SIGNALS

LAYERS = ("bronze", "silver", "gold", "ops")

_TEXT = pa.string()
_TIME = pa.timestamp("us", tz="UTC")


def _required(name: str, kind: pa.DataType = _TEXT) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_GROUPS = pa.field("access_groups", pa.string())  # as `retrieval.access.group_set`; NULL is everybody


@dataclass(frozen=True)
class Table:
    """One Delta table: its name is its asset key and its folder.

    Attributes:
        name: `layer.table`.
        schema: Its columns; a field that is not nullable is enforced by Delta at every write.
        key: The columns that identify a row.
        content: The columns that its content digest, and so its Dagster data version, is made from.
        volatile: Columns that say when or by which run a row was written, never what it says; a row that
            differs in nothing else is not rewritten.
        gated: Consumers read its last audited version, never the newest.
        about: One line for the UI and for `headwater sql`'s help.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    content: tuple[str, ...]
    about: str
    volatile: tuple[str, ...] = ("OpenLineage_RunId",)
    gated: bool = False

    @property
    def layer(self) -> str:
        """The layer: the part of the name before the dot."""
        return self.name.partition(".")[0]


RAW_DOCUMENTS = Table(
    "bronze.raw_documents",
    pa.schema(
        [
            _required("doc_id"),
            _required("revision", pa.int32()),
            _required("tenant"),
            _required("source"),
            _required("uri"),
            pa.field("title", pa.string()),
            pa.field("media_type", pa.string()),
            pa.field("content_sha256", pa.string()),
            pa.field("size_bytes", pa.int64()),
            pa.field("body", pa.binary()),
            pa.field("file_size_bytes", pa.int64()),
            pa.field("file_modified_at", _TIME),
            pa.field("error", pa.string()),
            _required("first_seen_at", _TIME),
            _required("fetched_at", _TIME),
            _required("deleted", pa.bool_()),
        ]
    ),
    key=("doc_id", "revision"),
    content=("doc_id", "revision", "content_sha256", "error", "deleted"),
    volatile=("fetched_at",),
    about="The bytes of every document as they came, a row a revision; a tombstone where a file went away.",
)

DOCUMENTS = Table(
    "silver.documents",
    pa.schema(
        [
            _required("doc_id"),
            _required("tenant"),
            _required("source"),
            _required("uri"),
            _required("content_sha256"),
            pa.field("media_type", pa.string()),
            pa.field("title", pa.string()),
            _required("text"),
            _required("text_sha256"),
            _required("language"),
            _required("char_count", pa.int32()),
            *[pa.field(name, kind) for name, kind in SIGNALS.items()],
            _required("pii_count", pa.int32()),
            pa.field(
                "headings",
                pa.list_(
                    pa.struct([("char_start", pa.int32()), ("level", pa.int32()), ("title", pa.string())])
                ),
            ),
            pa.field("pages", pa.list_(pa.int32())),
            _GROUPS,
            _required("first_seen_at", _TIME),
            _required("OpenLineage_RunId"),
        ]
    ),
    key=("doc_id",),
    content=("doc_id", "content_sha256", "text_sha256", "uri", "title", "access_groups"),
    gated=True,
    about="Normalised text with its language, headings and quality signals; the rest is quarantined.",
)

QUARANTINE = Table(
    "silver.quarantine",
    pa.schema(
        [
            _required("doc_id"),
            _required("tenant"),
            _required("source"),
            _required("uri"),
            pa.field("content_sha256", pa.string()),
            _required("stage"),
            _required("expectation"),
            _required("reason"),
            _required("OpenLineage_RunId"),
        ]
    ),
    key=("doc_id",),
    content=("doc_id", "content_sha256", "stage", "expectation", "reason"),
    about="Every document that was kept out, with the stage, the expectation and the reason.",
)

SIGNATURES = Table(
    "silver.signatures",
    pa.schema(
        [
            _required("doc_id"),
            _required("config_hash"),
            _required("text_sha256"),
            pa.field("signature", pa.binary()),
            pa.field("bands", pa.list_(pa.int64())),
            _GROUPS,
            _required("OpenLineage_RunId"),
        ]
    ),
    key=("doc_id",),
    content=("doc_id", "config_hash", "text_sha256", "access_groups"),
    about="MinHash signatures and their LSH bands, so that a new batch is compared with the lake.",
)

DUPLICATES = Table(
    "silver.duplicates",
    pa.schema(
        [
            _required("doc_id"),
            _required("canonical_id"),
            _required("matched_id"),
            _required("jaccard", pa.float64()),
            _required("method"),
            _required("OpenLineage_RunId"),
        ]
    ),
    key=("doc_id",),
    content=("doc_id", "canonical_id", "matched_id", "method"),
    about="Documents that another one stands for, with the match that decided it.",
)

CHUNKS = Table(
    "gold.chunks",
    pa.schema(
        [
            _required("chunk_id"),
            _required("doc_id"),
            _required("tenant"),
            _required("ordinal", pa.int32()),
            _required("char_start", pa.int32()),
            _required("char_end", pa.int32()),
            _required("text"),
            _required("text_sha256"),
            _required("token_count", pa.int32()),
            pa.field("heading", pa.string()),
            _required("OpenLineage_RunId"),
        ]
    ),
    key=("chunk_id",),
    content=("chunk_id", "ordinal", "char_end", "heading"),
    gated=True,
    about="Exact spans of documents under a token budget, each with its heading path.",
)

EMBEDDINGS = Table(
    "gold.embeddings",
    pa.schema(
        [
            _required("tenant"),
            _required("text_sha256"),
            _required("model_digest"),
            pa.field("vector", pa.list_(pa.float32())),
            _required("OpenLineage_RunId"),
        ]
    ),
    key=("tenant", "text_sha256", "model_digest"),
    content=("tenant", "text_sha256", "model_digest"),
    gated=True,
    about="One unit vector a distinct chunk text and model, so an index can be rebuilt without the model.",
)

ANSWERS = Table(
    "gold.answers",
    pa.schema(
        [
            _required("answer_id"),
            _required("tenant"),
            _required("question"),
            pa.field("answer", pa.string()),
            _required("refused", pa.bool_()),
            _required("engine"),
            pa.field(
                "citations",
                pa.list_(
                    pa.struct(
                        [
                            ("doc_id", pa.string()),
                            ("uri", pa.string()),
                            ("content_sha256", pa.string()),
                            ("table_version", pa.int64()),
                            ("chunk_id", pa.string()),
                            ("char_start", pa.int32()),
                            ("char_end", pa.int32()),
                            ("quote", pa.string()),
                        ]
                    )
                ),
            ),
            _required("release_id"),
            _required("model_digest"),
            pa.field("retrieved", pa.list_(pa.string())),  # chunk ids, best first
            _GROUPS,  # of the user who asked
            _required("answered_at", _TIME),
        ]
    ),
    key=("answer_id",),
    content=("answer_id",),
    about="Every answer given, with its citations and the release it was given from.",
)

RELEASES = Table(
    "ops.releases",
    pa.schema(
        [
            _required("release_id"),
            _required("decision"),  # released | refused | rolled_back
            pa.field("reason", pa.string()),
            _required("generation", pa.int32()),
            _required("epoch", pa.int64()),
            _required("model_digest"),
            _required("metrics"),  # JSON object, name to number
            _required("versions"),  # JSON object, table to Delta version
            _required("decided_at", _TIME),
        ]
    ),
    key=("release_id", "decided_at"),
    content=("release_id", "decision"),
    about="Every decision about what is served: what was measured, which versions it pins, what was decided.",
)

AUDITS = Table(
    "ops.audits",
    pa.schema(
        [
            _required("table"),
            _required("version", pa.int64()),
            _required("passed", pa.bool_()),
            _required("failed", pa.list_(pa.string())),
            _required("run_id"),
            _required("audited_at", _TIME),
        ]
    ),
    key=("table", "version", "audited_at"),
    content=("table", "version", "passed"),
    about="Every gate's verdict a table version; consumers read the last version that passed.",
)

DRIFT = Table(
    "ops.drift",
    pa.schema(
        [
            _required("table"),
            pa.field("since", pa.int64()),
            _required("until", pa.int64()),
            _required("column"),
            _required("test"),  # ks | psi | centroid
            _required("statistic", pa.float64()),
            _required("threshold", pa.float64()),
            _required("drifted", pa.bool_()),
            _required("run_id"),
            _required("measured_at", _TIME),
        ]
    ),
    key=("table", "until", "column", "test"),
    content=("table", "until", "column", "test", "drifted"),
    about="Every comparison of what came with what was there: column, statistic and threshold.",
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RAW_DOCUMENTS,
        DOCUMENTS,
        QUARANTINE,
        SIGNATURES,
        DUPLICATES,
        CHUNKS,
        EMBEDDINGS,
        ANSWERS,
        RELEASES,
        AUDITS,
        DRIFT,
    )
}
