"""Rated answers as examples: those that are rated good, with the passages that they were given from.

An instruction is made of each, with the answer and its citations, and a question of each that the passages
of one document answer, which an embedder learns to find them by.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from assets.engine.local_relations import LocalRelations
from assets.lake.lake import Lake
from assets.lake.tables import ANSWER_RATINGS, ANSWERS
from common.citation_markers import cited_numbers, renumber_citations
from inference.prompting.prompt_assembly import NOT_FOUND
from quality.evaluation.answer_metrics import supported_share
from quality.pii import count_pii
from training.generator.examples import PASSAGES

RATED_ANSWER_SCHEMA = pa.schema(
    [
        ("tenant", pa.string()),
        ("answer_id", pa.string()),
        ("question", pa.string()),
        ("positive", pa.string()),
        ("cited", pa.int32()),
        ("chunk_ids", pa.list_(pa.string())),
    ]
)
"""`positive` is the answer, in which [n] is the nth of `chunk_ids`, or the refusal that a generator writes.
Of the chunks, it cites the first `cited`, none in a refusal; the others were found for its question."""

COMPARED_TEXT = r"""
    CASE WHEN query_kind = 'answer' THEN regexp_replace(positive, '\s*\[\d+\]', '', 'g') ELSE positive END
"""
"""SQL for a positive as it is compared with held-out texts: numbers of citations would make it another."""

_RATED_GOOD = """
    select answer_id from ratings
    qualify row_number() over (partition by answer_id order by rated_at desc) = 1 and rating = 'good'
"""
_GOOD = f"""
    with rated as ({_RATED_GOOD})
    select a.tenant, a.answer_id, a.question, a.answer, a.refused,
        coalesce([each.chunk_id for each in a.citations], []) as cited, a.retrieved,
        coalesce([each.quote for each in a.citations], []) as quotes
    from answers as a semi join rated using (answer_id)
    where list_contains(?::varchar[], a.tenant) and nullif(a.access_groups, '') is null
        and a.retrieved is not null and (a.refused or len(a.citations) > 0)
        and coalesce(a.outcome, 'answered') in ('answered', 'refused')
    qualify row_number() over (
        partition by a.tenant, a.question, a.refused, case when not a.refused then a.answer end
        order by a.answered_at desc, a.answer_id
    ) = 1
    order by a.tenant, a.answer_id
"""

_NAMED = """
    SELECT r.*, p.chunk_id, p.doc_id, p.split, p.licence, p.language, n.chunk_id IS NOT NULL AS is_near
    FROM (
        SELECT * EXCLUDE (chunk_ids), unnest(chunk_ids) AS named, generate_subscripts(chunk_ids, 1) AS place
        FROM {rated_answers}
    ) AS r
    JOIN {passages} AS p ON r.named = p.chunk_id AND r.tenant = p.tenant
    LEFT JOIN {near_passages} AS n ON p.chunk_id = n.chunk_id
"""
_CITED = """
    SELECT answer_id, tenant, question, any_value(cited) AS cited, first(doc_id ORDER BY place) AS doc_id,
           first(split ORDER BY place) AS split, first(language ORDER BY place) AS language,
           CASE WHEN count(DISTINCT coalesce(licence, '')) FILTER (place <= greatest(cited, 1)) = 1
               THEN first(licence ORDER BY place) END AS licence,
           list(DISTINCT chunk_id) FILTER (place <= cited) AS chunk_ids,
           count(DISTINCT doc_id) FILTER (place <= cited) AS documents
    FROM {named_by_answers} GROUP BY answer_id, tenant, question
    HAVING count(*) FILTER (place <= cited) = any_value(cited)
"""
"""Answers all of whose cited passages are there. One of several licences says none."""
_ANSWERS = f"""
    SELECT n.answer_id, n.tenant, n.question, n.positive, h.doc_id, h.split, h.licence, h.language,
           list(n.chunk_id ORDER BY n.place)[:greatest(n.cited, {PASSAGES})] AS chunk_ids,
           list(n.doc_id ORDER BY n.place)[:greatest(n.cited, {PASSAGES})] AS doc_ids
    FROM {{named_by_answers}} AS n
    JOIN {{cited_by_answers}} AS h ON n.answer_id = h.answer_id AND n.split = h.split
    WHERE n.place <= n.cited OR NOT n.is_near
    GROUP BY n.answer_id, n.tenant, n.question, n.positive, n.cited, h.doc_id, h.split, h.licence, h.language
    HAVING count(*) FILTER (n.place <= n.cited) = n.cited AND (n.cited > 0 OR count(*) > 1)
"""
"""An answer's split is that of its first passage. All that it cites is there, and in that split; a refusal
has at least two passages."""
_ASKED = """
    SELECT DISTINCT tenant, question, doc_id, unnest(chunk_ids) AS chunk_id
    FROM {cited_by_answers} SEMI JOIN (
        SELECT r.tenant, r.question FROM {rated_answers} AS r
        LEFT JOIN {cited_by_answers} AS c ON r.answer_id = c.answer_id
        WHERE r.cited > 0
        GROUP BY r.tenant, r.question
        HAVING bool_and(c.documents IS NOT NULL AND c.documents = 1) AND count(DISTINCT c.doc_id) = 1
    ) USING (tenant, question)
    WHERE cited > 0
