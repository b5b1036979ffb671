"""What the release gate asks: questions for every tenant, sampled without reading every chunk."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from lake_rows import write
from test_gx import chunk, document

from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import CHUNKS, RAW_DOCUMENTS
from assets.release_evaluation import (
    candidate_questions,
    sample_candidate_documents,
    tenants_without_questions,
)
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry

TENANTS = {"asked": 3, "large": 300, "small": 2}


def rows_of(tenant: str) -> list[dict]:
    """Two chunks of each of a tenant's documents."""
    rows = []
    for number in range(TENANTS[tenant]):
        text = f"It opens so. The middle of document {number} of {tenant} says this. It ends."
        whole = document(number, text) | {"tenant": tenant, "doc_id": f"{tenant}-{number}"}
        rows += [chunk(whole, 0, 0, len(text)), chunk(whole, 1, 13, len(text))]
    return rows


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    folder = tmp_path_factory.mktemp("lake")
    made = Lake(folder / "lake", SparkConfig(), folder / "scratch", folder / "docs")
    made.ensure()
    return made


@pytest.fixture(scope="module")
def pins(lake: Lake) -> dict[str, int]:
    raw = {
        **dict.fromkeys(RAW_DOCUMENTS.schema.names),
        **{"doc_id": "asked-0", "revision": 0, "tenant": "asked", "source": "docs", "uri": "file:///asked"},
        **{"first_seen_at": 0, "fetched_at": 0, "deleted": False},
    }
    return {
        RAW_DOCUMENTS.name: write(lake, RAW_DOCUMENTS, [raw]),
        CHUNKS.name: write(lake, CHUNKS, [row for tenant in TENANTS for row in rows_of(tenant)]),
    }


def registry(tmp_path: Path, uris: Sequence[str]) -> SourceRegistry:
    (tmp_path / "docs").mkdir()
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(json.dumps({"question": f"What of {uri}?", "uri": uri}) for uri in uris))
    sources = SourceRegistry(tmp_path / "sources.json")
    sources.add(
        Source(name="docs", tenant="asked", location=str(tmp_path / "docs"), questions=str(questions))
    )
    return sources


def none(questions: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.zeros(len(questions), bool)


def test_what_a_model_learned_from_is_not_asked_of_it(
    lake: Lake, pins: dict[str, int], tmp_path: Path
) -> None:
    sources = registry(tmp_path, ["file:///asked"])
    every = candidate_questions(lake, sources, pins, none)
    learned = {each.question for asked in every.values() for each in asked[::2]}

    def is_learned(questions: Sequence[str]) -> npt.NDArray[np.bool_]:
        return np.array([each in learned for each in questions], bool)

    left = candidate_questions(lake, sources, pins, is_learned)
    assert {tenant: len(asked) for tenant, asked in left.items()} == {"asked": 3, "large": 50, "small": 1}
    assert learned.isdisjoint(each.question for asked in left.values() for each in asked)


def test_tenants_without_questions_are_asked_too(lake: Lake, pins: dict[str, int], tmp_path: Path) -> None:
    asked = candidate_questions(lake, registry(tmp_path, ["file:///asked", "file:///gone"]), pins, none)
    assert [each.question for each in asked["asked"]] == ["What of file:///asked?"]
    assert {tenant: len(questions) for tenant, questions in asked.items()} == {
        "asked": 1,
        "large": 50,
        "small": 2,
    }
    assert all("large" in each.question for each in asked["large"])
    assert tenants_without_questions(lake, pins, asked) == []
    del asked["small"]
    assert tenants_without_questions(lake, pins, asked) == ["small"]


def test_a_question_names_its_document_by_uri_or_by_id(
    lake: Lake, pins: dict[str, int], tmp_path: Path
) -> None:
    sources = registry(tmp_path, ["file:///gone"])
    by_id = [{"question": f"What of {name}?", "doc_id": name} for name in ("asked-0", "gone-0")]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, by_id)))
    asked = candidate_questions(lake, sources, pins, none)
    assert [(each.question, each.expected) for each in asked["asked"]] == [("What of asked-0?", ("asked-0",))]


def test_a_tenant_whose_questions_can_not_be_answered_is_asked_for_its_chunks(
    lake: Lake, pins: dict[str, int], tmp_path: Path
) -> None:
    asked = candidate_questions(lake, registry(tmp_path, ["file:///gone"]), pins, none)
    assert sorted(each.expected for each in asked["asked"]) == [("asked-0",), ("asked-1",), ("asked-2",)]


def test_a_sample_is_bounded_per_tenant_and_the_same_for_the_same_chunks(
    lake: Lake, pins: dict[str, int]
) -> None:
    sampled = sample_candidate_documents(lake, pins[CHUNKS.name], 40, except_tenants={"asked"})
    assert {tenant: len({item.doc_id for item in found}) for tenant, found in sampled.items()} == {
        "large": 40,
        "small": 2,
    }
    assert sampled == sample_candidate_documents(lake, pins[CHUNKS.name], 40, except_tenants={"asked"})
    fewer = sample_candidate_documents(lake, pins[CHUNKS.name], 10, except_tenants={"asked"})
    assert fewer["large"] == sampled["large"][:10]
    # In no order that the lake stores them in: the first documents by name would be one source's.
    names = [item.doc_id for item in sampled["large"]]
    assert names != sorted(names)
