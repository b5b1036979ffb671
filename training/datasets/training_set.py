"""Training sets: immutable snapshots of training examples, each addressed as NAME@DIGEST.

A snapshot is a folder `NAME/DIGEST` of one Parquet file per split and a `header.json`. The digest is over the
files and what they were made for, so that the same examples are the same snapshot, and a changed file is
found when it is opened.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from common.atomic_files import flush_path

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
ExampleKind = Literal["retrieval_pair", "ranked_list", "instruction", "domain_text"]
EXAMPLE_KINDS: tuple[ExampleKind, ...] = get_args(ExampleKind)
EMBEDDER_KINDS: tuple[ExampleKind, ...] = ("retrieval_pair", "ranked_list")
"""Those that an embedder learns from."""
GENERATOR_KINDS: tuple[ExampleKind, ...] = ("instruction", "domain_text")
"""Those that a generator learns from."""
ANSWER = "answer"
"""The query kind of an instruction that was made of an answer: it brings its passages, and cites them."""

EXAMPLE_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("query_kind", pa.string()),
        pa.field("question", pa.string()),
        pa.field("positive", pa.string(), nullable=False),
        pa.field("negatives", pa.list_(pa.string()), nullable=False),
        pa.field("candidates", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float64()), nullable=False),
        pa.field("teacher", pa.string()),
        pa.field("chunk_ids", pa.list_(pa.string()), nullable=False),
        pa.field("doc_ids", pa.list_(pa.string()), nullable=False),
        pa.field("licence", pa.string()),
    ]
)
"""The columns of each split's table, a row per example.

`positive` is the passage that answers the question, the answer of an instruction, or the text itself of
`domain_text`. A `retrieval_pair` has `negatives`, and `scores` are the cosines of the positive and of each
negative to the question. A `ranked_list` has `candidates`, best first by the `teacher`, whose scores are
`scores`; the positive, the chunk that the question was made of, is one of them. `chunk_ids` and `doc_ids` are
those of the positive and the negatives, or of the candidates, in their order; they are empty for an example
that the user gave. In the positive of an `ANSWER`, [n] is the nth of them.
"""

_HEADER = "header.json"
_REMOVED = "removed.json"
_SHOWN_DIGEST = 16
"""Hex digits of the digest by which a snapshot's folder is named."""


class UnknownDataset(LookupError):
    """There is no such training set or snapshot; the message lists those there are."""


class BrokenDataset(ValueError):
    """A file of a snapshot is not the one that was written."""


class DatasetHasRemovedDocuments(ValueError):
    """A document of the snapshot was removed since: nothing new may learn from it."""


class DatasetHeader(BaseModel, frozen=True):
    """What a snapshot is, and what it was made from.

    Attributes:
        name: The name of the training set.
        digest: SHA-256 (hex) over its files, its tenant and its recipe.
        tenant: The tenant from whose documents it was made.
        recipe: The settings by which its examples were made.
        versions: The version of every table that it was made from.
        code_version: The version of Headwater's code that made it.
        run_id: The run that did.
        made_at: When.
        files: SHA-256 (hex) of each split's file.
        splits: Examples in each split.
        kinds: Examples of each kind.
        query_kinds: Questions of retrieval pairs by their kind.
        licences: Examples under each SPDX licence; `unknown` for documents of sources without one.
        languages: ISO 639 codes of the languages of its documents, most frequent first.
        documents: The number of distinct documents that it was made from.
    """

    name: str
    digest: str
    tenant: str
    recipe: dict[str, float | int | str]
    versions: dict[str, int]
    code_version: str
    run_id: str
    made_at: datetime
    files: dict[Split, str]
    splits: dict[Split, int]
    kinds: dict[str, int]
    query_kinds: dict[str, int]
    licences: dict[str, int]
    languages: list[str]
    documents: int

    @property
    def address(self) -> str:
        """The name by which a job pins it: NAME@DIGEST."""
        return f"{self.name}@{self.digest[:_SHOWN_DIGEST]}"


