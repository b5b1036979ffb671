"""What a version learned from, in files that are signed with the version's others.

They stay with the model when its training set is removed, so that a document that is removed later is still
found in every model that learned from it, and no model is judged by a question that it learned. All of them
are hashes; the files hold nothing of the texts.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.alike import Fingerprints, fingerprints, text_digest

_DOCUMENTS = "learned_documents.parquet"
_QUESTIONS = "learned_questions.parquet"
_PASSAGES = "learned_passages.parquet"
_DOCUMENT_SCHEMA = pa.schema([pa.field("doc_id", pa.string(), nullable=False)])
_PASSAGE_SCHEMA = pa.schema([pa.field("digest", pa.binary(32), nullable=False)])
_COMMON = b"common"


@dataclass(frozen=True)
class LearnedTexts:
    """What a model learned from, and what its steps were chosen by.

    Attributes:
        documents: The ids of the lake's documents.
        questions: Questions, or prompts where nothing says which question they ask.
        passages: Texts of documents that are not the lake's.
    """

    documents: Collection[str] = ()
    questions: Collection[str] = ()
    passages: Collection[str] = ()


def write_learned_texts(model: Path, learned: LearnedTexts) -> None:
    """Writes hashes of what a model learned from into its folder."""
    write_fingerprints(model / _QUESTIONS, fingerprints(learned.questions))
    if learned.documents:
        rows = pa.table({"doc_id": sorted(set(learned.documents))}, _DOCUMENT_SCHEMA)
        pq.write_table(rows, model / _DOCUMENTS, compression="zstd")
    if learned.passages:
        digests = sorted({text_digest(each) for each in learned.passages})
        pq.write_table(pa.table({"digest": digests}, _PASSAGE_SCHEMA), model / _PASSAGES, compression="zstd")


def write_fingerprints(file: Path, of_questions: Fingerprints) -> None:
    """Writes fingerprints of questions into a file of their own."""
    columns = {
        "digest": [each.tobytes() for each in of_questions.digests],
        "signature": [each.tobytes() for each in of_questions.signatures],
    }
    schema = pa.schema(
        [(name, pa.binary(32 if name == "digest" else of_questions.signatures.shape[1])) for name in columns],
        {_COMMON: of_questions.common.astype("<u4").tobytes()},
    )
    pq.write_table(pa.table(columns, schema), file, compression="zstd")


def scorer_questions_file(weights: Path) -> Path:
    """Returns where the training of an answer scorer keeps which questions it learned from."""
    return weights.with_suffix(".learned_questions.parquet")


def read_learned_documents(model: Path) -> set[str]:
    """Returns the ids of the documents that a model learned from; none for one that learned from a folder."""
    file = model / _DOCUMENTS
    return (
        set(pq.read_table(file, schema=_DOCUMENT_SCHEMA)["doc_id"].to_pylist()) if file.is_file() else set()
    )


def read_learned_questions(model: Path) -> Fingerprints | None:
    """Returns the questions that a model learned from; None for one that was made before they were kept."""
    return read_fingerprints(model / _QUESTIONS)


def read_fingerprints(file: Path) -> Fingerprints | None:
    """Returns the fingerprints of questions in a file; None where it is not there."""
    if not file.is_file():
        return None
    rows = pq.read_table(file)
    digests, signatures = (
        np.frombuffer(b"".join(rows[name].to_pylist()), np.uint8).reshape(
            -1, rows.schema.field(name).type.byte_width
        )
        for name in ("digest", "signature")
    )
    return Fingerprints(digests, signatures, np.frombuffer(rows.schema.metadata[_COMMON], "<u4"))


def read_learned_passages(model: Path) -> set[bytes]:
    """Returns the digests of the texts that a model learned from outside the lake."""
    file = model / _PASSAGES
    return set(pq.read_table(file, schema=_PASSAGE_SCHEMA)["digest"].to_pylist()) if file.is_file() else set()
