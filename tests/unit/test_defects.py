"""The defects of `bench quality`: each spoils what it says it spoils, repeatably, and most are caught."""

import copy
from datetime import UTC, datetime
from random import Random

import pytest

from benchmarks.defects import (
    DOCUMENT_DEFECTS,
    TABLE_DEFECTS,
    BenchDocument,
    InjectedDefect,
    Rows,
    inject_near_duplicate,
)
from benchmarks.quality import _found_by

PARAGRAPH = (
    "The naïve reader takes its settings from a file that stands beside the program, and a setting that is\n"
    "given on the command line wins over the one in the file. What is set in neither has the value that the\n"
    "manual’s last chapter names, and a value that can not be read is an error, which says where it stands."
)
TEXT = "\n\n".join(f"Chapter {number} of {number + 3}\n\n{PARAGRAPH}" for number in range(3))
SOURCE = BenchDocument(TEXT.encode(), "text/plain", TEXT)


@pytest.mark.parametrize("defect", DOCUMENT_DEFECTS, ids=[each.kind for each in DOCUMENT_DEFECTS])
def test_a_spoiled_document_is_another_and_the_same_each_time(defect: InjectedDefect) -> None:
    assert defect.fits(SOURCE)
    spoiled = defect.spoil(SOURCE, Random(1))
    assert spoiled.body != SOURCE.body
    assert spoiled == defect.spoil(SOURCE, Random(1))


@pytest.mark.parametrize("defect", DOCUMENT_DEFECTS, ids=[each.kind for each in DOCUMENT_DEFECTS])
def test_every_kind_is_caught_by_what_is_there_for_it(defect: InjectedDefect) -> None:
    caught = [_found_by(defect, SOURCE, Random(seed)) is not None for seed in range(5)]
    assert sum(caught) >= (2 if defect.kind == "truncated" else 5)


def test_a_near_copy_is_near() -> None:
    near = inject_near_duplicate(TEXT, Random(1))
    assert near != TEXT
    assert len(set(TEXT.split()) - set(near.split())) <= 3


def sound() -> Rows:
    row = dict.fromkeys(("tenant", "source", "uri", "content_sha256", "text_sha256", "language"), "x")
    seen = datetime(2026, 1, 1, tzinfo=UTC)
    documents = [
        row | {"doc_id": str(at), "text": TEXT, "char_count": len(TEXT), "first_seen_at": seen}
        for at in range(10)
    ]
    chunks = [
        {"doc_id": str(at), "chunk_id": str(at), "text_sha256": "x", "char_start": 0, "char_end": 9}
        for at in range(10)
    ]
    embeddings = [{"vector": [1.0, 0.0]} for _ in range(10)]
    return {"silver.documents": documents, "gold.chunks": chunks, "gold.embeddings": embeddings}


@pytest.mark.parametrize("kind", TABLE_DEFECTS)
def test_a_spoiled_version_differs_in_its_own_table_only(kind: str) -> None:
    table, spoil = TABLE_DEFECTS[kind]
    tables, spoiled = sound(), copy.deepcopy(sound())
    spoil(spoiled, Random(1))
    assert {name for name in tables if repr(tables[name]) != repr(spoiled[name])} == {table}
