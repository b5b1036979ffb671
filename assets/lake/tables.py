"""Declares the tables of documents and of what is made from them; `TABLES` lists all tables of the lake."""

import pyarrow as pa

from assets.columns import STAMP, Table, column
from assets.lake.ops_tables import (
    ANSWER_RATINGS,
    AUDITS,
    DRIFT,
    ENGINE_RELEASES,
    QUARANTINE_DECISIONS,
    RELEASES,
)
from assets.text.signals import QUALITY_SIGNALS

LAYERS = ("bronze", "silver", "gold", "ops")

_TEXT = pa.string()
_GROUPS = column(
    "access_groups",
    "Groups of the tenant that may see the row, as one string; NULL is everybody.",
    nullable=True,
)
_RUN_ID = column("OpenLineage_RunId", "Dagster run that wrote the row.")


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
                "file_modified_at", "Modification time of that file, when it was read.", STAMP, nullable=True
            ),
            column(
                "source_version",
                "What the source calls this version: a Git commit, an ETag, the value of a cursor column.",
                nullable=True,
            ),
            column("error", "Why the document could not be read, or NULL.", nullable=True),
            column("first_seen_at", "When the document was first read.", STAMP),
            column("fetched_at", "When this revision was read.", STAMP),
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
            column(
                "training_fit",
                "True where the document may go into a training set: no reason speaks against it.",
                pa.bool_(),
                nullable=True,
            ),
            column(
                "training_unfit_reasons",
                "Why it may not, such as max_cut_off or licence_not_allowed; empty where it may.",
                pa.list_(pa.string()),
                nullable=True,
            ),
            _GROUPS,
            column("first_seen_at", "When the document was first read.", STAMP),
            _RUN_ID,
        ]
    ),
    key=("doc_id",),
    content=("doc_id", "content_sha256", "text_sha256", "uri", "title", "training_fit", "access_groups"),
    gated=True,
    about="Every readable document: normalised text, language, headings, signals and fitness for training.",
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
            column("stage", "Stage that refused the document: read, extract or damage."),
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

_CITATION = pa.struct(
    [
        *((name, pa.string()) for name in ("doc_id", "uri", "content_sha256")),
        ("table_version", pa.int64()),
        ("chunk_id", pa.string()),
        *((name, pa.int32()) for name in ("char_start", "char_end")),
        ("quote", pa.string()),
    ]
)

ANSWERS = Table(
    "gold.answers",
    pa.schema(
        [
            column("answer_id", "Identity of the answer."),
            column("tenant", "Tenant that asked."),
            column("question", "The question as it was asked."),
            column("answer", "The answer's text; the reason where there is none.", nullable=True),
            column("refused", "True where the documents did not answer the question.", pa.bool_()),
            column(
                "outcome",
                "answered, truncated (cut off at the length limit), refused or filtered (withheld by the "
                "service); NULL in rows of before it was told, of which `refused` tells.",
                nullable=True,
            ),
            column("engine", "Engine that wrote the answer."),
            column(
                "citations",
                "Verbatim quotes that the answer stands on, and where each is.",
                pa.list_(_CITATION),
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
            column("retrieval_digest", "Digest of the settings that they were retrieved by.", nullable=True),
            column("answered_at", "When the answer was given.", STAMP),
            column("chosen_because", "Why this engine wrote it, where there was a choice.", nullable=True),
            column("prompt_tokens", "Tokens that the engine read.", pa.int64(), nullable=True),
            column("completion_tokens", "Tokens that it wrote.", pa.int64(), nullable=True),
            column("cost_usd", "Their price in US dollars.", pa.float64(), nullable=True),
            column(
                "passages_left_out",
                "Passages found that the engine did not read, because its prompt had no room for them.",
                pa.int32(),
                nullable=True,
            ),
            column(
                "generator_digest",
                "Digest of the engine: its model, its prompt, its parameters and its code.",
                nullable=True,
            ),
            column(
                "generator_adapter",
                "Digest of the engine's adapter for the tenant; NULL where the base answered.",
                nullable=True,
            ),
            column("batch", "Batch that the question belongs to; NULL for one by itself.", nullable=True),
            column("question_id", "Id of the question in its batch.", nullable=True),
        ]
    ),
    key=("answer_id",),
    content=("answer_id",),
    about="Every answer, with its citations and the release that it was given from.",
)

TRAINING_SPLITS = Table(
    "gold.training_splits",
    pa.schema(
        [
            column("doc_id", "Document that was given a split; it keeps it after it was removed."),
            column("tenant", "Tenant that the document belongs to."),
            column("split", "Split of its cluster of duplicates: train, validation or test."),
            _RUN_ID,
        ]
    ),
    key=("doc_id",),
    content=("doc_id", "split"),
    about="Which split of a training set each document was given; where clusters merge, train wins.",
)

TRAINING_EXAMPLES = Table(
    "gold.training_examples",
    pa.schema(
        [
            column("example_id", "SHA-256 of tenant, kind, question and positive: the example's identity."),
            column("kind", "retrieval_pair, ranked_list, instruction or domain_text."),
            column(
                "query_kind",
                "Kind of the question: title, keyword, natural, claim or asked; of an instruction: "
                "definition, question_answer, section, answer or user.",
                nullable=True,
            ),
            column("split", "Split that its document has: train, validation or test."),
            column(
                "left_out",
                "Why it is in no training set: near_held_out or not_found; NULL where it is.",
                nullable=True,
            ),
            column("tenant", "Tenant that its documents belong to."),
            column("doc_id", "Document that it was made of; NULL for a user's own.", nullable=True),
            column("answer_id", "Answer that it was made of; NULL for others.", nullable=True),
            column("question", "The question; NULL for plain text.", nullable=True),
            column(
                "positive",
                "What answers it; NULL where that is the whole text of the first of its chunks. In an "
                "answer, [n] is the nth of its chunks.",
                nullable=True,
            ),
            column(
                "chunk_ids",
                "Chunks of the positive and of the negatives, or of a ranked list's candidates, best first; "
                "of an answer the cited ones, and then others that were found for its question.",
                pa.list_(pa.string()),
            ),
            column("doc_ids", "Documents of these chunks, in their order.", pa.list_(pa.string())),
            column(
                "negatives",
                "Texts that do not answer, of a user's own example; those of others are chunks.",
                pa.list_(pa.string()),
            ),
            column(
                "scores",
                "Cosine of each chunk to the question, or the teacher's score of each candidate.",
                pa.list_(pa.float64()),
            ),
            column("teacher", "What scored the candidates of a ranked list: fused.", nullable=True),
            column("licence", "SPDX licence of its document; NULL where it is not known.", nullable=True),
            column("language", "ISO 639-1 code of its document's language.", nullable=True),
            column("versions", "JSON object: table to the version that the example was made from."),
            _RUN_ID,
        ]
    ),
    key=("example_id",),
    content=("example_id", "split", "left_out", "chunk_ids"),
    volatile=("OpenLineage_RunId", "versions"),
    about="What models learn from: questions with passages and negatives, ranked lists, instructions, text.",
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        *(RAW_DOCUMENTS, DOCUMENTS, QUARANTINE, SIGNATURES, DUPLICATES, CHUNKS, EMBEDDINGS),
        *(TRAINING_SPLITS, TRAINING_EXAMPLES),
        *(ANSWERS, ANSWER_RATINGS, RELEASES, ENGINE_RELEASES, AUDITS, DRIFT, QUARANTINE_DECISIONS),
    )
}
