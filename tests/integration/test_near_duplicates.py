"""Near-duplicates: against a plain reference, incremental against full, and in Spark against here."""

import hashlib
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from assets.dedup.minhash import (
    MinHashConfig,
    lsh_bands,
    minhash_signatures,
    shingle_jaccard,
    signature_batches,
)
from assets.dedup.near_duplicates import DuplicateCounts, find_duplicates
from assets.engine.local_relations import LocalRelations
from assets.engine.relations import Relations
from assets.engine.spark_relations import SparkRelations

CONFIG = MinHashConfig(
    shingle_words=2, permutations=24, bands=12, rows=2, jaccard_threshold=0.5, hot_bucket=3
)
START = datetime(2024, 1, 1, tzinfo=UTC)
DUPLICATES = pa.schema(
    [(name, pa.string()) for name in ("doc_id", "canonical_id", "matched_id")]
    + [("jaccard", pa.float64()), ("method", pa.string())]
)


@dataclass(frozen=True)
class Doc:
    tenant: str
    text: str
    seen: int


Corpus = dict[str, Doc]
Rows = dict[str, tuple[str, str, float, str]]


def seniority(corpus: Corpus, doc_id: str) -> tuple[int, str]:
    return corpus[doc_id].seen, doc_id


def representatives(corpus: Corpus) -> dict[tuple[str, str], str]:
    first: dict[tuple[str, str], str] = {}
    for doc_id in sorted(corpus, key=lambda doc_id: seniority(corpus, doc_id)):
        first.setdefault((corpus[doc_id].tenant, corpus[doc_id].text), doc_id)
    return first


def buckets(corpus: Corpus, config: MinHashConfig = CONFIG) -> list[list[str]]:
    members: dict[tuple[str, int], list[str]] = {}
    for (tenant, text), doc_id in representatives(corpus).items():
        if text:
            for band in lsh_bands(minhash_signatures(pa.array([text]), config), config)[0].tolist():
                members.setdefault((tenant, band), []).append(doc_id)
    return [sorted(bucket, key=lambda doc_id: seniority(corpus, doc_id)) for bucket in members.values()]


def reference(corpus: Corpus, config: MinHashConfig = CONFIG) -> Rows:
    """The same semantics in plain Python, one document and one pair at a time."""
    matches: dict[str, list[tuple[float, str, str]]] = {}
    first = representatives(corpus)
    for doc_id, doc in corpus.items():
        if first[doc.tenant, doc.text] != doc_id:
            matches[doc_id] = [(-1.0, first[doc.tenant, doc.text], "exact")]
    pairs = {
        (left, right)
        for bucket in buckets(corpus, config)
        for at, left in enumerate(bucket[: config.hot_bucket])
        for right in bucket[at + 1 :]
    }
    for left, right in pairs:
        texts = pa.array([corpus[left].text, corpus[right].text])
        jaccard = float(shingle_jaccard(texts, np.array([0]), np.array([1]), config)[0])
        if jaccard >= config.jaccard_threshold:
            matches.setdefault(left, []).append((-jaccard, right, "minhash"))
            matches.setdefault(right, []).append((-jaccard, left, "minhash"))
    cluster = {doc_id: {doc_id} for doc_id in corpus}
    for doc_id, found in matches.items():
        for _, other, _ in found:
            if cluster[doc_id] is not cluster[other]:
                cluster[doc_id] |= cluster[other]
                for member in cluster[other]:
                    cluster[member] = cluster[doc_id]
    rows = {}
    for doc_id, found in matches.items():
        canonical = min(cluster[doc_id], key=lambda member: seniority(corpus, member))
        if canonical != doc_id:
            negative, matched, method = min(found)
            rows[doc_id] = (canonical, matched, -negative, method)
    return rows


def documents(corpus: Corpus) -> pa.Table:
    docs = list(corpus.values())
    return pa.table(
        {
            "doc_id": pa.array(list(corpus), pa.string()),
            "tenant": pa.array([doc.tenant for doc in docs], pa.string()),
            "text": pa.array([doc.text for doc in docs], pa.string()),
            "text_sha256": pa.array(
                [hashlib.sha256(doc.text.encode()).hexdigest() for doc in docs], pa.string()
            ),
            "first_seen_at": pa.array(
                [START + timedelta(seconds=doc.seen) for doc in docs], pa.timestamp("us", "UTC")
            ),
        }
    )