@dataclass(frozen=True)
class TrainingSet:
    """An opened snapshot.

    Attributes:
        header: What it is, and what it was made from.
        examples: The examples of each split, in `EXAMPLE_SCHEMA`, sorted by example_id.
    """

    header: DatasetHeader
    examples: Mapping[Split, pa.Table]


def open_dataset(folder: Path, name: str, removed_allowed: bool = False) -> TrainingSet:
    """Returns a snapshot of a training set, after checking every byte of it against its digest.

    Args:
        folder: The folder of training sets, `Settings.datasets_folder`.
        name: NAME for the newest snapshot, or NAME@DIGEST; the beginning of a digest is enough.
        removed_allowed: Whether to open one that holds documents which were removed since.

    Raises:
        UnknownDataset: There is none of that name, or several digests begin so.
        BrokenDataset: A file was changed since it was written.
        DatasetHasRemovedDocuments: It holds documents that were removed since.
    """
    header = find_dataset(folder, name)
    at = snapshot_folder(folder, header)
    removed = removed_documents(folder, header)
    if removed and not removed_allowed:
        raise DatasetHasRemovedDocuments(
            f"{header.address} holds documents that were removed since it was made ({len(removed)}): "
            f"`headwater datasets snapshot {header.name}` makes one without them"
        )
    examples = {}
    for split, digest in header.files.items():
        file = at / f"{split}.parquet"
        if not file.is_file() or _file_digest(file) != digest:
            raise BrokenDataset(
                f"{file} is not the file that was written: remove {at}, and "
                f"`headwater datasets snapshot {header.name}` makes it anew"
            )
        examples[split] = pq.read_table(file, schema=EXAMPLE_SCHEMA)
    return TrainingSet(header, examples)


def open_tenant_dataset(folder: Path, tenant: str | None, address: str | None = None) -> TrainingSet:
    """Returns a snapshot of a tenant's training sets; see `open_dataset`.

    Args:
        folder: The folder of training sets.
        tenant: The tenant; None for that of the named one, or for `default`.
        address: NAME for the newest of that name, or NAME@DIGEST; the tenant's newest unless given.

    Raises:
        UnknownDataset: The tenant has none yet, or the named one is not there or is another tenant's.
    """
    if address is not None:
        header = find_dataset(folder, address)
        if tenant is not None and header.tenant != tenant:
            raise UnknownDataset(
                f"{header.address} is a training set of the tenant {header.tenant!r}, and {tenant!r} is to "
                f"learn: name one of that tenant's (`headwater datasets list`), or --tenant {header.tenant}"
            )
        return open_dataset(folder, f"{header.name}@{header.digest}")
    tenant = tenant or "default"
    newest = next((each for each in dataset_headers(folder) if each.tenant == tenant), None)
    if newest is None:
        raise UnknownDataset(
            f"the tenant {tenant!r} has no training set yet: `headwater datasets snapshot NAME` makes one, "
            "or name examples of yours with --data"
        )
    return open_dataset(folder, f"{newest.name}@{newest.digest}")


def find_dataset(folder: Path, name: str) -> DatasetHeader:
    """Returns the header of the snapshot that NAME or NAME@DIGEST names.

    Raises:
        UnknownDataset: There is none of that name, or several digests begin so.
    """
    wanted, _, digest = name.partition("@")
    found = [each for each in dataset_headers(folder, wanted) if each.digest.startswith(digest)]
    if not found or (digest and len(found) > 1):
        known = ", ".join(each.address for each in dataset_headers(folder)) or "none yet"
        raise UnknownDataset(
            f"there is not one training set {name!r}; there are: {known}. "
            f"`headwater datasets snapshot {wanted or 'NAME'}` makes one"
        )
    return found[0]


