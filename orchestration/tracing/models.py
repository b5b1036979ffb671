"""Walks through models: to what a version learned from, down to bytes, and on to what it was used for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from assets.training_sets.learned import learned_version
from orchestration.tracing.backward import BackwardWalk
from orchestration.tracing.nodes import TraceNode
from orchestration.tracing.reader import TraceReader
from retrieval.embedding.config import EmbedderConfig, recorded_model_path
from retrieval.embedding.quantization import int8_model_digest
from retrieval.index.types import IndexRelease
from training.datasets.training_set import (
    EMBEDDER_KINDS,
    EXAMPLE_KINDS,
    GENERATOR_KINDS,
    DatasetHeader,
    ExampleKind,
    dataset_headers,
    removed_documents,
    snapshot_folder,
)
from training.registry.live_adapters import GENERATOR, generator_name, is_generator
from training.registry.versions import ModelRegistry, ModelVersion, UnknownModel

_SHOWN_EXAMPLES = 3
_SHOWN_DOCUMENTS = 5
_SHOWN_ANSWERS = 5
_SHOWN_CHUNKS = 2


@dataclass(frozen=True)
class TrainedFrom:
    """Where training sets and models are.

    Attributes:
        datasets: The folder of training sets.
        registry: The versions of models.
        releases: Returns the releases of the index that are kept.
    """

    datasets: Path
    registry: ModelRegistry
    releases: Callable[[], Sequence[IndexRelease]]


class ModelWalk:
    """Builds the trace nodes of models and training sets.

    What there can be thousands of (examples, documents, answers) is counted, and a few are shown.

    Args:
        reader: The reader of rows and commits.
        backward: Walks on from a chunk to its bytes.
        trained: Where training sets and models are.
    """

    def __init__(self, reader: TraceReader, backward: BackwardWalk, trained: TrainedFrom) -> None:
        self._reader, self._backward, self._trained = reader, backward, trained

    def find(self, identity: str) -> ModelVersion | None:
        """Returns the version that NAME@VERSION, NAME@live or a whole digest means; None if none does."""
        if "@" not in identity and len(identity) != 64:
            return None
        try:
            return self._trained.registry.find(identity)
        except UnknownModel:
            return None

    def find_dataset(self, identity: str) -> DatasetHeader | None:
        """Returns the training set of an address or a digest; None if there is none."""
        headers = dataset_headers(self._trained.datasets)
        return next((each for each in headers if identity in (each.address, each.digest)), None)

    def addresses(self) -> list[str]:
        """Returns the addresses of all versions of models, then of all training sets, newest first."""
        registry = self._trained.registry
        versions = [version.address for name in registry.names() for version in registry.versions(name)]
        return versions + [header.address for header in dataset_headers(self._trained.datasets)]

    def digests_beginning(self, beginning: str) -> list[str]:
        """Returns the digests of versions and training sets that begin so."""
        registry = self._trained.registry
        found = {version.digest for name in registry.names() for version in registry.versions(name)}
        found |= {header.digest for header in dataset_headers(self._trained.datasets)}
        return sorted(digest for digest in found if digest.startswith(beginning))

    def from_model(self, version: ModelVersion) -> list[TraceNode]:
        """Returns the nodes of what a version was made from: its base, its training set, its documents."""
        lineage = version.lineage
        base = self._trained.registry.base_of(version)
        if base is None:
            base_node = TraceNode("base", lineage.base, {"digest": lineage.base_digest})
        else:
            base_node = self.model_node(base)
            base_node.children = self.from_model(base)
        return [base_node, *self._learned_nodes(version), self._documents_node(version)]

    def from_dataset(
        self, header: DatasetHeader, kinds: Sequence[ExampleKind] = EXAMPLE_KINDS
    ) -> list[TraceNode]:
        """Returns the nodes of a few of a training set's examples, down to the bytes of their documents."""
        file = snapshot_folder(self._trained.datasets, header) / "train.parquet"
        if not file.is_file():
            return []
        columns = ["example_id", "kind", "query_kind", "question", "chunk_ids", "doc_ids"]
        some = self._reader.lake.query(
            "select * from t where list_contains(?, kind) order by example_id limit ?",
            [list(kinds), _SHOWN_EXAMPLES],
            t=pq.read_table(file, columns=columns),
        )
        return [self._example_node(row) for row in some.to_pylist()]

    def made_from_dataset(self, header: DatasetHeader) -> list[TraceNode]:
        """Returns the nodes of the versions that learned from a training set."""
        registry = self._trained.registry
        every = (each for name in registry.names() for each in registry.versions(name))
        return [
            self.model_node(each)
            for each in every
            if header.digest in {learned.digest for learned in each.lineage.training_sets}
        ]

    def made_with_model(self, version: ModelVersion) -> list[TraceNode]:
        """Returns the nodes of the releases that a version served, and of the answers that are its work."""
        if is_generator(version.name):
            return self._answers_nodes(version, "generator_adapter = ?", version.digest)
        digests = self._vector_digests(version)
        released = self._reader.rows(
            "ops.releases", "decision = 'released' and list_contains(?, model_digest)", digests
        )
        newest = sorted(released, key=lambda row: row["decided_at"], reverse=True)
        nodes = [
            TraceNode(
                "release",
                row["release_id"],
                {key: row[key] for key in ("generation", "epoch")}
                | {"released_at": row["decided_at"].isoformat()},
            )
            for row in newest
        ]
        return nodes + self._answers_nodes(version, "list_contains(?, model_digest)", digests)

    def of_answer(self, answer: dict[str, Any]) -> list[TraceNode]:
        """Returns the nodes of the embedder that found an answer's passages, and of the engine that wrote it.

        Below the engine is the adapter that it wrote with, if the answer's tenant had one.

        Args:
            answer: A row of `gold.answers`.
        """
        digest = answer["model_digest"]
        version, config = self._embedder_of(digest)
        if version is not None:
            embedder = self.model_node(version)
            embedder.details |= {"role": "embedder"}
            embedder.children = self.from_model(version)
        else:
            named = str(config.endpoint.model or config.model) if config else None
            embedder = TraceNode("embedder", digest, {"name": named})
        return [embedder, self._engine_node(answer)]

    def model_node(self, version: ModelVersion) -> TraceNode:
        """Returns a node for a version of a model."""
        aliases = self._trained.registry.aliases_of(version)
        return TraceNode(
            "model",
            version.address,
            {
                "digest": version.digest,
                "aliases": ", ".join(aliases),
                "dataset": version.lineage.dataset,
                "tenant": ", ".join(version.lineage.tenants) or None,
                "made_at": version.made_at.isoformat(timespec="seconds"),
                "run_id": version.lineage.run_id,
                "code_version": version.lineage.code_version,
            },
        )

    def _learned_nodes(self, version: ModelVersion) -> list[TraceNode]:
        lineage, of_generator = version.lineage, is_generator(version.name)
        if not lineage.training_sets:
            details = {"digest": lineage.dataset_digest}
            is_file = of_generator and not Path(lineage.dataset).is_dir()
            return [TraceNode("file" if is_file else "folder", lineage.dataset, details)]
        nodes = []
        for learned in lineage.training_sets:
            header = self.find_dataset(learned.digest)
            if header is None:
                gone = {"digest": learned.digest, "tenant": learned.tenant, "is_kept": False}
                nodes.append(TraceNode("training_set", learned.address, gone))
            else:
                kinds = GENERATOR_KINDS if of_generator else EMBEDDER_KINDS
                nodes.append(self._dataset_node(header, kinds))
        return nodes

    def _dataset_node(self, header: DatasetHeader, kinds: Sequence[ExampleKind]) -> TraceNode:
        """Returns a node for a training set, with a few of its examples of some kinds."""
        details: dict[str, Any] = {
            "digest": header.digest,
            "tenant": header.tenant,
            "made_at": header.made_at.isoformat(timespec="seconds"),
            "is_kept": True,
            **{str(split): count for split, count in header.splits.items()},
            "documents": header.documents,
            "holds_removed_documents": bool(removed_documents(self._trained.datasets, header)),
            "versions": header.versions,
        }
        return TraceNode("training_set", header.address, details, self.from_dataset(header, kinds))

    def _documents_node(self, version: ModelVersion) -> TraceNode:
        learned = learned_version(self._reader.lake, self._trained.registry, version)
        ids = self._trained.registry.learned_documents(version)
        shown = [*learned.removed, *sorted(ids.difference(learned.removed))][:_SHOWN_DOCUMENTS]
        rows = self._reader.lake.query(
            "select doc_id, arg_max(uri, revision) as uri from t where list_contains(?, doc_id) group by 1",
            [shown],
            t=self._reader.lake.delta("bronze.raw_documents"),
        ).to_pylist()
        uris = {row["doc_id"]: row["uri"] for row in rows}
        removed = set(learned.removed)
        children = [
            TraceNode("document", doc_id, {"uri": uris.get(doc_id), "removed": doc_id in removed})
            for doc_id in shown
        ]
        details = {"documents": learned.documents, "removed": len(removed), "shown": len(children)}
        return TraceNode("learned_documents", version.address, details, children)

    def _example_node(self, row: dict[str, Any]) -> TraceNode:
        chunk_ids = row["chunk_ids"]
        chunks = self._reader.rows("gold.chunks", "list_contains(?, chunk_id)", chunk_ids)
        there = {chunk["chunk_id"]: chunk for chunk in chunks}
        shown = [there[each] for each in chunk_ids if each in there][:_SHOWN_CHUNKS]
        details = {
            "split": "train",
            "example_kind": row["kind"],
            "query_kind": row["query_kind"],
            "question": row["question"],
            "chunks": len(chunk_ids),
            "chunks_gone": len(chunk_ids) - len(there),
        }
        nodes = [self._backward.chunk_node(chunk) for chunk in shown]
        return TraceNode("training_example", row["example_id"], details, nodes)

    def _engine_node(self, answer: dict[str, Any]) -> TraceNode:
        details = {"generator_digest": answer["generator_digest"], "because": answer["chosen_because"]}
        node = TraceNode("engine", answer["engine"], details)
        if answer["generator_adapter"] is not None:
            node.children = [self._adapter_node(answer["generator_adapter"], answer["tenant"])]
        return node

    def _adapter_node(self, digest: str, tenant: str) -> TraceNode:
        """Returns the node of the adapter that wrote an answer: its tenant's own, or that of all tenants."""
        registry = self._trained.registry
        every = (each for name in (generator_name(tenant), GENERATOR) for each in registry.versions(name))
        version = next((each for each in every if each.digest == digest), None)
        if version is None:
            return TraceNode("adapter", digest, {"is_kept": False})
        node = self.model_node(version)
        node.details |= {"role": "adapter"}
        node.children = self.from_model(version)
        return node

    def _answers_nodes(self, version: ModelVersion, where: str, value: object) -> list[TraceNode]:
        """Returns a node for the answers for which a condition holds, with a few of them, if any."""
        answers = self._reader.rows("gold.answers", where, value)
        if not answers:
            return []
        shown = sorted(answers, key=lambda row: row["answered_at"], reverse=True)[:_SHOWN_ANSWERS]
        children = [self._reader.answer_node(row) for row in shown]
        details = {"answers": len(answers), "shown": len(shown)}
        return [TraceNode("answers", version.address, details, children)]

    def _embedder_of(self, digest: str) -> tuple[ModelVersion | None, EmbedderConfig | None]:
        """Returns the version whose vectors have a digest, and the settings of the release that says so."""
        registry = self._trained.registry
        every = [each for name in registry.names() for each in registry.versions(name)]
        for version in every:
            if digest in self._vector_digests(version):
                return version, None
        config = next(
            (
                each.details.embedder
                for each in self._trained.releases()
                if each.details.model_digest == digest
            ),
            None,
        )
        if config is None:
            return None, None
        path = recorded_model_path(config.model, registry.folder)
        return next((each for each in every if registry.path(each) == path), None), config

    @staticmethod
    def _vector_digests(version: ModelVersion) -> list[str]:
        return [version.digest, int8_model_digest(version.digest)]
