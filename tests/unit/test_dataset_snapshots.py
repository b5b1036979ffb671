"""Snapshots of training sets: the same examples are the same snapshot, and a changed byte is found."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from training.datasets import open_dataset
from training.datasets.training_set import (
    EXAMPLE_SCHEMA,
    SPLITS,
    BrokenDataset,
    DatasetHasRemovedDocuments,
    DatasetHeader,
    Split,
    UnknownDataset,
    find_dataset,
    mark_removed_documents,
    open_tenant_dataset,
    snapshot_folder,
    write_dataset,
)

MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)


def header(name: str = "acme", **changed: Any) -> DatasetHeader:
    described = DatasetHeader(
        name=name,
        digest="",
        tenant="acme",
        recipe={"negatives": 7},
        versions={"gold.chunks": 3},
        code_version="0",
        run_id="run",
        made_at=MADE_AT,
        files={},
        splits={"train": 1, "validation": 0, "test": 0},
        kinds={"domain_text": 1},
        query_kinds={},
        licences={"MIT": 1},
        languages=["en"],
        documents=1,
    )
    return described.model_copy(update=changed)


def examples(*texts: str) -> dict[Split, pa.Table]:
    rows = [
        {
            "example_id": text,
            "kind": "domain_text",
            "positive": text,
            "negatives": [],
            "candidates": [],
            "scores": [],
            "chunk_ids": [f"chunk of {text}"],
            "doc_ids": [f"doc of {text}"],
        }
        for text in texts
    ]
    nothing = EXAMPLE_SCHEMA.empty_table()
    return {"train": pa.Table.from_pylist(rows, EXAMPLE_SCHEMA), "validation": nothing, "test": nothing}


def test_a_snapshot_is_opened_by_its_name_or_its_digest_with_the_rows_that_were_written(
    tmp_path: Path,
) -> None:
    written = write_dataset(tmp_path, header(), examples("b", "a"))
    for name in ("acme", written.address, f"acme@{written.digest}", f"acme@{written.digest[:5]}"):
        opened = open_dataset(tmp_path, name)
        assert opened.header == written
        assert tuple(opened.examples) == SPLITS
        assert opened.examples["train"]["positive"].to_pylist() == ["a", "b"]


def test_the_same_examples_are_the_same_snapshot_and_others_are_another(tmp_path: Path) -> None:
    first = write_dataset(tmp_path, header(), examples("a", "b"))
    later = header(made_at=datetime(2026, 2, 1, tzinfo=UTC))
    assert write_dataset(tmp_path, later, examples("b", "a")) == first
    other = write_dataset(tmp_path, later, examples("a", "c"))
    assert other.digest != first.digest
    assert find_dataset(tmp_path, "acme") == other, "the newest"
    assert find_dataset(tmp_path, first.address) == first
    assert not list(tmp_path.glob("acme/.writing-*"))


def test_a_job_learns_a_tenants_newest_snapshot_or_the_one_that_is_named(tmp_path: Path) -> None:
    first = write_dataset(tmp_path, header(), examples("a"))
    newest = write_dataset(tmp_path, header(made_at=datetime(2026, 2, 1, tzinfo=UTC)), examples("b"))
    other = write_dataset(tmp_path, header("mine", tenant="default"), examples("c"))

    def opened(tenant: str | None, address: str | None = None) -> DatasetHeader:
        return open_tenant_dataset(tmp_path, tenant, address).header

    assert opened("acme") == opened("acme", "acme") == newest
    assert opened("acme", first.address) == opened(None, first.address) == first
    assert opened(None) == other, "that of the default tenant"
    with pytest.raises(UnknownDataset, match=rf"{first.address} is .* 'acme', and 'default' is to learn"):
        opened("default", first.address)
    with pytest.raises(UnknownDataset, match="'globex' has no training set yet"):
        opened("globex")


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    at = snapshot_folder(tmp_path, write_dataset(tmp_path, header(), examples("a")))
    assert {file.stat().st_mode & 0o777 for file in at.iterdir()} == {0o600}
    assert at.stat().st_mode & 0o777 == 0o700


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    at = snapshot_folder(tmp_path, write_dataset(tmp_path, header(), examples("a")))
    file = at / "train.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(BrokenDataset, match=r"train\.parquet"):
        open_dataset(tmp_path, "acme")
    file.unlink()
    with pytest.raises(BrokenDataset, match=r"train\.parquet"):
        open_dataset(tmp_path, "acme")


@pytest.mark.parametrize("name", ["", "other", "acme@ffffffff", "../acme", "*", "acme@"])
def test_a_name_without_a_snapshot_is_an_error_that_says_which_there_are(tmp_path: Path, name: str) -> None:
    written = write_dataset(tmp_path, header(), examples("a"))
    if name == "acme@":  # no digest: the newest
        assert find_dataset(tmp_path, name) == written
        return
    with pytest.raises(UnknownDataset, match=written.address):
        find_dataset(tmp_path, name)


def test_nothing_new_learns_from_a_snapshot_with_a_removed_document(tmp_path: Path) -> None:
    written = write_dataset(tmp_path, header(), examples("a"))
    mark_removed_documents(tmp_path, written, ["doc of a"])
    with pytest.raises(DatasetHasRemovedDocuments, match=r"\(1\).*headwater datasets snapshot acme"):
        open_dataset(tmp_path, written.address)
    assert open_dataset(tmp_path, "acme", removed_allowed=True).header == written
    mark_removed_documents(tmp_path, written, [])  # it came back
    assert open_dataset(tmp_path, "acme").header == written
