"""A lake with documents, a training set of them and models that learned from it, without an index."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from lake_rows import write
from tiny_embedders import make_tiny_embedder

from assets.columns import Table
from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, DOCUMENTS, RAW_DOCUMENTS
from common.ids import doc_id
from orchestration.settings import Settings, open_configured_lake
from retrieval.chunking.chunker import make_chunk_id
from training.datasets.training_set import EXAMPLE_SCHEMA, DatasetHeader, write_dataset
from training.registry.learned_texts import LearnedTexts
from training.registry.lineage import ModelLineage
from training.registry.model_card import model_card
from training.registry.versions import ModelRegistry, ModelVersion

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TrainedLake:
    """The settings of a state folder, its documents' ids by name, and its training set."""

    settings: Settings
    lake: Lake
    doc_ids: dict[str, str]
    dataset: DatasetHeader

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(self.settings.models_folder)

    def remove(self, name: str) -> None:
        """Takes a document's text out of the lake, as a run does that finds its file deleted."""
        self.lake.delta(DOCUMENTS.name).delete(f"doc_id = '{self.doc_ids[name]}'")

    def add_model(
        self, folder: Path, learned: Sequence[str], base: ModelVersion | None = None, **changed: Any
    ) -> ModelVersion:
        """Adds a version of the embedder that learned from documents, by their names."""
        seed = len(self.registry.versions("embedder"))
        made = make_tiny_embedder(folder / f"base{seed}", seed)
        lineage = ModelLineage(
            dataset=self.dataset.address,
            dataset_digest=self.dataset.digest,
            base=base.address if base else "all-MiniLM-L6-v2",
            base_digest=base.digest if base else "cd" * 32,
            code_version="1",
            run_id=f"embedder-{seed}",
            settings={"seed": seed},
            tenant="acme",
        ).model_copy(update=changed)

        def copy(target: Path) -> None:
            shutil.copytree(made, target, dirs_exist_ok=True)

        ids = [self.doc_ids[name] for name in learned]
        return self.registry.add("embedder", lineage, {}, 1.0, copy, model_card, LearnedTexts(ids))


def make_trained_lake(home: Path, names: Sequence[str], tenant: str = "acme") -> TrainedLake:
    """Makes a lake of a document per name, and a training set of one question about each; or adds to one."""
    settings = Settings(home=home)
    lake = open_configured_lake(settings)
    raw, documents, chunks = [], [], []
    for name in names:
        text, uri = _text(name), f"file:///{name}.txt"
        found, body = doc_id(tenant, "docs", uri), text.encode()
        shared = {"doc_id": found, "tenant": tenant, "source": "docs", "uri": uri}
        shared["content_sha256"] = _sha256(text)
        raw.append(
            shared | {"body": body, "size_bytes": len(body), "media_type": "text/plain", "revision": 1}
        )
        documents.append(shared | {"text": text, "title": name, "text_sha256": _sha256(text)})
        chunks.append(
            {
                **{
                    "chunk_id": _chunk_id(tenant, name),
                    "doc_id": found,
                    "tenant": tenant,
                    "text": text,
                    "ordinal": 0,
                },
                **{"char_start": 0, "char_end": len(text), "text_sha256": _sha256(text), "token_count": 7},
            }
        )
    for table, rows in ((RAW_DOCUMENTS, raw), (DOCUMENTS, documents), (CHUNKS, chunks)):
        write(lake, table, [filled_row(table, row) for row in rows])
    ids = {name: doc_id(tenant, "docs", f"file:///{name}.txt") for name in names}
    return TrainedLake(settings, lake, ids, write_snapshot(settings, lake, names, tenant))


def write_snapshot(
    settings: Settings, lake: Lake, names: Sequence[str], tenant: str = "acme"
) -> DatasetHeader:
    """Writes a training set of a question about each document, the next as a negative, and of its text."""
    examples = []
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        examples.append(
            {
                **{"example_id": f"about {name}", "kind": "retrieval_pair", "query_kind": "title"},
                **{"question": f"What is known about {name}?", "positive": _text(name)},
                **{"negatives": [_text(other)], "candidates": [], "scores": [0.9, 0.1]},
                "chunk_ids": [_chunk_id(tenant, name), _chunk_id(tenant, other)],
                "doc_ids": [doc_id(tenant, "docs", f"file:///{each}.txt") for each in (name, other)],
            }
        )
        examples.append(
            {
                **{"example_id": f"written of {name}", "kind": "domain_text", "positive": _text(name)},
                **{"negatives": [], "candidates": [], "scores": [], "chunk_ids": [_chunk_id(tenant, name)]},
                "doc_ids": [doc_id(tenant, "docs", f"file:///{name}.txt")],
            }
        )
    nothing = EXAMPLE_SCHEMA.empty_table()
    described = DatasetHeader(
        name=tenant,
        digest="",
        tenant=tenant,
        recipe={},
        versions={"gold.chunks": lake.version(CHUNKS.name)},
        code_version="1",
        run_id="run",
        made_at=datetime.now(UTC),
        files={},
        splits={"train": 2 * len(names), "validation": 0, "test": 0},
        kinds={"retrieval_pair": len(names), "domain_text": len(names)},
        query_kinds={"title": len(names)},
        licences={"unknown": 2 * len(names)},
        languages=["en"],
        documents=len(names),
    )
    train = pa.Table.from_pylist(examples, EXAMPLE_SCHEMA)
    return write_dataset(
        settings.datasets_folder, described, {"train": train, "validation": nothing, "test": nothing}
    )


def _text(name: str) -> str:
    return f"All that is known about {name}."


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _chunk_id(tenant: str, name: str) -> str:
    return make_chunk_id(doc_id(tenant, "docs", f"file:///{name}.txt"), _sha256(_text(name)), 0)


def filled_row(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with something in every column that must not be NULL."""
    filled = dict(row)
    for field in table.schema:
        if field.nullable or field.name in filled:
            continue
        filled[field.name] = _nothing(field.type)
    return filled


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        return NOW
    if pa.types.is_list(kind):
        return []
    if pa.types.is_boolean(kind):
        return False
    return "" if pa.types.is_string(kind) else 0
