"""Makes the rows of `gold.training_examples` from documents that are fit for training.

Only documents that everybody of the tenant may read are used: a model answers all of them. What is dear is
done for new and changed documents alone: drafting questions, embedding and ranking them. A document counts as
changed too when one of its examples names a passage that is gone, that went to another split, or that is near
a held-out text since. What is cheap is done for all rows each time: which texts are near held-out ones.
Negatives and ranked lists are those that the index gave when they were mined; a rebuild mines them anew.

All of it runs in this process, by DuckDB, which spills to disk what memory does not hold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assets.dedup.near_texts import near_texts
from assets.engine.local_relations import LocalRelations
from assets.lake.tables import TRAINING_EXAMPLES
from assets.training_sets.mining import MINED_SCHEMA, mine_examples, mining_pool
from assets.training_sets.rated_answers import COMPARED_TEXT, define_rated_answers
from assets.training_sets.splits import SPLIT_OF_HASH, near_questions, split_bounds
from assets.training_sets.teachers import ScoreList, define_taught_lists
from common.progress import Progress
from inference.prompting.prompt_assembly import NOT_FOUND
from retrieval.search.bulk_search import LexicalMatrices
from retrieval.search.searcher import SearchConfig
from training.datasets.config import TrainingSetConfig
from training.datasets.drafts import DRAFT_SCHEMA, draft_batches
from training.datasets.training_set import ANSWER

NEAR_HELD_OUT = "near_held_out"
_ENCODED_AT_ONCE = 1024
_COLUMNS = [name for name in TRAINING_EXAMPLES.schema.names if name != "OpenLineage_RunId"]


@dataclass(frozen=True)
class ExampleSettings:
    """What decides the examples, beside the lake's tables.

    Attributes:
        config: How they are made.
        search: How candidates are ranked.
        tenants: The tenants of which they are made.
        licences: `source` and its `licence`.
        user_examples: What users gave, in `training.datasets.requests.USER_EXAMPLE_SCHEMA`.
        rated_answers: Answers that are rated good, in `rated_answers.RATED_ANSWER_SCHEMA`.
        evaluation_questions: `tenant` and `question`: nothing near one is trained on.
        model_digest: The model whose vectors are ranked.
        versions: JSON object: table to the version that is read.
        score_list: Scores the passages of ranked lists; None where the fused ranking does.
    """

    config: TrainingSetConfig
    search: SearchConfig
    tenants: Sequence[str]
    licences: pa.Table
    user_examples: pa.Table
    rated_answers: pa.Table
    evaluation_questions: pa.Table
    model_digest: str
    versions: str
    score_list: ScoreList | None = None


EncodeQuestions = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Takes questions; returns their unit vectors, (questions, dimension)."""
RankByWords = Callable[[str, pa.Table], LexicalMatrices]
"""Takes a tenant and a table of `question` and `language`; returns their BM25 scores."""