def signed(corpus: Corpus, config: MinHashConfig = CONFIG) -> pa.Table:
    texts = pa.array([doc.text for doc in corpus.values()], pa.string())
    batch = pa.record_batch(
        {"doc_id": pa.array(list(corpus), pa.string()), "text": texts, "text_sha256": texts}
    )
    return pa.Table.from_batches(signature_batches(iter([batch]), config))


@dataclass(frozen=True)
class Found:
    """What one computation decided: the rows, the documents that it decided about, and what it looked at."""

    rows: Rows
    affected: set[str]
    counts: DuplicateCounts


def table(rows: Rows) -> pa.Table:
    data = [dict(zip(DUPLICATES.names, (doc_id, *row), strict=True)) for doc_id, row in rows.items()]
    return pa.Table.from_pylist(data, DUPLICATES)


def find(
    on: Relations,
    corpus: Corpus,
    standing: Rows,
    config: MinHashConfig = CONFIG,
    changed: list[str] | None = None,
    replaced: Corpus | None = None,
) -> Found:
    """`find_duplicates` of documents: all of them, or only what the changes can have touched."""
    on.add("documents", documents(corpus))
    on.add("signatures", signed(corpus, config))
    on.add("duplicates", table(standing))
    if changed is not None:
        on.add("changed_signatures", pa.table({"doc_id": pa.array(changed, pa.string())}))
        on.add("replaced_signatures", signed(replaced or {}, config))
    counts = find_duplicates(on, config, incremental=changed is not None)
    rows = {
        row["doc_id"]: (row["canonical_id"], row["matched_id"], row["jaccard"], row["method"])
        for row in on.arrow("found_duplicates").to_pylist()
    }
    return Found(rows, set(on.arrow("affected_documents")["doc_id"].to_pylist()), counts)


def follow(
    before: Corpus,
    after: Corpus,
    standing: Rows,
    config: MinHashConfig = CONFIG,
    on: Relations | None = None,
) -> Rows:
    """Applies one incremental computation to the rows that stood before it, as the asset's MERGE does."""
    changed = [doc_id for doc_id in before.keys() | after.keys() if before.get(doc_id) != after.get(doc_id)]
    replaced = {doc_id: before[doc_id] for doc_id in changed if doc_id in before}
    with LocalRelations() as local:
        found = find(on or local, after, standing, config, changed, replaced)
    assert found.rows.keys() <= found.affected
    assert set(changed) <= found.affected
    return {doc_id: row for doc_id, row in standing.items() if doc_id not in found.affected} | found.rows


def full(corpus: Corpus, standing: Rows | None = None) -> Found:
    with LocalRelations() as on:
        return find(on, corpus, standing or {})


def random_text(rng: random.Random, base: list[list[str]]) -> str:
    words = list(rng.choice(base))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        words[rng.randrange(len(words))] = rng.choice("vwxyz")
    return " ".join(words) if rng.random() < 0.95 else ""


def evolve(rng: random.Random, corpus: Corpus, base: dict[str, list[list[str]]]) -> Corpus:
    """Adds, edits and removes documents in every tenant; a removed document may come back, even as older."""
    after = dict(corpus)
    for tenant, texts in base.items():
        for _ in range(rng.choice([0, 1, 1, 2, 4])):
            doc_id = f"{tenant}-{rng.randrange(16):02}"
            doc = after.pop(doc_id, None)
            if doc is None:
                after[doc_id] = Doc(tenant, random_text(rng, texts), rng.randrange(6))
            elif rng.random() < 0.5:
                after[doc_id] = Doc(tenant, random_text(rng, texts), doc.seen)
    return after


def vocabularies(rng: random.Random) -> dict[str, list[list[str]]]:
    """Tenants are independent, so each one is an example; half of them share their texts with a neighbour."""
    base: dict[str, list[list[str]]] = {}
    for i in range(40):
        texts = [
            [f"{i // 2}{rng.choice('abcdefgh')}" for _ in range(12)] for _ in range(rng.choice([1, 1, 2, 3]))
        ]
        base[f"t{i:02}"] = texts if i % 2 == 0 else base[f"t{i - 1:02}"]
    return base


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_any_sequence_of_changes_gives_the_rows_of_one_full_computation(seed: int) -> None:
    rng = random.Random(seed)
    base = vocabularies(rng)
    corpus: Corpus = {}
    for _ in range(3):
        corpus = evolve(rng, corpus, base)
    found = full(corpus)
    assert found.counts.hot_buckets == sum(len(bucket) > CONFIG.hot_bucket for bucket in buckets(corpus)) > 0
    rows = found.rows
    assert rows == reference(corpus)
    for _ in range(4):
        before, corpus = corpus, evolve(rng, corpus, base)
        rows = follow(before, corpus, rows)
        assert rows == reference(corpus)
    methods = [method for *_, method in rows.values()]
    assert methods.count("exact") > 10
    assert methods.count("minhash") > 10


