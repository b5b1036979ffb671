"""As of a release, search gives what a lake of that version alone would; readers see no half state."""

import hashlib
import re
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, made_from

from assets.parsing.blocks import ExtractionError
from assets.parsing.content_type import detect_media_type
from assets.parsing.extract import extract_document
from retrieval.chunking.chunker import ChunkerConfig, chunk_document_batches
from retrieval.embedding.config import EmbedderConfig, packaged_embedding_model
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.index.types import IndexRelease, IndexState, UnknownIndexRelease
from retrieval.search.as_of import InvalidAsOf, release_as_of
from retrieval.search.searcher import RetrievalMode, Searcher, SearchHit
from retrieval.store.postgres import Postgres

VECTOR_SIZE = 64
QUESTIONS = [
    "how do I partition a pdf document",
    "install the library with extras for docx",
    "metadata of an element",
    "cleaning bricks that remove bullets",
    "stage for label studio",
    "changelog fixes for html tables",
    "ocr languages tesseract",
    "chunking elements by title",
    "connect to s3 and ingest",
    "what is a NarrativeText element",
    "email attachments",
    "detectron2 model",
]
MODES: tuple[RetrievalMode, ...] = ("hybrid", "lexical", "vector")


@pytest.fixture
def index(postgres: Postgres) -> Index:
    """An index with nothing in it, nothing released and nothing remembered."""
    found = Index(postgres)
    with postgres.owner() as connection:
        connection.execute("DELETE FROM headwater.release_log")
    found.prune([])
    return found


def embedded(text: str) -> np.ndarray:
    """A sum of a fixed random direction a word: near where words are shared, and made in no time."""
    total = np.zeros(VECTOR_SIZE)
    for word in re.findall(r"\w+", text.lower()):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        total += np.random.default_rng(seed).normal(size=VECTOR_SIZE)
    norm = np.linalg.norm(total)
    return (total / norm if norm else np.ones(VECTOR_SIZE)).astype(np.float32)


def version_rows(folder: Path, tokenizer: Path, vectors: dict[str, np.ndarray]) -> pa.RecordBatch:
    """A version's files, cut by the real chunker, as rows of the index."""
    documents = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, body = path.relative_to(folder).as_posix(), path.read_bytes()
        try:
            read = extract_document(body, detect_media_type(body, name))
        except ExtractionError:
            continue
        documents.append(
            {
                "doc_id": hashlib.sha256(name.encode()).hexdigest(),
                "tenant": "docs",
                "text": read.text,
                "headings": [
                    {"char_start": h.char_start, "level": h.level, "title": h.title} for h in read.headings
                ],
                "uri": f"file:///docs/{name}",
                "title": read.title,
                "content_sha256": hashlib.sha256(body).hexdigest(),
            }
        )
    given = pa.RecordBatch.from_pylist(documents)
    [cut] = chunk_document_batches(iter([given]), ChunkerConfig(), tokenizer)
    of = {document["doc_id"]: document for document in documents}
    texts = cut["text"].to_pylist()
    for text in texts:
        if text not in vectors:
            vectors[text] = embedded(text)
    rows = {name: cut[name] for name in cut.schema.names} | {
        name: pa.array([of[doc_id][name] for doc_id in cut["doc_id"].to_pylist()], pa.string())
        for name in ("uri", "title", "content_sha256")
    }
    rows["language"] = pa.array(["en"] * len(texts), pa.string())
    rows["vector"] = pa.array([vectors[text] for text in texts], pa.list_(pa.float32()))
    return pa.RecordBatch.from_pydict(rows)


@pytest.mark.slow
def test_as_of_each_of_seven_versions_search_equals_a_lake_of_that_version_alone(
    index: Index, postgres: Postgres, shared_data: Path, tmp_path: Path
) -> None:
    archive = shared_data / "versioned-docs.tar.gz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    folders = [path for path in tmp_path.rglob("*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    folders.sort(key=lambda path: tuple(map(int, path.name.split("."))))
    assert len(folders) == 7
    tokenizer = EmbeddingModel.of(EmbedderConfig(model=packaged_embedding_model()), tmp_path).tokenizer_path
    vectors: dict[str, np.ndarray] = {}
    versions = {folder.name: version_rows(folder, tokenizer, vectors) for folder in folders}

    # One after another into one index: an epoch and a release a version.
    state: IndexState | None = None
    held: set[str] = set()
    live: str | None = None
    for number, rows in enumerate(versions.values(), start=1):
        ids = set(rows["chunk_id"].to_pylist())
        if state is None:
            state = index.build("seven", "chunker", VECTOR_SIZE, [rows], NO_LINEAGE)
        else:
            state = index.apply(state, [rows], held - ids, made_from(version=number))
        held = ids
        index.release(f"v{number}", state, live, NO_DETAILS)
        live = f"v{number}"
    assert state is not None
    assert state.epoch == 7

    searcher, compared, differing = Searcher(postgres), 0, 0
    asked = {question: embedded(question) for question in QUESTIONS}

    def search(
        question: str, mode: RetrievalMode, at: IndexState | IndexRelease, model: str
    ) -> list[SearchHit]:
        return searcher.search("docs", question, asked[question], 20, mode, at, model_digest=model)

    for number, rows in enumerate(versions.values(), start=1):
        alone = index.build(f"alone {number}", "chunker", VECTOR_SIZE, [rows], NO_LINEAGE)
        then = release_as_of(f"v{number}", index.releases(), index.live_history(), datetime.now(UTC))
        assert index.rows_at(then).equals(index.rows_at(alone))
        for question in QUESTIONS:
            for mode in MODES:
                travelled, fresh = (
                    search(question, mode, then, "seven"),
                    search(question, mode, alone, f"alone {number}"),
                )
                assert travelled == fresh, (number, mode, question)
                compared += 1
                differing += bool(
                    number > 1 and travelled != search(question, mode, index.releases()[-1], "seven")
                )
        # What is live is the last version, whatever is asked of the past.
        assert (
            searcher.search("docs", QUESTIONS[0], None, 5, "lexical")
            == search(QUESTIONS[0], "lexical", index.releases()[0], "seven")[:5]
        )
    print(f"{compared} searches of {len(versions)} versions equal; {len(vectors)} distinct chunks")
    assert differing > compared / 2  # the versions are not all alike


