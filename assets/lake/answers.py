"""The answers that were given, as rows of `gold.answers`."""

from dataclasses import asdict

import pyarrow as pa

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import ANSWERS
from inference.answering.query_service import AnswerRecord
from retrieval.access import encode_access_groups
from retrieval.lineage import Lineage


def append_answer(lake: Lake, record: AnswerRecord) -> None:
    """Appends an answer to `gold.answers`, with what it was chosen from and the versions behind that."""
    answer = record.answer
    row = {
        "answer_id": answer.answer_id,
        "tenant": record.tenant,
        "question": record.question,
        "answer": answer.answer,
        "refused": answer.refused,
        "engine": answer.engine,
        "citations": [asdict(citation) for citation in answer.citations],
        "release_id": answer.release,
        "model_digest": answer.model_digest,
        "retrieved": list(record.retrieved),
        "access_groups": encode_access_groups(record.groups),
        "answered_at": record.answered_at,
    }
    lineage = Lineage(
        run_id=answer.answer_id,
        asset="gold/answers",
        code_version=CODE_VERSION,
        config_digest="",
        inputs=record.versions,
    )
    lake.append(ANSWERS, pa.Table.from_pylist([row], ANSWERS.schema), lineage)
