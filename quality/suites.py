"""Headwater's suites: the expectations of each gated table, over one relation per table.

A suite's relation has one row per row of its table. Its columns are narrow: a boolean for each condition,
which SQL computes, and keys and numbers; never a text. Great Expectations validates these columns
(`quality.gx`).

The SQL is Spark's; `quality.checked_rows` has it run by DuckDB or by Spark. `{documents}` stands for
`silver.documents`, and so on, and `{token_budget}` for a parameter's value.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quality.expectations import (
    Expectation,
    expect_condition,
    expect_not_null,
    expect_of_column,
    expect_row_count,
    expect_unique,
)


@dataclass(frozen=True)
class Suite:
    """The expectations of one table.

    Attributes:
        table: `layer.table`; the table that the gate guards.
        rows: A query with a row per row of the table, over which the expectations' columns are defined.
        expectations: The expectations of the table.
        reads: The other tables that `rows` reads, each at the version that the guarded table was made from.
        parameters: The names of the SQL's parameters.
    """

    table: str
    rows: str
    expectations: tuple[Expectation, ...]
    reads: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()

    @property
    def columns(self) -> Mapping[str, str]:
        """The SQL of each column of the relation, by its name."""
        defined: dict[str, str] = {}
        for expectation in self.expectations:
            for name, sql in expectation.columns.items():
                # A column's own value stands in for whether it has one.
                if name not in defined or sql == name:
                    defined[name] = sql
        return defined

    @property
    def query(self) -> str:
        """The query for the suite's relation, in Spark's SQL."""
        columns = ", ".join(f"{sql} AS {name}" for name, sql in self.columns.items())
        return f"SELECT {columns} FROM ({self.rows}) AS checked"


LOW_TEXT_COVERAGE = 0.85
"""The coverage below which a document has lost text: one that lost a fifth of its words is below it."""

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

_NOT_BLANK = r"regexp_like(text, '[^\\s\\v\\p{{Z}}]')"
"""White space is what normalisation leaves of it, and every other space character."""
_NORM = (
    "sqrt(aggregate(vector, CAST(0 AS DOUBLE), (total, x) -> total + CAST(x AS DOUBLE) * CAST(x AS DOUBLE)))"
)
"""NULL where an element is; squares of float32 never overflow a double, so finite when every element is."""

# Sixty-four lower-case hexadecimal digits; the pattern finds what is none.
_HEX_DIGEST = "length({0}) = 64 AND NOT regexp_like({0}, '[^0-9a-f]')"

DOCUMENTS = Suite(
    table="silver.documents",
    rows="SELECT * FROM {documents}",
    expectations=(
        expect_row_count(),
        *expect_not_null("doc_id", "tenant", "source", "uri", "content_sha256", "text", "text_sha256"),
        *expect_not_null("language", "char_count", "pii_count", "first_seen_at"),
        expect_unique("doc_id_unique", "doc_id"),
        expect_condition(
            "doc_id_is_derived",
            "doc_id = sha2(concat_ws(chr(31), tenant, source, uri), 256)",
            "An id that does not follow from tenant, source and uri changes when the lake is rebuilt.",
        ),
        expect_condition(
            "content_sha256_is_digest",
            _HEX_DIGEST.format("content_sha256"),
            "A citation names the source bytes by this digest.",
        ),
        expect_condition(
            "text_sha256_matches_text",
            "text_sha256 = sha2(text, 256)",
            "Exact duplicates are found by this digest, and traces verify against it.",
        ),
        expect_condition(
            "char_count_matches_text",
            "char_count = length(text)",
            "Spans are counted in characters: another unit cuts every citation wrong.",
        ),
        expect_condition(
            "text_not_blank",
            _NOT_BLANK,
            "A document of white space answers nothing.",
        ),
        expect_condition(
            "text_without_nul",
            # A search for one byte: a class of all control characters costs more than every other measure.
            "NOT contains(text, chr(0))",
            "PostgreSQL can not store NUL, so the index could not be loaded.",
        ),
        expect_condition(
            "uri_has_scheme",
            "regexp_like(uri, '^[a-z][a-z0-9+.-]*:')",
            "A citation that is no URI leads nowhere.",
        ),
        expect_condition(
            "language_is_code",
            "regexp_like(language, '^[a-z][a-z][a-z]?$')",
            "Filters go by ISO 639 code; `und` is the code for undetermined.",
        ),
        expect_condition(
            "first_seen_not_in_future",
            # A day's grace: a clock that was set back must not stop the lake.
            "first_seen_at < now() + INTERVAL 1 DAY",
            "The earliest seen of near-duplicates represents them, so a date in the future hides a document.",
        ),
        expect_of_column(
            "pii_count_not_negative",
            "expect_column_values_to_be_between",
            "pii_count",
            "It decides what is masked before anything is shown.",
            min_value=0,
        ),
        expect_condition(
            "signals_in_range",
            _SIGNALS_IN_RANGE,
            "A threshold compared with NaN or NULL neither keeps nor refuses.",
        ),
        expect_condition(
            "headings_are_spans",
            "headings IS NULL OR size(filter(headings, h -> NOT coalesce("
            "substring(text, h.char_start + 1, length(h.title)) = h.title, false))) = 0",
            "A heading that does not stand where it says gives its chunks the wrong heading path.",
            severity="warn",
        ),
        expect_condition(
            "pages_in_order",
            "pages IS NULL OR (pages = array_sort(pages) AND "
            "size(filter(pages, p -> NOT coalesce(p BETWEEN 0 AND char_count, false))) = 0)",
            "A page that begins outside the text cites the wrong page.",
            severity="warn",
        ),
        expect_condition(
            "training_fit_follows_from_reasons",
            "training_fit = (size(training_unfit_reasons) = 0)",
            "A document without a decision could go into a training set, or be kept out of it, unseen.",
        ),
        expect_of_column(
            "text_arrived",
            "expect_column_values_to_be_between",
            "text_coverage",
            "More than one document in fifty has lost a seventh of the words that its source shows.",
            severity="warn",
            min_value=LOW_TEXT_COVERAGE,
            mostly=0.98,
        ),
        expect_of_column(
            "replacement_characters_rare",
            "expect_column_values_to_be_between",
            "replacement_char_ratio",
            "Documents with more than one U+FFFD in a thousand characters were read in the wrong encoding.",
            severity="warn",
            max_value=0.001,
            mostly=0.98,
        ),
    ),
)

CHUNKS = Suite(
    table="gold.chunks",
    # A span's characters are counted from the start of its text: quadratic in a document's length, and at
    # about 1 GB/s cheaper than moving texts to Python for anything shorter than some megabytes.
    rows="""
        SELECT c.*, d.doc_id AS kept_id, d.tenant AS kept_tenant, documents_without_chunk,
               substring(d.text, c.char_start + 1, c.char_end - c.char_start) AS span
        FROM {chunks} AS c
        LEFT JOIN (
            SELECT k.doc_id, k.tenant, k.text
            FROM {documents} AS k ANTI JOIN {duplicates} AS u ON k.doc_id = u.doc_id
        ) AS d ON c.doc_id = d.doc_id
        CROSS JOIN (
            SELECT count(*) AS documents_without_chunk
            FROM {documents} AS k
            ANTI JOIN {duplicates} AS u ON k.doc_id = u.doc_id
            ANTI JOIN {chunks} AS f ON k.doc_id = f.doc_id
        ) AS unfound
    """,
    reads=("silver.documents", "silver.duplicates"),
    parameters=("token_budget",),
    expectations=(
        expect_row_count(),
        *expect_not_null("chunk_id", "doc_id", "tenant", "ordinal", "char_start"),
        *expect_not_null("char_end", "text", "text_sha256", "token_count"),
        expect_unique("chunk_id_unique", "chunk_id"),
        expect_condition(
            "chunk_id_is_derived",
            "chunk_id = sha2(concat_ws(chr(31), doc_id, text_sha256, char_start), 256)",
            "An id that does not follow from document, text and place changes when the lake is rebuilt.",
        ),
        expect_condition(
            "span_in_order",
            "0 <= char_start AND char_start < char_end",
            "A citation with an empty or reversed span quotes nothing.",
        ),
        expect_condition(
            "text_as_long_as_span",
            "length(text) = char_end - char_start",
            "A span of another length than its text cites the wrong characters.",
        ),
        expect_condition(
            "span_is_in_document",
            "span = text",
            "documents.text[char_start:char_end] == chunks.text: without it a citation can not be checked.",
            among="kept_id IS NOT NULL",
        ),
        expect_of_column(
            "document_is_kept",
            "expect_column_values_to_not_be_null",
            "kept_id",
            "A chunk of a removed or duplicate document answers with what is no longer there.",
            sql="CASE WHEN kept_id IS NOT NULL THEN true END",
        ),
        expect_condition(
            "tenant_is_document_tenant",
            "tenant = kept_tenant",
            "A chunk under another tenant than its document's shows one tenant's text to another.",
            among="kept_id IS NOT NULL",
        ),
        expect_condition(
            "text_sha256_matches_text",
            "text_sha256 = sha2(text, 256)",
            "Vectors are kept by this digest: a wrong one gives a chunk another text's vector.",
        ),
        expect_condition(
            "text_not_blank",
            _NOT_BLANK,
            "A blank chunk takes a place among the results and answers nothing.",
        ),
        expect_condition(
            "tokens_within_budget",
            "token_count BETWEEN 0 AND {token_budget}",
            "The embedder cuts off what is over its budget: the end of the chunk could not be found.",
        ),
        expect_of_column(
            "every_document_has_chunk",
            "expect_column_max_to_be_between",
            "documents_without_chunk",
            "A document without a chunk can not be found.",
            max_value=0,
        ),
    ),
)

EMBEDDINGS = Suite(
    table="gold.embeddings",
    # The norm is a column of the rows: each condition that uses it would sum it again.
    rows=f"""
        SELECT e.*, {_NORM} AS norm, texts_without_vector
        FROM {{embeddings}} AS e
        CROSS JOIN (
            SELECT count(*) AS texts_without_vector
            FROM (SELECT DISTINCT tenant, text_sha256 FROM {{chunks}}) AS c
            ANTI JOIN (
                SELECT tenant, text_sha256 FROM {{embeddings}} WHERE model_digest = {{model_digest}}
            ) AS v ON c.tenant = v.tenant AND c.text_sha256 = v.text_sha256
        ) AS unembedded
    """,
    reads=("gold.chunks",),
    parameters=("model_digest",),
    expectations=(
        expect_row_count(),
        *expect_not_null("tenant", "text_sha256", "model_digest", "vector"),
        expect_unique("key_unique", "tenant", "text_sha256", "model_digest"),
        expect_of_column(
            "vectors_of_one_length",
            "expect_column_unique_value_count_to_be_between",
            "vector_length",
            "The index holds vectors of one length.",
            sql="CASE WHEN model_digest = {model_digest} AND vector IS NOT NULL THEN size(vector) END",
            max_value=1,
        ),
        expect_condition(
            "vector_is_finite",
            "NOT isnan(norm) AND norm < CAST('infinity' AS DOUBLE)",
            "One NaN makes every distance to the vector NaN, and NaN sorts anywhere.",
            among="vector IS NOT NULL",
        ),
        expect_condition(
            "vector_has_unit_norm",
            "norm BETWEEN 0.999 AND 1.001",
            "Inner product is cosine only between unit vectors; a zero vector is near nothing.",
            among="norm < CAST('infinity' AS DOUBLE)",
        ),
        expect_of_column(
            "every_chunk_has_vector",
            "expect_column_max_to_be_between",
            "texts_without_vector",
            "A chunk without a vector is found by its words alone.",
            max_value=0,
        ),
    ),
)

SUITES: dict[str, Suite] = {suite.table: suite for suite in (DOCUMENTS, CHUNKS, EMBEDDINGS)}
"""Every gated table's suite, by table name."""
