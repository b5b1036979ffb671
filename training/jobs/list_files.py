"""What a worker is given to train an embedder: the lists as Parquet, and the base's files."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.embedding.model_folder import ModelFolder
from training.jobs.ranked_lists import RankedLists

BASE = "base"
_PASSAGES = "passages.parquet"
_PARTS = ("train.parquet", "validation.parquet")
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("candidates", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("relevant", pa.list_(pa.bool_())),
        ("judged", pa.bool_()),
    ]
)


def give_lists(folder: Path, base: ModelFolder, lists: RankedLists, validation: RankedLists) -> None:
    """Writes what a worker needs into a folder.

    Args:
        folder: The folder.
        base: What is trained.
        lists: What is learned.
        validation: What it is validated on, over the same passages.
    """
    for name in base.files:
        (folder / BASE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base.path / name, folder / BASE / name)
    pq.write_table(pa.table({"text": lists.passages}), folder / _PASSAGES)
    for name, part in zip(_PARTS, (lists, validation), strict=True):
        columns = {
            "id": part.ids,
            "question": part.questions,
            "candidates": list(part.candidates),
            "scores": list(part.scores),
            "relevant": list(part.relevant),
            "judged": part.judged,
        }
        pq.write_table(pa.table(columns, _SCHEMA), folder / name)


def read_given_lists(folder: Path) -> tuple[RankedLists, RankedLists]:
    """Returns what is learned and what it is validated on, and removes their files: texts are not kept."""
    passages = pq.read_table(folder / _PASSAGES)["text"].to_pylist()
    train, validation = (_lists(pq.read_table(folder / name), passages) for name in _PARTS)
    for name in (_PASSAGES, *_PARTS):
        (folder / name).unlink()
    return train, validation


def _lists(rows: pa.Table, passages: list[str]) -> RankedLists:
    def matrix(name: str, kind: type) -> np.ndarray:
        return np.array(rows[name].to_pylist(), dtype=kind)

    return RankedLists(
        rows["id"].to_pylist(),
        rows["question"].to_pylist(),
        matrix("candidates", np.int32),
        matrix("scores", np.float32),
        matrix("relevant", np.bool_),
        passages,
        matrix("judged", np.bool_),
        [],
    )
