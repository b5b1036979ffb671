"""Has a teacher score the passages of ranked lists, and order them: who else than the fused ranking?

The candidates of a list stay those of the fused ranking. A teacher reads question and passage together, which
says more than two vectors do: the scorer of answers, or a cross-encoder. A list that the scorer was not made
for, such as one in another language than English, stays as the fused ranking has it, and says so.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from assets.engine.local_relations import LocalRelations
from assets.training_sets.mining import MINED_SCHEMA
from common.progress import Progress
from inference.engines.digest import model_files_digest
from inference.scoring.answer_reader import AnswerReader
from inference.scoring.passage_scores import passage_scores
from retrieval.rerank.reranker import Reranker, RerankerConfig, RerankError
from retrieval.rerank.reranking import build_reranker, passage_shown
from training.datasets.config import ListTeacher

_LONGEST_LIST_S = 120.0
"""How long a reranker may take for one list: nobody waits for an answer here, but a run does not hang."""

_SCORED_AT_ONCE = 8
"""Lists."""

_TAUGHT = """
    SELECT r.draft_no, d.question, any_value(r.scores) AS scores,
           list(p.chunk_id ORDER BY r.place) AS chunk_ids, list(p.doc_id ORDER BY r.place) AS doc_ids,
           list(p.text ORDER BY r.place) AS texts, list(p.title ORDER BY r.place) AS titles,
           list(p.heading ORDER BY r.place) AS headings
    FROM (
        SELECT draft_no, scores, unnest(chunk_ids) AS chunk_id, generate_subscripts(chunk_ids, 1) AS place
        FROM {ranked} WHERE kind = 'ranked_list'
    ) AS r
    JOIN {numbered} AS d ON r.draft_no = d.draft_no JOIN {passages} AS p ON r.chunk_id = p.chunk_id
    GROUP BY r.draft_no, d.question
"""
_MINED = """
    SELECT * FROM {ranked} WHERE kind <> 'ranked_list' UNION ALL SELECT * FROM {taught}
"""


@dataclass(frozen=True)
class TaughtPassage:
    """A passage of a list, as a teacher reads it."""

    text: str
    title: str | None
    heading: str | None


ScoreList = Callable[[str, Sequence[TaughtPassage]], Sequence[float] | None]
"""Takes a question and passages; returns their scores, or None where the teacher was not made for them."""


@dataclass(frozen=True)
class TeacherModels:
    """The models that lists can be taught by.

    Attributes:
        scorer: The weights of the scorer of answers; None for the packaged ones.
        reranker: The reranker of the settings.
    """

    scorer: Path | None
    reranker: RerankerConfig

    def digest(self, teacher: ListTeacher) -> str:
        """Returns what tells a teacher from another, beside the index; empty for the fused ranking.

        Raises:
            RerankError: The reranker is to teach, and none is configured.
        """
        if teacher == "fused":
            return ""
        if teacher == "scorer":
            return f" scorer {AnswerReader(self.scorer).digest}"
        if self.reranker.model:
            folder = self.reranker.model
            return f" reranker {model_files_digest(folder) if folder.is_dir() else folder}"
        if self.reranker.endpoint:
            asked = f"{self.reranker.endpoint} {self.reranker.endpoint_model}"
            return f" reranker {hashlib.sha256(asked.encode()).hexdigest()}"
        raise RerankError(
            "HEADWATER_RECIPE__TRAINING_SETS__TEACHER is `reranker`, and no reranker is configured: set "
            "HEADWATER_RERANKER__MODEL to a CrossEncoder's folder or HEADWATER_RERANKER__ENDPOINT to the URL "
            "of a rerank service, or the teacher to `fused` or `scorer`"
        )

    def load(self, teacher: ListTeacher) -> ScoreList | None:
        """Loads a teacher's model; returns None for the fused ranking, which needs none.

        Raises:
            BadAnswerScorer: The weights of the scorer can not be loaded.
            RerankError: The reranker can not be used.
        """
        if teacher == "fused":
            return None
        if teacher == "scorer":
            return partial(_by_scorer, AnswerReader(self.scorer))
        return partial(_by_reranker, build_reranker(self.reranker))


def _by_scorer(
    reader: AnswerReader, question: str, passages: Sequence[TaughtPassage]
) -> Sequence[float] | None:
    texts, titles = [each.text for each in passages], [each.title for each in passages]
    return passage_scores(reader, question, texts, titles)


def _by_reranker(reranker: Reranker, question: str, passages: Sequence[TaughtPassage]) -> Sequence[float]:
    shown = [passage_shown(each.title, each.heading, each.text) for each in passages]
    try:
        scores = reranker.scores(question, shown, time.monotonic() + _LONGEST_LIST_S)
    except TimeoutError as error:
        raise RerankError(
            f"{reranker.name} did not score the {len(shown)} passages of a ranked list in "
            f"{_LONGEST_LIST_S:g} s: set HEADWATER_RECIPE__TRAINING_SETS__TEACHER to another teacher, or "
            "HEADWATER_RECIPE__TRAINING_SETS__CANDIDATES to fewer"
        ) from error
    if len(scores) != len(shown) or not all(map(math.isfinite, scores)):
        raise RerankError(f"{reranker.name} did not give each passage a finite score")
    return scores


def define_taught_lists(on: LocalRelations, teacher: ListTeacher, score: ScoreList | None) -> None:
    """Defines `mined`: what `ranked` holds, with the lists as a teacher scores and orders them.

    Args:
        on: The relations `ranked` (in `MINED_SCHEMA`), `numbered` and `passages`.
        teacher: What the lists are said to be taught by.
        score: From `TeacherModels.load`; without one the lists stay as they are.
    """
    if score is None:
        on.add("mined", on.arrow("ranked"))
        return
    on.map_batches(
        "taught",
        _TAUGHT,
        partial(_taught, teacher, score),
        MINED_SCHEMA,
        Progress("ranked lists scored by the teacher"),
        spread=True,
    )
    on.define("mined", _MINED)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yields parts that take about a second to score, so that progress is seen."""
    for first in range(0, batch.num_rows, _SCORED_AT_ONCE):
        yield batch.slice(first, _SCORED_AT_ONCE)


def _taught(
    teacher: ListTeacher, score: ScoreList, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for batch in (some for each in batches for some in _pieces(each)):
        rows = []
        for row in batch.to_pylist():
            columns = zip(row["texts"], row["titles"], row["headings"], strict=True)
            given = score(row["question"], [TaughtPassage(*each) for each in columns])
            scores = row["scores"] if given is None else [round(float(each), 6) for each in given]
            order = sorted(range(len(scores)), key=lambda place: -scores[place])
            rows.append(
                {
                    "draft_no": row["draft_no"],
                    "kind": "ranked_list",
                    "left_out": None,
                    "chunk_ids": [row["chunk_ids"][place] for place in order],
                    "doc_ids": [row["doc_ids"][place] for place in order],
                    "scores": [scores[place] for place in order],
                    "teacher": "fused" if given is None else teacher,
                }
            )
        yield pa.RecordBatch.from_pylist(rows, MINED_SCHEMA)