"""
"""Questions that passages of one document answer: another that answers too may be no negative."""
_ASKED_BEFORE = """
    SELECT DISTINCT doc_id, question, chunk_ids[1] AS chunk_id FROM {training_examples}
    WHERE kind = 'retrieval_pair' AND query_kind = 'asked'
"""
_ASKED_ANEW = """
    (SELECT doc_id, question, chunk_id FROM {asked_questions} EXCEPT SELECT * FROM {asked_before})
    UNION (SELECT * FROM {asked_before} EXCEPT SELECT doc_id, question, chunk_id FROM {asked_questions})
"""


def rated_answers(lake: Lake, tenants: Sequence[str]) -> pa.Table:
    """Returns the answers of some tenants whose newest rating is good, in `RATED_ANSWER_SCHEMA`.

    Left out are answers to users with groups, whose questions are not everybody's, those in which personal
    data is found, and those with a sentence that none of their quotes supports. Of equal answers to one
    question there is the newest.
    """
    if not tenants:
        return RATED_ANSWER_SCHEMA.empty_table()
    rows = lake.query(
        _GOOD,
        [list(tenants)],
        ratings=lake.delta(ANSWER_RATINGS.name),
        answers=lake.delta(ANSWERS.name),
    )
    texts = [
        NOT_FOUND if refused else _supported(answer or "", cited, quotes)
        for answer, refused, cited, quotes in zip(
            *(rows[name].to_pylist() for name in ("answer", "refused", "cited", "quotes")), strict=True
        )
    ]
    chunks = [
        list(dict.fromkeys([*cited, *retrieved]))
        for cited, retrieved in zip(rows["cited"].to_pylist(), rows["retrieved"].to_pylist(), strict=True)
    ]
    columns = {
        "tenant": rows["tenant"],
        "answer_id": rows["answer_id"],
        "question": rows["question"],
        "positive": pa.array(texts, pa.string()),
        "cited": pa.array([len(set(each)) for each in rows["cited"].to_pylist()], pa.int32()),
        "chunk_ids": pa.array(chunks, pa.list_(pa.string())),
    }
    found = pa.table(columns, RATED_ANSWER_SCHEMA)
    said = (f"{question}\n{text}" for question, text in zip(rows["question"].to_pylist(), texts, strict=True))
    personal = pa.array(count_pii(said) > 0)
    return found.filter(pc.and_(pc.is_valid(found["positive"]), pc.invert(personal)))


def _supported(answer: str, cited: Sequence[str], quotes: Sequence[str]) -> str | None:
    return None if supported_share(answer, quotes) < 1 else cite_by_place(answer, cited, quotes)


def count_good_answers(lake: Lake, tenant: str) -> tuple[int, int]:
    """Returns how many answers of a tenant are rated good, and how many of these users with groups got."""
    [row] = lake.query(
        "select count(*) as good, count(nullif(access_groups, '')) as of_groups from answers "
        f"semi join ({_RATED_GOOD}) using (answer_id) where tenant = ?",
        [tenant],
        ratings=lake.delta(ANSWER_RATINGS.name),
        answers=lake.delta(ANSWERS.name),
    ).to_pylist()
    return row["good"], row["of_groups"]


def cite_by_place(answer: str, cited: Sequence[str], quotes: Sequence[str] = ()) -> str | None:
    """Returns an answer whose markers name passages by their place, where they named citations by theirs.

    Args:
        answer: The answer; [n] is its nth citation.
        cited: The passage of each citation; several may be of one.

    Returns:
        The answer, in which [n] is the nth of the distinct passages; None where it cites nothing, or where a
        number in brackets is no citation or stands in a quote, such as `argv[1]`: which ones are citations is
        not known then.
    """
    places = {passage: place for place, passage in enumerate(dict.fromkeys(cited), 1)}
    named = cited_numbers(answer)
    if not named or not all(0 < number <= len(cited) for number in named):
        return None
    if any(cited_numbers(quote) for quote in quotes):
        return None
    return renumber_citations(answer, {number: places[cited[number - 1]] for number in named})


def define_rated_answers(on: LocalRelations) -> None:
    """Defines what examples are made of rated answers, and what changed of them.

    Defines `answers`, an example each; `asked_questions`, questions with a passage that answers; and
    `asked_anew`, the documents whose questions are no longer those of before.

    Args:
        on: The relations `rated_answers`, `passages`, `near_passages` and `training_examples`.
    """
    on.define("named_by_answers", _NAMED)
    on.define("cited_by_answers", _CITED)
    on.define("answers", _ANSWERS)
    on.define("asked_questions", _ASKED)
    on.define("asked_before", _ASKED_BEFORE)
    on.define("asked_anew", _ASKED_ANEW)
