"""Walks forward to training: examples that name a document, snapshots that hold it, models of these."""

from typing import Any

import pyarrow.parquet as pq

from orchestration.tracing.models import ModelWalk, TrainedFrom
from orchestration.tracing.nodes import TraceNode
from orchestration.tracing.reader import TraceReader
from training.datasets.training_set import SPLITS, dataset_headers, removed_documents, snapshot_folder

_EXAMPLES = "gold.training_examples"


class TrainingWalk:
    """Builds the trace nodes of what models learn from.

    Args:
        reader: The reader of rows and commits.
        trained: Where training sets and models are; None to show the lake's examples alone.
        models: Makes the nodes of models; None without `trained`.
    """

    def __init__(self, reader: TraceReader, trained: TrainedFrom | None, models: ModelWalk | None) -> None:
        self._reader, self._trained, self._models = reader, trained, models

    def from_document(self, doc_id: str, chunk_id: str | None = None) -> list[TraceNode]:
        """Returns the nodes of the examples made of a document, of snapshots that hold it, and of models.

        Models are those that learned from the document, live or not, also where their training set is gone.

        Args:
            doc_id: The document.
            chunk_id: The chunk whose examples and snapshots are wanted; None for the whole document's.
        """
        named = ("chunk_ids", chunk_id) if chunk_id else ("doc_ids", doc_id)
        rows = self._reader.rows(_EXAMPLES, f"list_contains({named[0]}, ?)", named[1])
        made = [row for row in rows if row["doc_id"] == doc_id]
        nodes = [self.example_node(row) for row in sorted(made, key=lambda row: row["example_id"])]
        if others := len(rows) - len(made):
            details = {"table": _EXAMPLES, "examples": others}
            nodes.append(TraceNode("passage_of_other_examples", named[1], details))
        return [*nodes, *self._snapshot_nodes(*named), *self._model_nodes(doc_id)]

    def example_node(self, row: dict[str, Any]) -> TraceNode:
        """Returns a node for a row of `gold.training_examples`."""
        node = self._reader.row_node("training_example", row["example_id"], _EXAMPLES, row)
        node.details |= {name: row[name] for name in ("split", "question") if row[name]}
        node.details |= {"example_kind": row["kind"]}
        node.details |= {name: row[name] for name in ("query_kind", "left_out") if row[name]}
        return node

    def _snapshot_nodes(self, column: str, value: str) -> list[TraceNode]:
        nodes: list[TraceNode] = []
        if self._trained is None:
            return nodes
        folder = self._trained.datasets
        for header in dataset_headers(folder):
            at = snapshot_folder(folder, header)
            counts: dict[str, int] = {
                split: self._reader.lake.query(
                    f"select count(*) as n from t where list_contains({column}, ?)",
                    [value],
                    t=pq.read_table(at / f"{split}.parquet", columns=[column]),
                )["n"][0].as_py()
                for split in SPLITS
            }
            if any(counts.values()):
                details = {
                    "made_at": header.made_at.isoformat(),
                    "tenant": header.tenant,
                    "holds_removed_documents": bool(removed_documents(folder, header)),
                }
                nodes.append(TraceNode("training_set", header.address, {**details, **counts}))
        return nodes

    def _model_nodes(self, doc_id: str) -> list[TraceNode]:
        if self._trained is None or self._models is None:
            return []
        registry = self._trained.registry
        every = (each for name in registry.names() for each in registry.versions(name))
        return [self._models.model_node(each) for each in every if doc_id in registry.learned_documents(each)]