_USABLE = """
    SELECT d.doc_id, d.tenant, d.title, d.language, s.split, l.licence
    FROM {documents} AS d SEMI JOIN {wanted_tenants} AS w ON d.tenant = w.tenant
    JOIN {training_splits} AS s ON d.doc_id = s.doc_id LEFT JOIN {licences} AS l ON d.source = l.source
    WHERE d.training_fit AND nullif(d.access_groups, '') IS NULL
"""
_PASSAGES = """
    SELECT c.chunk_id, c.doc_id, c.tenant, c.heading, c.text, c.text_sha256, u.title, u.language, u.split,
           u.licence
    FROM {chunks} AS c JOIN {usable} AS u ON c.doc_id = u.doc_id
"""
_STALE = """
    SELECT DISTINCT e.doc_id
    FROM (
        SELECT doc_id, split, kind, left_out, len(scores) AS scored, unnest(chunk_ids) AS chunk_id
        FROM {training_examples} WHERE doc_id IS NOT NULL AND answer_id IS NULL
    ) AS e
    LEFT JOIN {usable} AS u ON e.doc_id = u.doc_id
    LEFT JOIN {passages} AS p ON e.chunk_id = p.chunk_id
    LEFT JOIN {near_passages} AS n ON e.chunk_id = n.chunk_id
    WHERE p.chunk_id IS NULL OR e.split <> u.split OR (e.split = 'train' AND p.split <> 'train')
        OR (e.kind IN ('retrieval_pair', 'ranked_list') AND (n.chunk_id IS NOT NULL) <> (scored = 0))
"""
"""Documents with an example that can not stay as it is."""
_FRESH = """
    SELECT doc_id FROM {usable} AS u
    WHERE {rebuild} OR doc_id IN (SELECT doc_id FROM {changed_chunks})
        OR doc_id IN (SELECT doc_id FROM {changed_documents}) OR doc_id IN (SELECT doc_id FROM {stale})
        OR doc_id IN (SELECT doc_id FROM {asked_anew})
        OR doc_id NOT IN (
            SELECT doc_id FROM {training_examples} WHERE doc_id IS NOT NULL AND answer_id IS NULL
        )
"""
_DRAFTS = """
    SELECT * FROM {made_drafts}
    UNION ALL
    SELECT a.chunk_id, 'retrieval_pair', 'asked', a.question, NULL
    FROM {asked_questions} AS a SEMI JOIN {fresh} AS f ON a.doc_id = f.doc_id
"""
_NUMBERED = """
    SELECT row_number() OVER (ORDER BY d.chunk_id, d.kind, d.query_kind, d.question, d.positive) AS draft_no,
           d.*, p.tenant, p.doc_id, p.split, p.language, p.licence, p.text, n.chunk_id IS NOT NULL AS is_near
    FROM {drafts} AS d JOIN {passages} AS p ON d.chunk_id = p.chunk_id
    LEFT JOIN {near_passages} AS n ON d.chunk_id = n.chunk_id
"""
_RANKED = r"""
    SELECT r.* FROM {proposed} AS r JOIN {numbered} AS d ON r.draft_no = d.draft_no
    WHERE d.query_kind <> 'claim'
    UNION ALL
    SELECT r.draft_no, r.kind, r.left_out, list(r.chunk_id ORDER BY r.place), list(r.doc_id ORDER BY r.place),
           list(r.score ORDER BY r.place), r.teacher
    FROM (
        SELECT draft_no, kind, left_out, teacher, unnest(chunk_ids) AS chunk_id, unnest(doc_ids) AS doc_id,
               unnest(scores) AS score, generate_subscripts(chunk_ids, 1) AS place FROM {proposed}
    ) AS r
    JOIN {numbered} AS d ON r.draft_no = d.draft_no JOIN {passages} AS p ON r.chunk_id = p.chunk_id
    WHERE d.query_kind = 'claim' AND (
        r.chunk_id = d.chunk_id OR NOT contains(regexp_replace(p.text, '\s+', ' ', 'g'), d.question)
    )
    GROUP BY r.draft_no, r.kind, r.left_out, r.teacher
"""
"""What was mined, but for other passages in which a claim stands word for word: they are no worse answers."""
_NO_TEXTS, _NO_SCORES = "[]::varchar[]", "[]::double[]"
_NEW = f"""
    SELECT m.kind, d.query_kind, d.split, m.left_out, d.tenant, d.doc_id, d.question,
           CASE WHEN m.kind = 'ranked_list' THEN d.text ELSE d.positive END AS positive,
           m.chunk_ids, m.doc_ids, {_NO_TEXTS} AS negatives, m.scores,
           m.teacher, d.licence, d.language,
           NULL AS answer_id, d.chunk_id AS own
    FROM {{mined}} AS m JOIN {{numbered}} AS d ON m.draft_no = d.draft_no
    UNION ALL
    SELECT d.kind, d.query_kind, d.split, NULL, d.tenant, d.doc_id, d.question, d.positive, [d.chunk_id],
           [d.doc_id], {_NO_TEXTS}, {_NO_SCORES}, NULL, d.licence, d.language, NULL, d.chunk_id
    FROM {{numbered}} AS d WHERE d.kind <> 'retrieval_pair' OR d.is_near
    UNION ALL
    SELECT 'domain_text', NULL, p.split, NULL, p.tenant, p.doc_id, NULL, NULL, [p.chunk_id], [p.doc_id],
           {_NO_TEXTS}, {_NO_SCORES}, NULL, p.licence, p.language, NULL, p.chunk_id
    FROM {{passages}} AS p SEMI JOIN {{fresh}} AS f ON p.doc_id = f.doc_id
    UNION ALL
    SELECT u.kind, 'user', {SPLIT_OF_HASH.format(hash="sha2(concat('split', u.question), 256)")}, NULL,
           u.tenant, NULL, u.question, u.positive, {_NO_TEXTS}, {_NO_TEXTS}, u.negatives, {_NO_SCORES}, NULL,
           NULL, NULL, NULL, NULL
    FROM {{user_examples}} AS u
    UNION ALL
    SELECT 'instruction', '{ANSWER}', a.split, NULL, a.tenant, a.doc_id, a.question, a.positive, a.chunk_ids,
           a.doc_ids, {_NO_TEXTS}, {_NO_SCORES}, NULL, a.licence, a.language, a.answer_id, a.answer_id
    FROM {{answers}} AS a
"""
_IDENTITY = ", ".join(
    f"coalesce({name}, '')" for name in ("tenant", "kind", "query_kind", "question", "positive", "own")
)
_ALL = f"""
    SELECT sha2(concat_ws(chr(31), {_IDENTITY}), 256) AS example_id, * EXCLUDE (own), {{versions}} AS versions
    FROM {{new}} QUALIFY row_number() OVER (PARTITION BY example_id ORDER BY len(scores) DESC) = 1
    UNION ALL BY NAME
    SELECT e.* EXCLUDE (licence, language, "OpenLineage_RunId"), u.licence, u.language
    FROM {{training_examples}} AS e JOIN {{usable}} AS u ON e.doc_id = u.doc_id
    ANTI JOIN {{fresh}} AS f ON e.doc_id = f.doc_id WHERE e.answer_id IS NULL
"""
_TEXTS = f"""
    SELECT tenant, split, question AS text FROM {{rows}} WHERE question IS NOT NULL
    UNION SELECT tenant, split, {COMPARED_TEXT} FROM {{rows}} WHERE positive <> '{NOT_FOUND}'
    UNION SELECT tenant, split, unnest(negatives) FROM {{rows}} WHERE split = 'train'
    UNION SELECT tenant, split, text FROM {{passages}}
    UNION SELECT tenant, 'evaluation', question FROM {{evaluation_questions}}
"""
_ASKED_TEXTS = """
    SELECT tenant, split, question AS text FROM {rows} WHERE question IS NOT NULL
    UNION SELECT tenant, 'evaluation', question FROM {evaluation_questions}
"""
_LEFT_OUT = f"""
    CASE WHEN r.left_out = 'not_found' THEN r.left_out
         WHEN (r.tenant, r.split, r.question) IN (SELECT (tenant, split, text) FROM {{near_questions}})
             THEN '{NEAR_HELD_OUT}'
         WHEN r.kind = 'retrieval_pair' AND r.doc_id IS NOT NULL AND len(r.scores) = 0 THEN '{NEAR_HELD_OUT}'
         WHEN r.split = 'train' AND (
             (r.tenant, r.question) IN (SELECT (tenant, text) FROM {{near}})
             OR (r.tenant, {COMPARED_TEXT}) IN (SELECT (tenant, text) FROM {{near}})
             OR r.example_id IN (SELECT example_id FROM {{near_rows}})
         ) THEN '{NEAR_HELD_OUT}' END
"""
_NEAR_ROWS = """
    SELECT example_id FROM (
        SELECT r.example_id, unnest(r.chunk_ids) AS chunk_id FROM {rows} AS r WHERE r.split = 'train'
    ) AS named
    JOIN {passages} AS p ON named.chunk_id = p.chunk_id
    JOIN {near} AS n ON p.tenant = n.tenant AND p.text = n.text
    UNION
    SELECT example_id FROM (
        SELECT r.example_id, r.tenant, unnest(r.negatives) AS text FROM {rows} AS r WHERE r.split = 'train'
    ) AS named JOIN {near} AS n ON named.tenant = n.tenant AND named.text = n.text
"""


