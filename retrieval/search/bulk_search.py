"""Ranks the chunks of a tenant for many questions at once, as a search ranks them for one.

The scores are those of `Searcher.search` in its mode `hybrid`: BM25 over the index's postings, cosine
similarity, and the fusion of both over the candidates that each of them proposes. They are computed as matrix
products: questions by lexemes with lexemes by chunks, and questions by dimensions with dimensions by chunks.
A question costs a small part of a search (docs/training-sets.md).

Two things differ from a search. A question is read in its own language alone, while a search reads it in all
languages of the tenant; so idf counts all of the tenant's chunks. And of the tenant's documents only those
are ranked that all of its users may read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import scipy.sparse as sp
from psycopg import Connection
from psycopg.sql import SQL, Composed, Literal

from retrieval.index.types import IndexPoint
from retrieval.search.fusion import fused_scores
from retrieval.search.lexical_search import LexicalConfig, identifier_weights
from retrieval.store.postgres import DatabaseRow

_SCORES_PER_BLOCK = 1 << 24
"""Scores that are held at once: 64 MB of float32, and as much for words."""


@dataclass(frozen=True)
class LexicalMatrices:
    """The BM25 scores of questions, as two sparse matrices whose product they are.

    Attributes:
        questions: float32 of shape (questions, lexemes): how much each lexeme counts in a question.
        chunks: float32 of shape (lexemes, chunks): its saturated frequency in each chunk.
        chunk_ids: The chunks, in the order of the columns.
    """

    questions: sp.csr_matrix
    chunks: sp.csr_matrix
    chunk_ids: pa.Array


def read_lexical_matrices(
    connection: Connection[DatabaseRow],
    at: IndexPoint,
    tenant: str,
    questions: pa.Table,
    config: LexicalConfig,
) -> LexicalMatrices:
    """Returns the BM25 scores of questions for the chunks that all of a tenant's users may read.

    Words that more than `max_postings` chunks hold are left out, unless a question has no other.

    Args:
        connection: A connection of the owner, in a transaction.
        at: The state of the index.
        tenant: The tenant.
        questions: `question` and `language` (ISO 639-1 code).
        config: The settings of BM25.
    """
    numbered = questions.select(["language", "question"]).add_column(
        0, "no", pa.array(np.arange(len(questions), dtype=np.int32))
    )
    connection.execute("CREATE TEMPORARY TABLE asked (no integer, language text, words text) ON COMMIT DROP")
    with connection.cursor() as cursor, cursor.copy("COPY asked FROM STDIN (FORMAT csv)") as stream:
        stream.write(_csv(numbered))
    connection.execute(
        SQL("""
        CREATE TEMPORARY TABLE asked_lexemes ON COMMIT DROP AS
        SELECT no, lexeme, max(tf) AS tf, dense_rank() OVER (ORDER BY lexeme) - 1 AS lexeme_no
        FROM asked CROSS JOIN LATERAL headwater.terms(language, words, true) GROUP BY no, lexeme;
        CREATE TEMPORARY TABLE asked_chunks ON COMMIT DROP AS
        SELECT chunk_no::integer, chunk_id FROM headwater.chunks
        WHERE generation = {generation} AND scope = {tenant}
            AND valid_from <= {epoch} AND (valid_to IS NULL OR valid_to > {epoch})
        """).format(generation=Literal(at.generation), epoch=Literal(at.epoch), tenant=Literal(tenant))
    )
    terms = _rows(connection, SQL("SELECT no, lexeme_no, tf, lexeme FROM asked_lexemes"))
    chunks = _rows(connection, SQL("SELECT chunk_no, chunk_id FROM asked_chunks ORDER BY chunk_no"))
    mean_length = _mean_length(connection, at, tenant)
    postings = _rows(
        connection,
        SQL("""
        SELECT lexeme_no, unnest(p.chunk_nos) AS chunk_no, unnest(p.counts) AS counts
        FROM (SELECT DISTINCT lexeme, lexeme_no FROM asked_lexemes) AS wanted
        JOIN headwater.postings p USING (lexeme)
        WHERE p.generation = {generation} AND p.scope = {tenant}
        """).format(
            generation=Literal(at.generation),
            tenant=Literal(tenant),
        ),
    )
    return _matrices(len(questions), terms, chunks, postings, mean_length, config)


def _matrices(
    count: int,
    terms: pa.Table,
    chunks: pa.Table,
    postings: pa.Table,
    mean_length: float,
    config: LexicalConfig,
) -> LexicalMatrices:
    numbers = chunks["chunk_no"].to_numpy()
    lexeme, chunk_no = postings["lexeme_no"].to_numpy(), postings["chunk_no"].to_numpy()
    column = np.searchsorted(numbers, chunk_no)
    # Postings of chunks that are no longer valid stay in the blocks.
    valid = (column < len(numbers)) & (numbers[np.minimum(column, len(numbers) - 1)] == chunk_no)
    lexeme, column = lexeme[valid], column[valid]
    counts = postings["counts"].to_numpy()[valid]
    # As `headwater.postings` packs them: see retrieval/store/tables.sql.
    tf = config.text_weight * (counts & 65535) + config.title_weight * (counts >> 16 & 255)
    tf += config.heading_weight * (counts >> 24 & 255)
    length = counts >> 32
    penalty = config.bm25_k1 * (1 - config.bm25_b + config.bm25_b * length / (mean_length or 1.0))
    lexemes = int(terms["lexeme_no"].to_numpy().max(initial=-1)) + 1
    held = np.bincount(lexeme, minlength=lexemes)
    weights = sp.csr_matrix(
        ((tf / (tf + penalty)).astype(np.float32), (lexeme, column)), shape=(lexemes, len(numbers))
    )
    asked, place = terms["no"].to_numpy(), terms["lexeme_no"].to_numpy()
    idf = np.log1p((np.maximum(len(numbers) - held, 0) + 0.5) / (held + 0.5))
    count_in_question = terms["tf"].to_numpy() * identifier_weights(terms["lexeme"].to_pylist(), config)
    kept = held[place] <= config.max_postings
    alone = np.bincount(asked[kept], minlength=count) == 0  # questions of common words only
    kept |= alone[asked]
    return LexicalMatrices(
        sp.csr_matrix(
            ((count_in_question * idf[place])[kept].astype(np.float32), (asked[kept], place[kept])),
            shape=(count, lexemes),
        ),
        weights,
        chunks["chunk_id"].combine_chunks().cast(pa.string()),
    )


@dataclass(frozen=True)
class BulkRanking:
    """The candidates of some questions, best first, and where each question's own chunk is among them.

    Attributes:
        first: The number of the first of the questions.
        chunks: int64 of shape (questions, candidates): columns of chunks; -1 where there are no more.
        fused: float64, the same shape: the fused scores.
        cosines: float32, the same shape.
        own_cosines: float32 of shape (questions,): the cosine of the chunk that the question was made of.
    """

    first: int
    chunks: npt.NDArray[np.int64]
    fused: npt.NDArray[np.float64]
    cosines: npt.NDArray[np.float32]
    own_cosines: npt.NDArray[np.float32]


def rank_in_bulk(
    lexical: LexicalMatrices,
    question_vectors: npt.NDArray[np.float32],
    chunk_vectors: npt.NDArray[np.float32],
    own: npt.NDArray[np.int64],
    pool: int,
    vector_weight: float,
) -> Iterator[BulkRanking]:
    """Yields the fused rankings of questions, some of them at a time.

    Args:
        lexical: The BM25 scores.
        question_vectors: Unit vectors, (questions, dimension).
        chunk_vectors: Unit vectors, (chunks, dimension), in the order of `lexical.chunk_ids`.
        own: The column of the chunk that each question was made of, (questions,). It is ranked like the
            others: it may be missing among the candidates.
        pool: How many chunks each of the two rankings proposes.
        vector_weight: The weight of the vector ranking in the fused score.
    """
    size = len(chunk_vectors)
    if not size:
        return
    block = max(1, _SCORES_PER_BLOCK // size)
    depth = min(pool, size)
    for first in range(0, len(question_vectors), block):
        rows = slice(first, first + block)
        cosines = question_vectors[rows] @ chunk_vectors.T
        words = (lexical.questions[rows] @ lexical.chunks).toarray()
        by_words, by_vector = _best(words, depth), _best(cosines, depth)
        # A chunk without a word of the question is no candidate by words.
        without = np.take_along_axis(words, by_words, axis=1) == 0
        by_words = np.where(without, by_vector[:, :1], by_words)
        proposed = np.concatenate([by_words, by_vector], axis=1)
        proposed.sort(axis=1)
        repeated = np.zeros(proposed.shape, bool)
        repeated[:, 1:] = proposed[:, 1:] == proposed[:, :-1]
        near, held = (np.take_along_axis(scores, proposed, axis=1) for scores in (cosines, words))
        fused = fused_scores(held, near, vector_weight, ~repeated)
        fused[repeated] = -np.inf
        order = np.argsort(-fused, axis=1, kind="stable")
        chunks, fused, near = (np.take_along_axis(each, order, axis=1) for each in (proposed, fused, near))
        chunks[np.isneginf(fused)] = -1
        own_cosines = cosines[np.arange(len(cosines)), own[rows]]
        yield BulkRanking(first, chunks, fused, near, own_cosines)


def _best(scores: npt.NDArray[np.float32], depth: int) -> npt.NDArray[np.int64]:
    """Returns the columns of the `depth` highest scores of each row, in no order."""
    if depth == scores.shape[1]:
        return np.broadcast_to(np.arange(depth), scores.shape).copy()
    return np.argpartition(-scores, depth - 1, axis=1)[:, :depth]


def _mean_length(connection: Connection[DatabaseRow], at: IndexPoint, tenant: str) -> float:
    row = connection.execute(
        """
        SELECT sum(total_length)::float8 / nullif(sum(chunk_count), 0) FROM (
            SELECT DISTINCT ON (language) chunk_count, total_length FROM headwater.statistics
            WHERE generation = %s AND scope = %s AND epoch <= %s ORDER BY language, epoch DESC
        ) AS newest
        """,
        (at.generation, tenant, at.epoch),
    ).fetchone()
    return float(row[0]) if row and row[0] is not None else 0.0


def _csv(rows: pa.Table) -> bytes:
    out = BytesIO()
    pyarrow.csv.write_csv(rows, out, pyarrow.csv.WriteOptions(include_header=False))
    return out.getvalue()


def _rows(connection: Connection[DatabaseRow], query: SQL | Composed) -> pa.Table:
    """Returns the rows of a query as Arrow, without a Python object for each."""
    copy = SQL("COPY ({query}) TO STDOUT (FORMAT csv, HEADER)").format(query=query)
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        text = b"".join(stream)
    strings = {"lexeme": pa.string(), "chunk_id": pa.string()}
    numbers = {name: pa.int64() for name in ("no", "lexeme_no", "chunk_no", "counts", "tf")}
    return pyarrow.csv.read_csv(
        BytesIO(text),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=strings | numbers, strings_can_be_null=False),
    )
