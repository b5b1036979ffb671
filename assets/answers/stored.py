"""Reads stored answers: one by its id, the newest, or those of a batch."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, model_validator

from assets.lake.lake import Lake
from assets.lake.tables import ANSWERS
from common.atomic_files import atomic_file
from inference.answering.answer import Citation
from inference.prompting.types import Outcome


class UnknownStoredAnswer(LookupError):
    """No answer has that id."""


class StoredAnswer(BaseModel, frozen=True):
    """A row of `gold.answers`; its columns are described there.

    The outcome of an old row, which has none, is what its `refused` says.
    """

    answer_id: str
    tenant: str
    question: str
    answer: str | None
    refused: bool
    outcome: Outcome
    engine: str
    citations: list[Citation] | None
    release_id: str
    model_digest: str
    retrieved: list[str] | None
    access_groups: str | None
    search_mode: str | None
    retrieval_digest: str | None
    answered_at: datetime
    generator_digest: str | None
    chosen_because: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    passages_left_out: int | None
    generator_adapter: str | None
    batch: str | None
    question_id: str | None

    @model_validator(mode="before")
    @classmethod
    def _old_outcome(cls, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"outcome": row.get("outcome") or ("refused" if row["refused"] else "answered")}

    @property
    def groups(self) -> list[str]:
        """The groups of the user who asked."""
        return self.access_groups.split(",") if self.access_groups else []


def find_stored_answer(lake: Lake, answer_id: str) -> StoredAnswer:
    """Returns an answer by its id, or by the beginning of it that no other has.

    Raises:
        UnknownStoredAnswer: When there is none, or more than one.
    """
    rows = lake.query(
        "select * from answers where starts_with(answer_id, ?) order by answer_id <> ? limit 2",
        [answer_id, answer_id],
        answers=lake.delta(ANSWERS.name),
    ).to_pylist()
    if len(rows) > 1 and rows[0]["answer_id"] != answer_id:
        raise UnknownStoredAnswer(f"more than one answer's id begins with {answer_id!r}: give more of it")
    if not rows or not answer_id:
        raise UnknownStoredAnswer(f"there is no answer {answer_id!r}: `headwater answers list` lists them")
    return StoredAnswer.model_validate(rows[0])


def recent_stored_answers(
    lake: Lake, limit: int, tenant: str | None, batch: str | None = None
) -> list[StoredAnswer]:
    """Returns the newest answers of one tenant or of all tenants, of one batch or of all, newest first."""
    rows = lake.query(
        "select * from answers where ($tenant is null or tenant = $tenant) "
        "and ($batch is null or batch = $batch) order by answered_at desc limit $limit",
        {"tenant": tenant, "batch": batch, "limit": limit},
        answers=lake.delta(ANSWERS.name),
    ).to_pylist()
    return [StoredAnswer.model_validate(row) for row in rows]


def stored_batch(lake: Lake, batch: str) -> pa.Table:
    """Returns the rows of `gold.answers` that a batch has: the newest for each question, by question id."""
    return lake.query(
        "select * from answers where batch = ? "
        "qualify row_number() over (partition by question_id order by answered_at desc) = 1 "
        "order by question_id",
        [batch],
        answers=lake.delta(ANSWERS.name),
    )


def export_stored_batch(lake: Lake, batch: str, file: Path, parquet: bool) -> int:
    """Writes `stored_batch` to a file, as Parquet or as JSON lines.

    Returns:
        The number of answers.
    """
    rows = stored_batch(lake, batch)
    with atomic_file(file) as fresh:
        if parquet:
            pq.write_table(rows, fresh)
        else:
            with fresh.open("w", encoding="utf-8") as lines:
                for each in rows.to_batches():
                    lines.writelines(
                        StoredAnswer.model_validate(row).model_dump_json() + "\n" for row in each.to_pylist()
                    )
    return rows.num_rows


def stored_batch_ids(lake: Lake, batch: str) -> set[str]:
    """Returns the ids of all answers that a batch has ever got."""
    rows = lake.query(
        "select answer_id from answers where batch = ?", [batch], answers=lake.delta(ANSWERS.name)
    )
    return set(rows["answer_id"].to_pylist())
