r"""What each gated table must hold, as data: one measure in SQL and its bounds for each expectation.

A measure is an aggregate over the suite's rows that gives one number, so a suite costs one pass over its
tables however many expectations it has, and what leaves it is counts, never a row. `quality.gx` has Great
Expectations judge those numbers. The SQL is Spark's, of the part that DuckDB understands too.

Great Expectations lets an empty suite, an empty frame, NULL against a pattern and NaN against not-null pass.
So every suite has a row count, every column that counts on a value has a null gate, and every measure made by
`never` counts a row whose predicate is NULL as failing.

Dagster reads this module each time it loads the definitions: it imports nothing that is slow to load.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warn"]


@dataclass(frozen=True)
class Expectation:
    """One measure of a table and the bounds that it must keep.

    Attributes:
        name: The check's name, unique in its suite.
        measure: An SQL aggregate over the suite's rows: a number, never NULL, also over no rows.
        why: What is lost when it fails, for the reader of the check.
        at_least: The lowest value that passes.
        at_most: The highest value that passes.
        severity: `error` closes the gate; `warn` is shown and lets pass.
    """

    name: str
    measure: str
    why: str
    at_least: float | None = None
    at_most: float | None = None
    severity: Severity = "error"


def bounds(expectation: Expectation) -> str:
    """An expectation's bounds in words, such as `at most 0`."""
    named = (("at least", expectation.at_least), ("at most", expectation.at_most))
    return " and ".join(f"{name} {bound:g}" for name, bound in named if bound is not None)


@dataclass(frozen=True)
class Suite:
    """The expectations of one table.

    Attributes:
        table: `layer.table`; the table that the gate guards.
        rows: An SQL query whose rows are measured. `{documents}` stands for
            `silver.documents`, and so on.
        expectations: What is measured.
        reads: The other tables that `rows` reads, each at the version that the guarded table was made from.
        parameters: The names of the values that the query and the measures take, in braces too.
    """

    table: str
    rows: str
    expectations: tuple[Expectation, ...]
    reads: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


def row_count(rows: str = "*") -> Expectation:
    """At least one row: every other expectation holds over no rows."""
    return Expectation(
        "row_count", f"count({rows})", "An empty table passes every other expectation.", at_least=1
    )


def not_null(*columns: str, among: str = "true") -> tuple[Expectation, ...]:
    """No NULL in any of the columns, one expectation each, among the rows that a predicate selects."""
    return tuple(
        Expectation(
            f"{column}_not_null",
            f"count(*) FILTER (WHERE {among} AND {column} IS NULL)",
            f"A row without {column} can not be used, and NULL passes most other expectations.",
            at_most=0,
        )
        for column in columns
    )


def _one_value(*columns: str) -> str:
    if len(columns) == 1:
        return columns[0]
    complete = " AND ".join(f"{column} IS NOT NULL" for column in columns)
    return f"CASE WHEN {complete} THEN concat_ws(chr(31), {', '.join(columns)}) END"


def unique(name: str, *columns: str, rows: str = "*") -> Expectation:
    """No two rows with the same values; a row with a NULL among them counts as a repetition."""
    return Expectation(
        name,
        f"count({rows}) - count(DISTINCT {_one_value(*columns)})",
        f"Two rows with one {' and '.join(columns)} make every MERGE and join on it ambiguous.",
        at_most=0,
    )


def always(
    name: str, predicate: str, why: str, *, among: str = "true", severity: Severity = "error"
) -> Expectation:
    """The predicate is true for every row that another selects; NULL is not true."""
    return Expectation(
        name,
        f"count(*) FILTER (WHERE {among} AND NOT coalesce({predicate}, false))",
        why,
        at_most=0,
        severity=severity,
    )


_SHARES = (
    *("alphabetic_word_ratio", "alphanumeric_word_ratio", "bullet_line_ratio", "ellipsis_line_ratio"),
    *("terminal_punctuation_line_ratio", "short_line_ratio", "lorem_ipsum_word_ratio"),
    *("duplicate_line_fraction", "duplicate_line_char_fraction", "duplicate_paragraph_fraction"),
    *("duplicate_paragraph_char_fraction", "top_2_gram_char_fraction", "top_3_gram_char_fraction"),
    *("top_4_gram_char_fraction", "duplicate_5_gram_char_fraction", "duplicate_10_gram_char_fraction"),
    *("curly_bracket_ratio", "boilerplate_line_ratio", "replacement_char_ratio"),
    *("markup_line_ratio", "mojibake_ratio", "cut_off"),
)
"""Quality signals that are shares of a whole."""
_AMOUNTS = (
    *("word_count", "mean_word_length", "symbol_to_word_ratio", "stop_word_count", "line_count"),
    "newline_to_word_ratio",
)
"""Quality signals that are counts, or one thing a unit of another."""
_OPTIONAL_SHARES = ("letter_coincidence",)
"""Shares that a short text does not have."""