def dataset_headers(folder: Path, name: str | None = None) -> list[DatasetHeader]:
    """Returns the headers of the snapshots of a training set, or of all, newest first."""
    if name is not None and not is_dataset_name(name):
        return []
    files = folder.glob(f"{name or '*'}/*/{_HEADER}")
    headers = [DatasetHeader.model_validate_json(file.read_bytes()) for file in files]
    return sorted(headers, key=lambda header: header.made_at, reverse=True)


def is_dataset_name(name: str) -> bool:
    """Returns whether a name can be that of a training set: letters, digits, - and _; 64 at most."""
    return 0 < len(name) <= 64 and name.isascii() and name.replace("-", "").replace("_", "").isalnum()


def snapshot_folder(folder: Path, header: DatasetHeader) -> Path:
    """Returns where a snapshot lies."""
    return folder / header.name / header.digest[:_SHOWN_DIGEST]


def removed_documents(folder: Path, header: DatasetHeader) -> list[str]:
    """Returns the ids of the documents of a snapshot that were removed since, as the last run found them."""
    file = snapshot_folder(folder, header) / _REMOVED
    return list(json.loads(file.read_bytes())) if file.is_file() else []


def mark_removed_documents(folder: Path, header: DatasetHeader, doc_ids: list[str]) -> None:
    """Says of a snapshot which of its documents were removed since; without any, that none was."""
    file = snapshot_folder(folder, header) / _REMOVED
    if doc_ids:
        _write(file, json.dumps(sorted(doc_ids)).encode())
    else:
        file.unlink(missing_ok=True)


def write_dataset(
    folder: Path, described: DatasetHeader, examples: Mapping[Split, pa.Table]
) -> DatasetHeader:
    """Writes a snapshot, and returns its header with digest and file digests.

    Where the same examples were written before, that snapshot stays as it is, and its header is returned.

    Args:
        folder: The folder of training sets.
        described: The header; its `digest` and `files` are not read.
        examples: The examples of each split, in `EXAMPLE_SCHEMA`.
    """
    scratch = folder / described.name / f".writing-{os.getpid()}"
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    files: dict[Split, str] = {}
    for split, rows in examples.items():
        file = scratch / f"{split}.parquet"
        pq.write_table(
            rows.cast(EXAMPLE_SCHEMA).sort_by("example_id").combine_chunks(), file, compression="zstd"
        )
        _keep(file)
        files[split] = _file_digest(file)
    said = json.dumps([described.tenant, described.recipe, files], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()
    header = described.model_copy(update={"digest": digest, "files": files})
    _write(scratch / _HEADER, header.model_dump_json(indent=2).encode())
    target = snapshot_folder(folder, header)
    if target.exists():
        for file in scratch.iterdir():
            file.unlink()
        scratch.rmdir()
        return DatasetHeader.model_validate_json((target / _HEADER).read_bytes())
    scratch.rename(target)
    flush_path(target.parent)
    return header


def chunk_texts(*opened: TrainingSet) -> dict[str, str]:
    """Returns the texts of the chunks that snapshots hold, by their ids."""
    return {
        row["chunk_ids"][0]: row["positive"]
        for each in opened
        for examples in each.examples.values()
        for row in examples.filter(pc.equal(examples["kind"], "domain_text")).to_pylist()
        if row["chunk_ids"]
    }


def relevant_passages(row: Mapping[str, Any], chunks: Mapping[str, str]) -> list[str]:
    """Returns the passages that answer an example's question: its source chunk, and what the pair has of it.

    Args:
        row: A retrieval pair or a ranked list, in `EXAMPLE_SCHEMA`.
        chunks: Of `chunk_texts`.
    """
    if row["kind"] == "ranked_list":  # one of an older version may have a part of a chunk as its positive
        return [row["positive"]] if row["positive"] in row["candidates"] else []
    source = chunks.get(row["chunk_ids"][0], row["positive"]) if row["chunk_ids"] else row["positive"]
    return list(dict.fromkeys([row["positive"], source]))


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    _keep(file)


def _keep(file: Path) -> None:
    """Makes a file the owner's alone, and safe from a power cut."""
    file.chmod(0o600)
    flush_path(file)
