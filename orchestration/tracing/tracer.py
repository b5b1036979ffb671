"""Traces any id: finds the thing with this id, and walks backward and forward from it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assets.lake.lake import Lake
from assets.sources.source_schemas import path_to_source_uri
from orchestration.settings import Settings, open_configured_lake
from orchestration.tracing.backward import BackwardWalk
from orchestration.tracing.forward import ForwardWalk
from orchestration.tracing.models import ModelWalk, TrainedFrom
from orchestration.tracing.nodes import Trace, TraceKind, TraceNode, Untraceable
from orchestration.tracing.reader import TraceReader
from orchestration.tracing.training import TrainingWalk
from orchestration.tracing.verify import TraceVerifier
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.registry.versions import ModelRegistry

Walks = tuple[list[TraceNode], list[TraceNode]]
"""What a thing was made from, and what was made from it."""

_ADDRESS = re.compile(r"[\w-]+@\w+")
"""What may be the address of a model or a training set."""
_BEGINNING = re.compile(r"[0-9a-f-]{4,}")
"""What may be the beginning of an id."""


class Tracer:
    """Traces ids through the lake's rows and commits, and through the rows of the index.

    Args:
        lake: The tables.
        document_rows: Returns what the index holds of a document; see `Index.document_rows`.
        verifier: Recomputes every hash and span on the way; None to leave that out.
        trained: Where training sets and models are; None to show the lake's examples alone.
    """

    def __init__(
        self,
        lake: Lake,
        document_rows: Callable[[str], list[dict[str, Any]]],
        verifier: TraceVerifier | None = None,
        trained: TrainedFrom | None = None,
    ) -> None:
        self._reader = TraceReader(lake)
        self._backward = BackwardWalk(self._reader, verifier)
        self._models = ModelWalk(self._reader, self._backward, trained) if trained else None
        self._training = TrainingWalk(self._reader, trained, self._models)
        self._forward = ForwardWalk(self._reader, document_rows, verifier, self._training)
        self._verified = verifier is not None

    def trace(self, identity: str) -> Trace:
        """Returns the trace of the thing with this id: what it was made from, and what was made from it.

        Args:
            identity: An answer's, chunk's or document's id or a content hash, or the beginning of one that no
                other has; a URI or a path of this machine; a run's or release's id; a model (NAME@VERSION, or
                its digest) or a training set (NAME@DIGEST).

        Raises:
            Untraceable: Nothing has that id, or several begin so.
        """
        if (found := self._trace_exactly(identity)) is not None:
            return found
        if _BEGINNING.fullmatch(identity):
            ids = self._reader.ids_beginning(identity)
            ids += self._models.digests_beginning(identity) if self._models else []
            if len(ids) > 1:
                shown = ", ".join(each[: max(12, len(identity) + 2)] for each in ids)
                raise Untraceable(f"{identity} begins more than one id: {shown}; give more of it")
            if ids and (found := self._trace_exactly(ids[0])) is not None:
                return found
        path = path_to_source_uri(str(Path(identity).absolute()))
        if "://" not in identity and (found := self._trace_exactly(path)) is not None:
            return found
        if self._models and _ADDRESS.fullmatch(identity):
            known = ", ".join(self._models.addresses())
            raise Untraceable(
                f"there is no model and no training set {identity!r}; there are: {known}"
                if known
                else f"there is no model and no training set {identity!r}, and none at all yet: `headwater "
                "datasets snapshot NAME` makes a training set, and `headwater train embedder` a model of it"
            )
        raise Untraceable(
            f"nothing has the id {identity!r}: give an answer, chunk, document, release or run id, a URI, a "
            "path, a content hash, or an address that `headwater models list` or `headwater datasets list` "
            'shows (`headwater sql "select answer_id, question from gold.answers"` lists answers)'
        )

    def _trace_exactly(self, identity: str) -> Trace | None:
        walks: tuple[tuple[TraceKind, Callable[[str], Walks | None]], ...] = (
            ("answer", self._from_answer),
            ("release", self._from_release),
            ("chunk", self._from_chunk),
            ("document", self._from_document),
            ("uri", self._from_uri),
            ("content", self._from_content),
            ("run", self._from_run),
            ("training_example", self._from_example),
            ("model", self._from_model),
            ("training_set", self._from_dataset),
        )
        for kind, walk in walks:
            found = walk(identity)
            if found is not None:
                backward, forward = found
                nodes = [*backward, *forward]
                checked = self._verified and any(node.has_checks() for node in nodes)
                verified = all(node.holds() for node in nodes) if checked else None
                unverifiable = sum(node.unverifiable_nodes() for node in nodes)
                if unverifiable and verified:
                    verified = None
                return Trace(identity, kind, backward, forward, verified, unverifiable)
        return None

    # One method per kind of id; each returns None where nothing of that kind has the id.

    def _from_answer(self, identity: str) -> Walks | None:
        rows = self._reader.rows("gold.answers", "answer_id = ?", identity)
        if not rows:
            return None
        made_by = self._models.of_answer(rows[0]) if self._models else []
        learned = self._reader.rows("gold.training_examples", "answer_id = ?", identity)
        forward = [self._training.example_node(row) for row in learned]
        return [*self._backward.from_answer(rows[0]), *made_by], forward

    def _from_release(self, identity: str) -> Walks | None:
        if not self._reader.rows("ops.releases", "release_id = ?", identity):
            return None
        answers = self._reader.rows("gold.answers", "release_id = ?", identity)
        return [self._backward.release_node(identity)], [self._reader.answer_node(row) for row in answers]

    def _from_chunk(self, identity: str) -> Walks | None:
        rows = self._reader.rows("gold.chunks", "chunk_id = ?", identity)
        if not rows:
            return None
        backward = self._backward.chunk_node(rows[0]).children
        return backward, self._forward.from_chunks(rows, rows[0]["doc_id"], only=identity)

    def _from_document(self, identity: str) -> Walks | None:
        revisions = self._reader.revisions("doc_id = ?", identity)
        if not revisions:
            return None
        return self._revision_nodes(revisions), self._forward.from_document(revisions[0])

    def _from_uri(self, identity: str) -> Walks | None:
        return self._from_revisions(self._reader.revisions("uri = ?", identity))

    def _from_content(self, identity: str) -> Walks | None:
        return self._from_revisions(self._reader.revisions("content_sha256 = ?", identity))

    def _from_revisions(self, revisions: list[dict[str, Any]]) -> Walks | None:
        if not revisions:
            return None
        newest = {raw["doc_id"]: raw for raw in reversed(revisions)}
        forward = [
            TraceNode("document", doc_id, children=self._forward.from_document(newest[doc_id]))
            for doc_id in dict.fromkeys(raw["doc_id"] for raw in revisions)
        ]
        return self._revision_nodes(revisions), forward

    def _from_run(self, identity: str) -> Walks | None:
        commits = self._reader.run_commits(identity)
        if not commits:
            return None
        inputs = sorted({item for commit in commits for item in commit.lineage.inputs.items()})
        backward = [TraceNode("table", f"{name}@{version}") for name, version in inputs]
        return backward, [self._reader.commit_node(commit) for commit in commits]

    def _from_example(self, identity: str) -> Walks | None:
        rows = self._reader.rows("gold.training_examples", "example_id = ?", identity)
        if not rows:
            return None
        chunks = self._reader.rows("gold.chunks", "list_contains(?, chunk_id)", rows[0]["chunk_ids"])
        answers = self._reader.rows("gold.answers", "answer_id = ?", rows[0]["answer_id"])
        return [
            *(self._reader.answer_node(answer) for answer in answers),
            *(self._backward.chunk_node(chunk) for chunk in chunks),
        ], []

    def _from_model(self, identity: str) -> Walks | None:
        version = self._models.find(identity) if self._models else None
        if self._models is None or version is None:
            return None
        return self._models.from_model(version), self._models.made_with_model(version)

    def _from_dataset(self, identity: str) -> Walks | None:
        header = self._models.find_dataset(identity) if self._models else None
        if self._models is None or header is None:
            return None
        return self._models.from_dataset(header), self._models.made_from_dataset(header)

    def _revision_nodes(self, revisions: list[dict[str, Any]]) -> list[TraceNode]:
        return [self._backward.revision_node(raw) for raw in revisions]


def trace_identity(settings: Settings, identity: str, verify: bool) -> Trace:
    """Returns both walks from an answer, chunk, document, release, run, training set or model."""
    index = Index(Postgres(settings.home, settings.postgres))
    verifier = TraceVerifier(settings.recipe.parser) if verify else None
    trained = TrainedFrom(settings.datasets_folder, ModelRegistry(settings.models_folder), index.releases)
    return Tracer(open_configured_lake(settings), index.document_rows, verifier, trained).trace(identity)
