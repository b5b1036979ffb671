"""The demo's corpus, on the environment that the tests run in, and the questions written for it."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import orchestration.operations
from assets.sources.environment_corpus import (
    MAX_ENVIRONMENT_TEXT_BYTES,
    environment_corpus_folders,
    list_environment_corpus,
    read_environment_corpus,
)
from assets.sources.source_schemas import SOURCE_CONTENT_SCHEMA, SOURCE_LISTING_SCHEMA

QUESTIONS = Path(orchestration.operations.__file__).with_name("demo_questions.jsonl")
NEAR_MISSES = Path(orchestration.operations.__file__).with_name("demo_near_misses.jsonl")
UNANSWERABLE = Path(orchestration.operations.__file__).with_name("demo_unanswerable.jsonl")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(question: dict) -> list[str]:
    return question["uri"] if isinstance(question["uri"], list) else [question["uri"]]


@pytest.fixture(scope="module")
def listing() -> pa.Table:
    return list_environment_corpus()


@pytest.fixture(scope="module")
def documents(listing: pa.Table) -> pa.Table:
    return read_environment_corpus(listing)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of one distribution, under the names that wheels give theirs."""
    info = tmp_path / "Some_Thing-1.0.dist-info"
    (info / "licenses" / "vendor").mkdir(parents=True)
    (info / "METADATA").write_bytes(
        b"Metadata-Version: 2.4\r\nName: Some.Thing\r\nDescription-Content-Type: text/markdown; a=b\r\n"
        b"\r\n# Some thing\r\n\r\nIt does something.\r\n"
    )
    (info / "licenses" / "LICENSE").write_text("Do as you like.")
    (info / "licenses" / "vendor" / "NOTICE #1.rst").write_text("Noted.")
    (info / "COPYING.txt").write_text("Copy it.")
    (info / "RECORD").write_text("LICENSE,,")
    (info / "licenses" / "HUGE").write_bytes(b"x" * (MAX_ENVIRONMENT_TEXT_BYTES + 1))
    own = tmp_path / "headwater-0.1.0.dist-info"
    own.mkdir()
    (own / "METADATA").write_text("Name: headwater\n\nOurs.")
    bare = tmp_path / "bare-2.dist-info"
    bare.mkdir()
    (bare / "METADATA").write_text("Name: bare\n")
    return tmp_path


def of_distributions(table: pa.Table) -> pa.Table:
    return table.filter(pc.invert(pc.starts_with(table["uri"], "python-environment://python/")))


def test_documents_of_a_distribution(site: Path) -> None:
    listing = of_distributions(list_environment_corpus([site]))
    assert listing["uri"].to_pylist() == [
        "python-environment://bare/METADATA",
        "python-environment://some-thing/COPYING.txt",
        "python-environment://some-thing/METADATA",
        "python-environment://some-thing/licenses/LICENSE",
        "python-environment://some-thing/licenses/vendor/NOTICE%20%231.rst",
    ]
    rows = {
        row["uri"].partition("://")[2]: row for row in read_environment_corpus(listing, [site]).to_pylist()
    }
    description = rows["some-thing/METADATA"]
    assert description["body"] == b"# Some thing\r\n\r\nIt does something.\r\n"
    assert (description["title"], description["media_type"]) == ("Some.Thing", "text/markdown")
    assert description["content_sha256"] == hashlib.sha256(description["body"]).hexdigest()
    assert rows["some-thing/licenses/LICENSE"]["title"] == "Some.Thing: LICENSE"
    notice = rows["some-thing/licenses/vendor/NOTICE%20%231.rst"]
    assert (notice["title"], notice["media_type"]) == ("Some.Thing: vendor/NOTICE #1.rst", "text/x-rst")
    assert rows["bare/METADATA"]["body"] == b""