# In Spark NaN is above every number, so an upper bound refuses it too.
_SIGNALS_IN_RANGE = " AND ".join(
    [f"{name} BETWEEN 0 AND 1" for name in _SHARES]
    + [f"{name} BETWEEN 0 AND 1e15" for name in _AMOUNTS]
    + [f"coalesce({name}, 0) BETWEEN 0 AND 1" for name in _OPTIONAL_SHARES]
)

SQUARES = "aggregate(vector, CAST(0 AS DOUBLE), (total, x) -> total + CAST(x AS DOUBLE) * CAST(x AS DOUBLE))"
"""The squared norm of `vector` in Spark, NULL where an element is; `quality.gx` has DuckDB's words for it."""

# White space is what normalisation leaves of it, and every other space character.
_NOT_BLANK = r"regexp_like(text, '[^\\s\\v\\p{{Z}}]')"

# Sixty-four lower-case hexadecimal digits; the pattern finds what is none.
_HEX_DIGEST = "length({0}) = 64 AND NOT regexp_like({0}, '[^0-9a-f]')"

DOCUMENTS = Suite(
    table="silver.documents",
    rows="SELECT * FROM {documents}",
    expectations=(
        row_count(),
        *not_null("doc_id", "tenant", "source", "uri", "content_sha256", "text", "text_sha256"),
        *not_null("language", "char_count", "pii_count", "first_seen_at"),
        unique("doc_id_unique", "doc_id"),
        always(
            "doc_id_is_derived",
            "doc_id = sha2(concat_ws(chr(31), tenant, source, uri), 256)",
            "An id that does not follow from tenant, source and uri changes when the lake is rebuilt.",
        ),
        always(
            "content_sha256_is_digest",
            _HEX_DIGEST.format("content_sha256"),
            "A citation names the source bytes by this digest.",
        ),
        always(
            "text_sha256_matches_text",
            "text_sha256 = sha2(text, 256)",
            "Exact duplicates are found by this digest, and traces verify against it.",
        ),
        always(
            "char_count_matches_text",
            "char_count = length(text)",
            "Spans are counted in characters: another unit cuts every citation wrong.",
        ),
        always(
            "text_not_blank",
            _NOT_BLANK,
            "A document of white space answers nothing.",
        ),
        always(
            "text_without_nul",
            # A search for one byte: a class of all control characters costs more than every other measure.
            "NOT contains(text, chr(0))",
            "PostgreSQL can not store NUL, so the index could not be loaded.",
        ),
        always(
            "uri_has_scheme",
            "regexp_like(uri, '^[a-z][a-z0-9+.-]*:')",
            "A citation that is no URI leads nowhere.",
        ),
        always(
            "language_is_code",
            "regexp_like(language, '^[a-z][a-z][a-z]?$')",
            "Filters go by ISO 639 code; `und` is the code for undetermined.",
        ),
        always(
            "first_seen_not_in_future",
            # A day's grace: a clock that was set back must not stop the lake.
            "first_seen_at < now() + INTERVAL 1 DAY",
            "The earliest seen of near-duplicates represents them, so a date in the future hides a document.",
        ),
        always(
            "pii_count_not_negative", "pii_count >= 0", "It decides what is masked before anything is shown."
        ),
        always(
            "signals_in_range",
            _SIGNALS_IN_RANGE,
            "A threshold compared with NaN or NULL neither keeps nor refuses.",
        ),
        always(
            "headings_are_spans",
            "headings IS NULL OR size(filter(headings, h -> NOT coalesce("
            "substring(text, h.char_start + 1, length(h.title)) = h.title, false))) = 0",
            "A heading that does not stand where it says gives its chunks the wrong heading path.",
            severity="warn",
        ),
        always(
            "pages_in_order",
            "pages IS NULL OR (pages = array_sort(pages) AND "
            "size(filter(pages, p -> NOT coalesce(p BETWEEN 0 AND char_count, false))) = 0)",
            "A page that begins outside the text cites the wrong page.",
            severity="warn",
        ),
        Expectation(
            "replacement_characters_rare",
            "count(*) FILTER (WHERE replacement_char_ratio > 0.001) / greatest(count(*), 1)",
            "Documents with more than one U+FFFD in a thousand characters were read in the wrong encoding.",
            at_most=0.02,
            severity="warn",
        ),
    ),
)

