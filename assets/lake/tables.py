"""Declares every table of the lake: its columns, its key, and the columns of its content digest."""

from dataclasses import dataclass

import pyarrow as pa

from assets.columns import column
from assets.text.signals import QUALITY_SIGNALS

LAYERS = ("bronze", "silver", "gold", "ops")

_TEXT = pa.string()
_TIME = pa.timestamp("us", tz="UTC")
_GROUPS = column(
    "access_groups",
    "Groups of the tenant that may see the row, as one string; NULL is everybody.",
    nullable=True,
)
_RUN_ID = column("OpenLineage_RunId", "Dagster run that wrote the row.")


@dataclass(frozen=True)
class Table:
    """One Delta table: its name is its asset key and its folder.

    Attributes:
        name: `layer.table`.
        schema: Its columns; a field that is not nullable is enforced by Delta at every write.
        key: The columns that identify a row.
        content: The columns that its content digest, and so its Dagster data version, is made from.
        volatile: The columns that say when or by which run a row was written. A row that differs only in
            these is not rewritten.
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
        """The table's layer: the part of its name before the dot."""
        return self.name.partition(".")[0]


RAW_DOCUMENTS = Table(
    "bronze.raw_documents",
    pa.schema(
        [
            column("doc_id", "SHA-256 of tenant, source and URI: the document's identity."),
            column("revision", "Number of this revision of the document, from 1.", pa.int32()),
            column("tenant", "Tenant that the document belongs to."),
            column("source", "Name of the source that it was read from."),
            column("uri", "Where the document is: a file's URI, with #n for a row of a file."),
            column("title", "Title that the source gives, such as a column of a row file.", nullable=True),
            column("media_type", "Media type by content, such as text/html.", nullable=True),
            column("content_sha256", "SHA-256 of the bytes in body.", nullable=True),
            column("size_bytes", "Number of bytes in body.", pa.int64(), nullable=True),
            column(
                "body",
                "The document's bytes as they came; NULL in a tombstone and where reading failed.",
                pa.binary(),
                nullable=True,
            ),
            column(
                "file_size_bytes",
                "Size of the file that holds the document, when it was read.",
                pa.int64(),
                nullable=True,
            ),
            column(
                "file_modified_at", "Modification time of that file, when it was read.", _TIME, nullable=True
            ),
            column("error", "Why the document could not be read, or NULL.", nullable=True),
            column("first_seen_at", "When the document was first read.", _TIME),
            column("fetched_at", "When this revision was read.", _TIME),
            column("deleted", "True in a tombstone: the source no longer has the document.", pa.bool_()),
        ]
    ),
    key=("doc_id", "revision"),
    content=("doc_id", "revision", "content_sha256", "error", "deleted"),
    volatile=("fetched_at",),
    about="Every document's bytes as they came, one row per revision; a tombstone where a file went away.",
)

DOCUMENTS = Table(
    "silver.documents",
    pa.schema(
        [
            column("doc_id", "SHA-256 of tenant, source and URI: the document's identity."),
            column("tenant", "Tenant that the document belongs to."),
            column("source", "Name of the source that it was read from."),
            column("uri", "Where the document is."),
            column("content_sha256", "SHA-256 of the bytes that the text was read from."),
            column("media_type", "Media type by content, such as text/html.", nullable=True),
            column("title", "Title, from the source or from the document itself.", nullable=True),
            column("text", "Normalised text: NFC, line feeds, no control characters."),
            column("text_sha256", "SHA-256 of the text in UTF-8."),
            column("language", "ISO 639-1 code of the text's language."),
            column("char_count", "Number of characters in the text.", pa.int32()),
            *QUALITY_SIGNALS.values(),
            column("pii_count", "Number of spans that look like personal data.", pa.int32()),
            column(
                "headings",
                "Headings in order: where each begins in the text, its level from 1, its title.",
                pa.list_(
                    pa.struct([("char_start", pa.int32()), ("level", pa.int32()), ("title", pa.string())])
                ),
                nullable=True,
            ),
            column(
                "pages",
                "Character position at which each page begins, where the format has pages.",
                pa.list_(pa.int32()),
                nullable=True,
            ),
            column(
                "text_coverage",
                "Share of the source's visible words that are in the text or the title; NULL where unknown.",
                pa.float64(),
                nullable=True,
            ),
            _GROUPS,
            column("first_seen_at", "When the document was first read.", _TIME),
            _RUN_ID,
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
            column("doc_id", "SHA-256 of tenant, source and URI: the document's identity."),
            column("tenant", "Tenant that the document belongs to."),
            column("source", "Name of the source that it was read from."),
            column("uri", "Where the document is."),
            column(
                "content_sha256",
                "SHA-256 of the bytes that were refused, NULL where none could be read.",
                nullable=True,
            ),
            column("stage", "Stage that refused the document: read, parse, quality …"),
            column("expectation", "Name of the expectation that the document failed."),
            column("reason", "What was found, in a sentence."),
            _RUN_ID,
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
            column("doc_id", "Document that the signature is of."),
            column("config_hash", "Digest of the MinHash settings; only equal ones are comparable."),
            column("text_sha256", "SHA-256 of the text that was signed."),
            column(
                "signature", "MinHash signature: little-endian unsigned integers.", pa.binary(), nullable=True
            ),
            column("bands", "Hash of each LSH band of the signature.", pa.list_(pa.int64()), nullable=True),
            _GROUPS,
            _RUN_ID,
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
            column("doc_id", "Document that another one stands for."),
            column("canonical_id", "Document that stands for it."),
            column("matched_id", "Document whose likeness put it into the cluster."),
            column(
                "jaccard",
                "Jaccard similarity of the shingles of both texts, 1 for an exact duplicate.",
                pa.float64(),
            ),
            column("method", "How they were matched: exact or near."),
            _RUN_ID,
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
            column("chunk_id", "SHA-256 of document, text digest and start: the chunk's identity."),
            column("doc_id", "Document that the chunk is a span of."),
            column("tenant", "Tenant that the document belongs to."),
            column("ordinal", "Place of the chunk in its document, from 0.", pa.int32()),
            column(
                "char_start", "Position of the chunk's first character in the document's text.", pa.int32()
            ),
            column("char_end", "Position after its last character.", pa.int32()),
            column("text", "documents.text[char_start:char_end]."),
            column("text_sha256", "SHA-256 of the chunk's text in UTF-8."),
            column(
                "token_count",
                "Number of tokens by the embedder's tokenizer, without special ones.",
                pa.int32(),
            ),
            column("heading", "Path of the headings that the chunk stands under.", nullable=True),
            _RUN_ID,
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
            column("tenant", "Tenant whose chunks have the text."),
            column("text_sha256", "SHA-256 of the text that was embedded."),
            column("model_digest", "Digest of the embedding model and its settings."),
            column("vector", "Unit vector of the text.", pa.list_(pa.float32()), nullable=True),
            _RUN_ID,
        ]
    ),
    key=("tenant", "text_sha256", "model_digest"),
    content=("tenant", "text_sha256", "model_digest"),
    gated=True,
    about="One unit vector per distinct chunk text and model: an index is rebuilt without the model.",
)

