"""Checks a batch of answers: do its citations hold, and how do its figures compare with those before?"""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from assets.lake.lake import Lake, VersionNotKept
from assets.lake.tables import ANSWERS, DOCUMENTS
from common.citation_markers import strip_citation_markers
from quality.evaluation.answer_metrics import supported_share


class AnswerLimits(BaseModel):
    """The limits of a batch of answers. What goes beyond them is a warning unless `blocking` is set."""

    max_refused: float = Field(default=1.0, ge=0, le=1)
    """The largest share of questions that may be refused."""
    max_refused_change: float = Field(default=0.2, ge=0, le=1)
    """The most by which that share, and the share that was cut off or withheld, may differ from the batch's
    answers by the release or engine before."""
    max_length_change: float = Field(default=0.5, ge=0)
    """The most by which the mean words of an answer may differ from theirs, as a share."""
    max_supported_fall: float = Field(default=0.1, ge=0, le=1)
    """The most by which the share of sentences that a quote supports may be below theirs."""
    blocking: bool = False
    """Whether a batch beyond the limits fails its run."""


_OUTCOME = "coalesce(outcome, case when refused then 'refused' else 'answered' end)"
"""SQL for the outcome of an answer, of an old one too."""


@dataclass(frozen=True)
class CitationCheck:
    """How many citations there are, how many of them do not hold, and of how many nobody can tell.

    Attributes:
        citations: The number of citations.
        broken: Citations whose document is not in the lake, or does not have the quote at its position.
        uncited: Answers without a citation. Refusals, and what was cut off or withheld, are none.
        unverifiable: Citations whose version of the documents is no longer kept: neither broken nor verified.
    """

    citations: int
    broken: int
    uncited: int
    unverifiable: int


def check_citations(lake: Lake, answers: pa.Table) -> CitationCheck:
    """Compares each citation of answers with the text of its document, at the version that it names.

    Args:
        lake: The lake.
        answers: Rows of `gold.answers`.
    """
    cited = lake.query("select unnest(citations, recursive := true) from answers", answers=answers)
    versions = lake.query("select table_version as v, count(*) as n from cited group by all", cited=cited)
    broken = unverifiable = 0
    for version, citations in zip(versions["v"].to_pylist(), versions["n"].to_pylist(), strict=True):
        try:
            documents = lake.kept(DOCUMENTS.name, version)
        except VersionNotKept:
            unverifiable += citations
            continue
        except KeyError:  # there never was such a version
            broken += citations
            continue
        found = lake.query(
            """
            select count(*) as n from cited left join documents using (doc_id)
            where table_version = ? and
                  substr(text, char_start + 1, char_end - char_start) is distinct from quote
            """,
            [version],
            cited=cited,
            documents=documents,
        )
        broken += found["n"][0].as_py()
    uncited = lake.query(
        f"select count(*) as n from answers "
        f"where {_OUTCOME} = 'answered' and coalesce(len(citations), 0) = 0",
        answers=answers,
    )
    return CitationCheck(cited.num_rows, broken, uncited["n"][0].as_py(), unverifiable)


@dataclass(frozen=True)
class AnswerFigures:
    """Figures of the answers that a batch got from one release by one engine and one way of retrieval.

    Attributes:
        answers: How many.
        refused: The share that was refused.
        mean_words: The mean number of words of answers, without markers; NaN if there are none.
        supported: The mean share of their sentences that a cited quote supports; NaN likewise.
        unfinished: The share that was cut off at the length limit or withheld by a filter.
    """

    answers: int
    refused: float
    mean_words: float
    supported: float
    unfinished: float


def answer_figures(lake: Lake, batch: str) -> list[AnswerFigures]:
    """Returns the figures of a batch's newest answers, and of those by the release or engine before them."""
    rows = lake.query(
        f"""
        with by_engine as (
            select release_id, generator_digest, retrieval_digest, max(answered_at) as newest
            from answers where batch = $batch group by all order by newest desc limit 2
        )
        select newest, answer, {_OUTCOME} as outcome, [each.quote for each in citations] as quotes
        from answers join by_engine
            on answers.release_id = by_engine.release_id
            and answers.generator_digest is not distinct from by_engine.generator_digest
            and answers.retrieval_digest is not distinct from by_engine.retrieval_digest
        where batch = $batch order by newest desc
        """,
        {"batch": batch},
        answers=lake.delta(ANSWERS.name),
    ).to_pylist()
    return [_figures(list(of_engine)) for _, of_engine in groupby(rows, key=itemgetter("newest"))]


def _figures(rows: list[dict[str, Any]]) -> AnswerFigures:
    answered = [(row["answer"] or "", row["quotes"] or []) for row in rows if row["quotes"]]
    outcomes = Counter(row["outcome"] for row in rows)
    words = np.array([len(strip_citation_markers(text).split()) for text, _ in answered], dtype=np.float64)
    supported = np.array([supported_share(text, quotes) for text, quotes in answered])
    return AnswerFigures(
        answers=len(rows),
        refused=outcomes["refused"] / len(rows),
        unfinished=(outcomes["truncated"] + outcomes["filtered"]) / len(rows),
        mean_words=float(words.mean()) if len(words) else math.nan,
        supported=float(np.nanmean(supported)) if np.isfinite(supported).any() else math.nan,
    )


def beyond_limits(figures: list[AnswerFigures], limits: AnswerLimits) -> list[str]:
    """Returns in which ways the newest figures are beyond the limits, a sentence each."""
    if not figures:
        return []
    now, *earlier = figures
    said = []
    if now.refused > limits.max_refused:
        said.append(f"{now.refused:.0%} of the questions were refused, the most is {limits.max_refused:.0%}")
    for before in earlier:
        if abs(now.refused - before.refused) > limits.max_refused_change:
            said.append(f"{now.refused:.0%} of the questions were refused, {before.refused:.0%} before")
        if abs(now.unfinished - before.unfinished) > limits.max_refused_change:
            said.append(
                f"{now.unfinished:.0%} of replies were cut off or withheld, {before.unfinished:.0%} before"
            )
        # What is not a number differs from nothing.
        if abs(now.mean_words - before.mean_words) > limits.max_length_change * before.mean_words:
            said.append(
                f"an answer has {now.mean_words:.0f} words on average, before {before.mean_words:.0f}"
            )
        if now.supported < before.supported - limits.max_supported_fall:
            said.append(
                f"quotes support {now.supported:.0%} of the answers' sentences, before {before.supported:.0%}"
            )
    return said