CHUNKS = Suite(
    table="gold.chunks",
    # Full outer, so that a chunk without its document and a document without a chunk are both rows.
    # A span's characters are counted from the start of its text: quadratic in a document's length, and at
    # about 1 GB/s cheaper than moving texts to Python for anything shorter than some megabytes.
    rows="""
        SELECT c.*, d.doc_id AS kept_id, d.tenant AS kept_tenant,
               substring(d.text, c.char_start + 1, c.char_end - c.char_start) AS span
        FROM (SELECT *, true AS is_chunk FROM {chunks}) c
        FULL OUTER JOIN
             (SELECT k.doc_id, k.tenant, k.text
              FROM {documents} k ANTI JOIN {duplicates} u ON k.doc_id = u.doc_id) d
        ON c.doc_id = d.doc_id
    """,
    reads=("silver.documents", "silver.duplicates"),
    parameters=("token_budget",),
    expectations=(
        row_count("is_chunk"),
        *not_null("chunk_id", "doc_id", "tenant", "ordinal", "char_start", among="is_chunk"),
        *not_null("char_end", "text", "text_sha256", "token_count", among="is_chunk"),
        unique("chunk_id_unique", "chunk_id", rows="is_chunk"),
        always(
            "chunk_id_is_derived",
            "chunk_id = sha2(concat_ws(chr(31), doc_id, text_sha256, char_start), 256)",
            "An id that does not follow from document, text and place changes when the lake is rebuilt.",
            among="is_chunk",
        ),
        always(
            "span_in_order",
            "0 <= char_start AND char_start < char_end",
            "A citation with an empty or reversed span quotes nothing.",
            among="is_chunk",
        ),
        always(
            "text_as_long_as_span",
            "length(text) = char_end - char_start",
            "The span and the text of a chunk are one thing said twice.",
            among="is_chunk",
        ),
        always(
            "span_is_in_document",
            "span = text",
            "documents.text[char_start:char_end] == chunks.text: without it a citation can not be checked.",
            among="is_chunk AND kept_id IS NOT NULL",
        ),
        always(
            "document_is_kept",
            "kept_id IS NOT NULL",
            "A chunk of a removed or duplicate document answers with what is no longer there.",
            among="is_chunk",
        ),
        always(
            "tenant_is_document_tenant",
            "tenant = kept_tenant",
            "A chunk under another tenant than its document's shows one tenant's text to another.",
            among="is_chunk AND kept_id IS NOT NULL",
        ),
        always(
            "text_sha256_matches_text",
            "text_sha256 = sha2(text, 256)",
            "Vectors are kept by this digest: a wrong one gives a chunk another text's vector.",
            among="is_chunk",
        ),
        always(
            "text_not_blank",
            _NOT_BLANK,
            "A blank chunk takes a place among the results and says nothing.",
            among="is_chunk",
        ),
        always(
            "tokens_within_budget",
            "token_count BETWEEN 0 AND {token_budget}",
            "The embedder cuts off what is over its budget: the end of the chunk could not be found.",
            among="is_chunk",
        ),
        Expectation(
            "every_document_has_chunk",
            "count(*) FILTER (WHERE is_chunk IS NULL)",
            "A document without a chunk can not be found.",
            at_most=0,
        ),
    ),
)

EMBEDDINGS = Suite(
    table="gold.embeddings",
    # Full outer, so that a text without a vector is a row; vectors of other models are rows too. The norm is
    # summed below the join, or each measure that uses it would sum it again.
    rows=f"""
        SELECT e.*, c.text_sha256 AS wanted_sha256
        FROM (SELECT *, true AS is_embedding, sqrt({SQUARES}) AS norm
              FROM {{embeddings}}) e
        FULL OUTER JOIN (SELECT DISTINCT tenant, text_sha256 FROM {{chunks}}) c
        ON e.tenant = c.tenant AND e.text_sha256 = c.text_sha256 AND e.model_digest = {{model_digest}}
    """,
    reads=("gold.chunks",),
    parameters=("model_digest",),
    expectations=(
        row_count("is_embedding"),
        *not_null("tenant", "text_sha256", "model_digest", "vector", among="is_embedding"),
        unique("key_unique", "tenant", "text_sha256", "model_digest", rows="is_embedding"),
        Expectation(
            "vectors_of_one_length",
            "coalesce(max(size(vector)) FILTER (WHERE is_embedding AND model_digest = {model_digest})"
            " - min(size(vector)) FILTER (WHERE is_embedding AND model_digest = {model_digest}), 0)",
            "The index holds vectors of one length.",
            at_most=0,
        ),
        always(
            "vector_is_finite",
            # Squares of float32 never overflow a double, so the norm is finite when every element is.
            "NOT isnan(norm) AND norm < CAST('infinity' AS DOUBLE)",
            "One NaN makes every distance to the vector NaN, and NaN sorts anywhere.",
            among="is_embedding AND vector IS NOT NULL",
        ),
        always(
            "vector_has_unit_norm",
            "norm BETWEEN 0.999 AND 1.001",
            "Inner product is cosine only between unit vectors; a zero vector is near nothing.",
            among="is_embedding AND norm < CAST('infinity' AS DOUBLE)",
        ),
        Expectation(
            "every_chunk_has_vector",
            "count(*) FILTER (WHERE is_embedding IS NULL)",
            "A chunk without a vector is found by its words alone.",
            at_most=0,
        ),
    ),
)

SUITES: dict[str, Suite] = {suite.table: suite for suite in (DOCUMENTS, CHUNKS, EMBEDDINGS)}
"""Every gated table's suite, by table name."""