def define_training_examples(
    on: LocalRelations,
    settings: ExampleSettings,
    encode: EncodeQuestions,
    rank_by_words: RankByWords,
    rebuild: bool,
) -> None:
    """Defines `examples`, the rows of `gold.training_examples`.

    Args:
        on: The relations `documents`, `chunks`, `embeddings`, `training_splits`, `training_examples`, and
            `changed_documents` and `changed_chunks`.
        settings: What else decides them.
        encode: Embeds questions.
        rank_by_words: Ranks the chunks of a tenant by the words of questions.
        rebuild: Whether every document counts as changed.
    """
    on.add("wanted_tenants", pa.table({"tenant": pa.array(settings.tenants, pa.string())}))
    on.add("licences", settings.licences)
    on.add("user_examples", settings.user_examples)
    on.add("rated_answers", settings.rated_answers)
    on.add("evaluation_questions", settings.evaluation_questions)
    on.define("usable", _USABLE)
    on.define("passages", _PASSAGES)
    _define_near_passages(on, settings)
    define_rated_answers(on)
    on.define("stale", _STALE)
    on.define("fresh", _FRESH.replace("{rebuild}", str(rebuild).lower()))
    sampled = (
        f"row_number() OVER (PARTITION BY doc_id ORDER BY chunk_id) <= {settings.config.chunks_per_document}"
    )
    on.map_batches(
        "made_drafts",
        f"""
        SELECT p.chunk_id, p.title, p.heading, p.text, p.language, {sampled} AS sampled
        FROM {{passages}} AS p SEMI JOIN {{fresh}} AS f ON p.doc_id = f.doc_id
        """,
        draft_batches,
        DRAFT_SCHEMA,
        Progress("chunks from which questions are made"),
    )
    on.define("drafts", _DRAFTS)
    on.define("numbered", _NUMBERED)
    on.add("proposed", _mined(on, settings, encode, rank_by_words))
    on.define("ranked", _RANKED)
    define_taught_lists(on, settings.config.teacher, settings.score_list)
    bounds = split_bounds(settings.config)
    on.define("new", _NEW, validation_from=bounds.validation_from, test_from=bounds.test_from)
    on.define("rows", _ALL, versions=settings.versions)
    _define_near_texts(on, settings)
    columns = ", ".join(
        f"{_LEFT_OUT} AS left_out" if name == "left_out" else f"r.{name}" for name in _COLUMNS
    )
    on.define("near_rows", _NEAR_ROWS)
    on.define("examples", f"SELECT {columns} FROM {{rows}} AS r")