def test_a_time_is_what_was_live_then_also_after_going_back(index: Index, postgres: Postgres) -> None:
    rows = [Chunk("a", "first edition"), Chunk("b", "river")]
    first = index.build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    index.release("t1", first, None, NO_DETAILS)
    second = index.apply(first, [batch([Chunk("c", "second edition")])], [rows[0].chunk_id], NO_LINEAGE)
    index.release("t2", second, "t1", NO_DETAILS)
    index.rollback("t1")
    other = index.build(
        "other model", "chunker", DIMENSION, [batch([Chunk("d", "third edition")])], NO_LINEAGE
    )
    index.release("t3", other, "t1", NO_DETAILS)
    history = index.live_history()
    assert [each.release_id for each in history] == ["t1", "t2", "t1", "t3"]
    now = datetime.now(UTC)

    def found(moment: str) -> set[str]:
        at = release_as_of(moment, index.releases(), index.live_history(), now)
        return {hit.text for hit in Searcher(postgres).search("acme", "edition", None, 9, "lexical", at)}

    instant = timedelta(microseconds=1)
    times = [each.live_since for each in history]
    assert found("t2") == {"second edition"}
    assert found(times[0].isoformat()) == {"first edition"}
    assert found((times[2] - instant).isoformat()) == {"second edition"}
    assert found(times[2].isoformat()) == {"first edition"}
    assert found(now.isoformat()) == {"third edition"}  # another generation
    with pytest.raises(UnknownIndexRelease, match="nothing was released"):
        found((times[0] - instant).isoformat())
    with pytest.raises(InvalidAsOf, match="future"):
        found((now + timedelta(hours=1)).isoformat())
    # Pruned, a release is out of the window, by name and by time; the history still knows of it.
    index.prune([(first.generation, first.epoch)])
    for moment in ("t2", (times[2] - instant).isoformat()):
        with pytest.raises(UnknownIndexRelease, match=r"t2.*is no longer kept: .* begins with t1"):
            found(moment)
    assert found("t1") == {"first edition"}


def test_readers_see_whole_editions_and_never_a_superseded_one(index: Index, postgres: Postgres) -> None:
    """Ten updates, each of which changes, adds and removes, while readers search without a pause."""

    def edition(number: int) -> list[Chunk]:
        # Document n leaves with the n-th update; the others say of which edition they are.
        return [
            Chunk(f"{n}", f"passage edition{number}", vector=(1.0, 0.01 * n, 0, 0, 0, 0, 0, 0))
            for n in range(number, number + 30)
        ]

    whole = {number: {row.chunk_id for row in edition(number)} for number in range(11)}
    state = index.build("model", "chunker", DIMENSION, [batch(edition(0))], NO_LINEAGE)
    index.release("e0", state, None, NO_DETAILS)
    released, done, wrong, searches = 0, threading.Event(), list[str](), [0, 0, 0]
    searcher = Searcher(postgres)

    def read(which: int, mode: RetrievalMode) -> None:
        while not done.is_set() and not wrong:
            least = released
            hits = searcher.search("acme", "passage", [1.0] + [0.0] * 7, 100, mode, model_digest="model")
            most = released + 1
            said = {int(hit.text.rpartition("edition")[2]) for hit in hits}
            if len(said) != 1 or {hit.chunk_id for hit in hits} != whole[next(iter(said))]:
                wrong.append(f"{mode}: {len(hits)} hits of editions {said}")
            elif not least <= next(iter(said)) <= most:
                wrong.append(f"{mode}: edition {said} while {least} to {most} were live")
            searches[which] += 1

    def quietly(which: int, mode: RetrievalMode) -> None:
        try:
            read(which, mode)
        except Exception as error:
            wrong.append(f"{mode}: {error}")

    readers = [threading.Thread(target=quietly, args=each) for each in enumerate(MODES)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 11):
            gone = whole[number - 1] - whole[number]
            state = index.apply(state, [batch(edition(number))], gone, NO_LINEAGE)
            index.release(f"e{number}", state, f"e{number - 1}", NO_DETAILS)
            released = number
            index.prune([])
    finally:
        done.set()
        for reader in readers:
            reader.join(60)
    assert wrong == []
    assert min(searches) >= 10


@pytest.fixture(autouse=True)
def _leave_nothing(postgres: Postgres) -> Iterator[None]:
    yield
    with postgres.owner() as connection:
        connection.execute("DELETE FROM headwater.release_log")