@pytest.mark.slow
def test_changes_followed_in_spark_alone(spark: SparkSession) -> None:
    rng = random.Random(3)
    base = vocabularies(rng)
    before: Corpus = {}
    for _ in range(3):
        before = evolve(rng, before, base)
    after = evolve(rng, before, base)
    # Adaptive execution runs a job a stage, which for tables this small is most of the time.
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        with SparkRelations(spark) as on:
            rows = follow(before, after, reference(before), on=on)
        with SparkRelations(spark) as on:
            found = find(on, after, {})
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", "true")
    assert rows == reference(after) != reference(before)
    assert found.rows == rows


def words(*changes: tuple[int, str]) -> str:
    text = [f"w{i}" for i in range(24)]
    for at, word in changes:
        text[at] = word
    return " ".join(text)


def test_tenants_are_never_compared_and_exact_copies_follow_the_cluster() -> None:
    corpus = {
        "a": Doc("one", words(), 5),
        "b": Doc("one", words((3, "x")), 1),
        "c": Doc("one", words(), 6),
        "d": Doc("two", words(), 0),
        "e": Doc("one", "", 0),
        "f": Doc("one", "", 1),
    }
    rows = full(corpus, standing={"gone": ("a", "a", 1.0, "exact")}).rows
    jaccard = rows["a"][2]
    assert 0.5 < jaccard < 1
    assert rows == {
        "a": ("b", "b", jaccard, "minhash"),
        "c": ("b", "a", 1.0, "exact"),
        "f": ("e", "e", 1.0, "exact"),
    }


def test_a_full_computation_takes_away_the_rows_of_documents_that_are_gone() -> None:
    found = full({"a": Doc("one", words(), 0)}, standing={"gone": ("a", "a", 1.0, "exact")})
    assert found.affected == {"a", "gone"}
    assert found.rows == {}


def test_when_the_representative_goes_another_is_promoted() -> None:
    before = {"a": Doc("t", words(), 0), "b": Doc("t", words((1, "x")), 1), "c": Doc("t", words(), 2)}
    after = {doc_id: doc for doc_id, doc in before.items() if doc_id != "a"}
    rows = follow(before, after, reference(before))
    assert rows == reference(after)
    assert rows.keys() == {"c"}
    assert rows["c"][:2] == ("b", "b")


def test_a_new_document_that_bridges_two_clusters_merges_them() -> None:
    """The younger cluster's canonical document had no row: its own best match has to be found again."""
    first, last = [(i, f"x{i}") for i in range(4)], [(i, f"y{i}") for i in range(20, 24)]
    before = {
        "a": Doc("t", words(*first), 0),
        "b": Doc("t", words(*first, (10, "z")), 1),
        "c": Doc("t", words(*last), 2),
        "d": Doc("t", words(*last, (10, "z")), 3),
    }
    after = before | {"e": Doc("t", words(), 4)}
    standing = reference(before)
    assert {row[0] for row in standing.values()} == {"a", "c"}
    rows = follow(before, after, standing)
    assert rows == reference(after)
    assert {row[0] for row in rows.values()} == {"a"}
    assert rows["c"][1] == "d"


def test_a_removal_lets_documents_move_up_in_a_full_bucket() -> None:
    """Documents behind an unlike senior one in a bucket of one place become comparable without it."""
    config = CONFIG.model_copy(update={"permutations": 1, "bands": 1, "rows": 1, "hot_bucket": 1})
    rng = random.Random(5)
    text, near, nearer = words(), words((12, "z")), words((13, "z"))
    shared = minhash_signatures(pa.array([text]), config)[0]
    assert (minhash_signatures(pa.array([near, nearer]), config) == shared).all()
    shuffled = rng.sample(text.split(), 24)
    while minhash_signatures(pa.array([" ".join(shuffled)]), config)[0] != shared:
        rng.shuffle(shuffled)
    before = {"a": Doc("t", " ".join(shuffled), 0), "b": Doc("t", text, 1), "c": Doc("t", near, 2)}
    before["d"] = Doc("t", nearer, 3)
    after = {doc_id: doc for doc_id, doc in before.items() if doc_id != "a"}
    assert reference(before, config) == {}
    assert reference(after, config).keys() == {"c", "d"}
    assert follow(before, after, {}, config) == reference(after, config) != {}
    assert follow(after, before, reference(after, config), config) == {}