def _define_near_passages(on: LocalRelations, settings: ExampleSettings) -> None:
    """Defines `near_passages`: passages for training that are near a held-out or evaluation text."""
    on.define(
        "held_out",
        "SELECT tenant, split, chunk_id, text FROM {passages} UNION ALL "
        "SELECT tenant, 'evaluation', NULL, question FROM {evaluation_questions}",
    )
    on.add("near_passages", _near(on, "held_out", settings).select(["chunk_id"]))


def _define_near_texts(on: LocalRelations, settings: ExampleSettings) -> None:
    """Defines `near`, texts for training that are near a held-out one, and `near_questions`."""
    on.define("texts", _TEXTS)
    on.add("near", _near(on, "texts", settings).select(["tenant", "text"]))
    on.define("asked_texts", _ASKED_TEXTS)
    asked = on.arrow("asked_texts")
    of_tenants = (near_questions(asked.filter(pc.equal(asked["tenant"], each))) for each in settings.tenants)
    on.add("near_questions", pa.concat_tables([asked.slice(0, 0), *of_tenants]))


def _near(on: LocalRelations, name: str, settings: ExampleSettings) -> pa.Table:
    """Returns the rows of the training split that are near a row of another split of the same tenant."""
    rows = on.arrow(name)
    parts = [rows.slice(0, 0)]
    for tenant in settings.tenants:
        of_tenant = rows.filter(pc.equal(rows["tenant"], tenant))
        is_train = pc.equal(of_tenant["split"], "train")
        train, others = of_tenant.filter(is_train), of_tenant.filter(pc.invert(is_train))
        parts.append(
            train.filter(pa.array(near_texts(train["text"], others["text"], settings.config.near_jaccard)))
        )
    return pa.concat_tables(parts)


def _mined(
    on: LocalRelations, settings: ExampleSettings, encode: EncodeQuestions, rank_by_words: RankByWords
) -> pa.Table:
    """Returns the retrieval pairs and ranked lists of the drafts, in `MINED_SCHEMA`."""
    (count,) = on.row("SELECT count(*) FROM {numbered} WHERE kind = 'retrieval_pair' AND NOT is_near")
    progress, parts = Progress("questions embedded and ranked", count), [MINED_SCHEMA.empty_table()]
    for tenant in settings.tenants:
        on.define(
            "asked",
            "SELECT draft_no, chunk_id, question, positive, language, split = 'train' AS is_train "
            "FROM {numbered} WHERE tenant = {tenant} AND kind = 'retrieval_pair' AND NOT is_near "
            "ORDER BY draft_no",
            tenant=tenant,
        )
        asked = on.arrow("asked")
        if not len(asked):
            continue
        texts = asked["question"].to_pylist()
        vectors = []
        for first in range(0, len(texts), _ENCODED_AT_ONCE):
            vectors.append(encode(texts[first : first + _ENCODED_AT_ONCE]))
            progress.advance(len(vectors[-1]))
        question_vectors = np.concatenate(vectors)
        lexical = rank_by_words(tenant, asked.select(["question", "language"]))
        is_train = asked["is_train"].to_numpy()
        # What is trained on names no held-out passage; held-out questions are ranked among all.
        for among_train in (True, False):
            on.define(
                "pool",
                f"""
                SELECT p.chunk_id, p.doc_id, p.text, p.text_sha256, e.vector
                FROM {{passages}} AS p JOIN {{embeddings}} AS e ON p.tenant = e.tenant
                    AND p.text_sha256 = e.text_sha256 AND e.model_digest = {{model}}
                ANTI JOIN {{near_passages}} AS n ON p.chunk_id = n.chunk_id
                WHERE p.tenant = {{tenant}} {"AND p.split = 'train'" if among_train else ""}
                ORDER BY p.chunk_id
                """,
                model=settings.model_digest,
                tenant=tenant,
            )
            some = is_train == among_train
            part = LexicalMatrices(lexical.questions[some], lexical.chunks, lexical.chunk_ids)
            parts.append(
                mine_examples(
                    mining_pool(on.arrow("pool"), part),
                    asked.filter(pa.array(some)),
                    question_vectors[some],
                    settings.config,
                    settings.search.candidates,
                    settings.search.vector_weight,
                )
            )
    return pa.concat_tables(parts)
