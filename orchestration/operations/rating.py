"""Rates the answers of a batch by a file of known answers."""

from collections import Counter
from pathlib import Path

from assets.answers.batches import AnswerBatches
from assets.answers.ratings import BatchRating, rate_batch
from assets.lake.tables import DOCUMENTS, DUPLICATES
from assets.release_evaluation import canonical_candidate_documents
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.answer_collection import BadAnswerCollection, load_answer_collection


def rate_batch_by_file(settings: Settings, batch: str, tenant: str, file: Path) -> BatchRating:
    """Rates the newest answers of a batch to a tenant by the known answers of a file; see `rate_batch`.

    Args:
        settings: The settings of the state folder.
        batch: The name of the batch.
        tenant: The tenant.
        file: JSON lines with `question` and `exact_answer`, and optionally `uri`, or `"answerable": false`.

    Raises:
        InvalidQuestionSet: There is no batch of this name.
        BadAnswerCollection: The file is missing, or a line of it is no such question or one of before.
        WriteConflict: Other processes wrote ratings all the time; nothing was written.
    """
    AnswerBatches(settings.batches_dir).questions(batch)  # whether there is one
    if not file.is_file():
        raise BadAnswerCollection(
            f"{file} is no file of known answers: write one in each line, such as "
            '{"question": "…", "exact_answer": "…", "uri": "…"}'
        )
    known = load_answer_collection(file).questions
    texts = Counter(question.text for question in known)
    if twice := next((text for text, count in texts.items() if count > 1), None):
        raise BadAnswerCollection(f"{file} has more than one known answer to {twice!r}: leave one of them")
    lake = open_configured_lake(settings)
    versions = {each.name: lake.version(each.name) for each in (DOCUMENTS, DUPLICATES)}
    canonical = canonical_candidate_documents(lake, versions).get(tenant, {})
    return rate_batch(lake, batch, tenant, known, canonical)