def test_a_text_that_goes_away_is_an_error_row(site: Path) -> None:
    listing = of_distributions(list_environment_corpus([site]))
    (site / "Some_Thing-1.0.dist-info" / "COPYING.txt").unlink()
    errors = {
        row["uri"]: row["error"]
        for row in read_environment_corpus(listing, [site]).to_pylist()
        if row["error"]
    }
    assert errors == {"python-environment://some-thing/COPYING.txt": "unreadable: it is no longer installed"}


def test_a_changed_file_shows_in_the_listing(site: Path) -> None:
    before = list_environment_corpus([site])
    assert before.equals(list_environment_corpus([site]))
    os.utime(site / "Some_Thing-1.0.dist-info" / "METADATA", ns=(1, 1))
    after = list_environment_corpus([site])
    changed = [
        old["uri"] for old, new in zip(before.to_pylist(), after.to_pylist(), strict=True) if old != new
    ]
    assert changed == ["python-environment://some-thing/METADATA"]


def test_this_environment_has_all_three_kinds_in_one_order(listing: pa.Table, documents: pa.Table) -> None:
    assert listing.schema == SOURCE_LISTING_SCHEMA
    assert documents.schema == SOURCE_CONTENT_SCHEMA
    uris = listing["uri"].to_pylist()
    assert uris == sorted(set(uris)) == documents["uri"].to_pylist()
    kinds = Counter(
        "topic" if "/python/topics/" in uri else "description" if uri.endswith("/METADATA") else "licence"
        for uri in uris
    )
    assert kinds["topic"] > 60
    assert kinds["description"] > 100
    assert kinds["licence"] > 100
    assert not [uri for uri in uris if "://headwater/" in uri]
    assert documents["error"].null_count == documents.num_rows
    assert pc.max(documents["size_bytes"]).as_py() <= MAX_ENVIRONMENT_TEXT_BYTES
    assert environment_corpus_folders()


def test_licences_repeat_each_other(documents: pa.Table) -> None:
    """What the deduplication of the demo has to show for itself."""
    licences = documents.filter(pc.match_substring(documents["uri"], "LICEN"))
    assert pc.count_distinct(licences["content_sha256"]).as_py() < licences.num_rows


def test_every_demo_question_has_its_document(documents: pa.Table) -> None:
    questions = lines(QUESTIONS)
    assert len(questions) >= 40
    assert all(set(q) == {"question", "uri"} for q in questions)
    bodies = dict(zip(documents["uri"].to_pylist(), documents["body"].to_pylist(), strict=True))
    missing = [(q["question"], uri) for q in questions for uri in expected(q) if not bodies.get(uri)]
    assert missing == []


def test_demo_questions_are_distinct_and_not_copied_from_their_document(documents: pa.Table) -> None:
    questions = lines(QUESTIONS)
    asked = [q["question"] for q in questions + lines(UNANSWERABLE) + lines(NEAR_MISSES)]
    assert len({question.casefold() for question in asked}) == len(asked)
    bodies = dict(zip(documents["uri"].to_pylist(), documents["body"].to_pylist(), strict=True))
    for q in questions:
        text = " ".join(bodies[expected(q)[0]].decode("utf-8", "replace").lower().split())
        words = q["question"].lower().rstrip("?.").split()
        runs = [" ".join(words[i : i + 6]) for i in range(len(words) - 5)]
        assert not [run for run in runs if run in text], q["question"]


def test_unanswerable_questions_name_no_document() -> None:
    questions = lines(UNANSWERABLE)
    assert len(questions) >= 10
    assert all(set(q) == {"question"} for q in questions)


def test_near_misses_are_about_documents_of_the_corpus(documents: pa.Table) -> None:
    questions = lines(NEAR_MISSES)
    assert len(questions) >= 30
    assert all(
        set(q) == {"question", "subject", "answerable"} and q["answerable"] is False for q in questions
    )
    assert {q["subject"] for q in questions} <= set(documents["uri"].to_pylist())
