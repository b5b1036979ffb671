"""Which tables the next run makes anew, and why: after an upgrade, or a setting that was changed."""

from collections.abc import Iterator
from dataclasses import dataclass

from assets.bronze import raw_documents_digest
from assets.columns import Table
from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, DOCUMENTS, EMBEDDINGS, RAW_DOCUMENTS, SIGNATURES
from assets.parsing.parse import PARSER_CHANGES, PARSER_VERSION
from assets.recipe import Recipe
from assets.silver import documents_digest
from retrieval.embedding.embedding_model import EmbeddingModel


@dataclass(frozen=True)
class PendingRebuild:
    """A table that the next run makes anew.

    Attributes:
        table: Its name.
        rows: How many documents, or for embeddings texts, are worked on again.
        reason: What changed since it was made.
    """

    table: str
    rows: int
    reason: str

    def __str__(self) -> str:
        """Returns a sentence about it."""
        what = {
            RAW_DOCUMENTS.name: "documents are read again from their sources",
            DOCUMENTS.name: "documents are parsed again",
            SIGNATURES.name: "documents are compared again with all others",
            CHUNKS.name: "documents are cut again into chunks",
            EMBEDDINGS.name: "texts are embedded again",
        }[self.table]
        return f"{self.rows:,} {what}: {self.reason}"


def pending_rebuilds(lake: Lake, recipe: Recipe, model: EmbeddingModel | None) -> list[PendingRebuild]:
    """Returns the tables that the next run makes anew, in the order in which it makes them.

    Args:
        lake: The lake; nothing is written to it.
        recipe: The settings of the next run.
        model: Its embedder; without it, chunks and embeddings are not looked at.
    """
    return list(_pending(lake, recipe, model))


def _pending(lake: Lake, recipe: Recipe, model: EmbeddingModel | None) -> Iterator[PendingRebuild]:
    expected = {
        RAW_DOCUMENTS: (raw_documents_digest(recipe), "kinds of files are told apart otherwise"),
        DOCUMENTS: (documents_digest(recipe), "the readers of files, or what is quarantined, changed"),
        SIGNATURES: (recipe.minhash.config_hash, "near-duplicates are found otherwise"),
    }
    if model is not None:
        expected[CHUNKS] = (recipe.chunker_digest(model), "the chunker or its tokenizer changed")
        expected[EMBEDDINGS] = (model.digest, "the embedder changed")
    for table, (digest, reason) in expected.items():
        try:
            last = lake.last_commit(table.name)
        except KeyError:  # there is no such table yet
            continue
        if last is None or last.lineage.config_digest in (digest, ""):
            continue
        if table is DOCUMENTS:
            reason = _what_readers_changed(recipe, last.lineage.config_digest) or reason
        if rows := _rows(lake, table):
            yield PendingRebuild(table.name, rows, reason)


def _what_readers_changed(recipe: Recipe, digest: str) -> str | None:
    """Returns what changed in the readers since a digest was made; None where settings changed as well."""
    newest, _, rest = PARSER_VERSION.partition("+")
    for earlier in range(int(newest) - 1, 0, -1):
        if documents_digest(recipe, f"{earlier}+{rest}") == digest:
            found = [what for version, what in sorted(PARSER_CHANGES.items()) if version > earlier]
            return "; ".join(found) or None
    return None


def _rows(lake: Lake, table: Table) -> int:
    """Returns how many rows of a table are worked on again: for raw documents those that are there."""
    if table is not RAW_DOCUMENTS:
        counted = "select count(*) as n from t"
    else:
        counted = """
            select count(*) as n
            from (select doc_id from t group by doc_id having not arg_max(deleted, revision))
        """
    return int(lake.query(counted, t=lake.delta(table.name))["n"][0].as_py())