ANSWERS = Table(
    "gold.answers",
    pa.schema(
        [
            column("answer_id", "Identity of the answer."),
            column("tenant", "Tenant that asked."),
            column("question", "The question as it was asked."),
            column("answer", "The answer's text; NULL where it was refused.", nullable=True),
            column("refused", "True where the documents did not answer the question.", pa.bool_()),
            column("engine", "Engine that wrote the answer."),
            column(
                "citations",
                "Verbatim quotes that the answer stands on, and where each is.",
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
                nullable=True,
            ),
            column("release_id", "Release that was searched."),
            column("model_digest", "Digest of the embedding model of that release."),
            column(
                "retrieved",
                "Ids of the chunks that were retrieved, best first.",
                pa.list_(pa.string()),
                nullable=True,
            ),
            _GROUPS,
            column("search_mode", "How they were retrieved: hybrid or reranked.", nullable=True),
            column("answered_at", "When the answer was given.", _TIME),
        ]
    ),
    key=("answer_id",),
    content=("answer_id",),
    about="Every answer, with its citations and the release that it was given from.",
)

RELEASES = Table(
    "ops.releases",
    pa.schema(
        [
            column("release_id", "Name of the release, such as r1.2: generation and epoch."),
            column("decision", "What was decided: approved, released, refused or rolled_back."),
            column("reason", "Why, in a sentence.", nullable=True),
            column("generation", "Generation of the index.", pa.int32()),
            column("epoch", "Epoch of that generation.", pa.int64()),
            column("model_digest", "Digest of its embedding model."),
            column("metrics", "JSON object: what was measured, name to number."),
            column("versions", "JSON object: table to the Delta version that the release pins."),
            column("decided_at", "When; later than every decision before it.", _TIME),
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
            column("table", "Table that the gate audited."),
            column("version", "Version of the table.", pa.int64()),
            column("passed", "True where no blocking expectation failed.", pa.bool_()),
            column("failed", "Names of the blocking expectations that failed.", pa.list_(pa.string())),
            column("run_id", "Dagster run of the audit."),
            column("audited_at", "When; later than every audit before it.", _TIME),
        ]
    ),
    key=("table", "version", "audited_at"),
    content=("table", "version", "passed"),
    about="Every gate's verdict on a table version; consumers read the last version that passed.",
)

DRIFT = Table(
    "ops.drift",
    pa.schema(
        [
            column("table", "Table that was compared."),
            column(
                "since",
                "Version before the batch, which is the reference; NULL for a first batch.",
                pa.int64(),
                nullable=True,
            ),
            column("until", "Version with the batch.", pa.int64()),
            column("column", "Column that was compared."),
            column("test", "Test: ks, psi or centroid."),
            column("statistic", "The test's statistic.", pa.float64()),
            column("threshold", "Value above which the batch has drifted.", pa.float64()),
            column("drifted", "True where the statistic is above the threshold.", pa.bool_()),
            column("run_id", "Dagster run of the comparison."),
            column("measured_at", "When.", _TIME),
        ]
    ),
    key=("table", "until", "column", "test"),
    content=("table", "until", "column", "test", "drifted"),
    about="Every comparison of new documents with earlier ones: column, statistic and threshold.",
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
