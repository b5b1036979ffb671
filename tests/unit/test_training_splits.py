"""Which split a document is in: by its cluster, as it was decided before, and train wins."""

from collections.abc import Mapping

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.engine.local_relations import LocalRelations
from assets.training_sets.splits import define_splits
from training.datasets.config import TrainingSetConfig

CONFIG = TrainingSetConfig(validation_share=0.2, test_share=0.2)
IDS = st.integers(0, 30).map("d{}".format)
SPLITS = st.sampled_from(["train", "validation", "test"])


def decided(
    documents: set[str],
    canonical: Mapping[str, str],
    before: Mapping[str, str],
    config: TrainingSetConfig = CONFIG,
) -> dict[str, str]:
    """The split of each document, from its canonical document where it has one and the splits of before."""
    string = pa.string()
    with LocalRelations() as on:
        on.add(
            "documents",
            pa.table(
                {"doc_id": pa.array(documents, string), "tenant": pa.array(["t"] * len(documents), string)}
            ),
        )
        on.add(
            "duplicates",
            pa.table(
                {"doc_id": pa.array(canonical, string), "canonical_id": pa.array(canonical.values(), string)}
            ),
        )
        on.add(
            "training_splits",
            pa.table(
                {
                    "doc_id": pa.array(before, string),
                    "tenant": pa.array(["t"] * len(before), string),
                    "split": pa.array(before.values(), string),
                }
            ),
        )
        define_splits(on, config)
        rows = on.arrow("splits").to_pylist()
    assert len(rows) == len({row["doc_id"] for row in rows})
    return {row["doc_id"]: row["split"] for row in rows}


@settings(max_examples=15, deadline=None)
@given(st.sets(IDS), st.dictionaries(IDS, IDS), st.dictionaries(IDS, SPLITS))
def test_a_cluster_is_in_one_split_that_was_decided_and_train_wins(
    documents: set[str], pairs: dict[str, str], before: dict[str, str]
) -> None:
    canonical = {
        one: other for one, other in pairs.items() if {one, other} <= documents and other not in pairs
    }
    found = decided(documents, canonical, before)
    assert set(found) == documents | set(before)
    clusters: dict[str, set[str]] = {}
    for doc_id in documents:
        clusters.setdefault(canonical.get(doc_id, doc_id), set()).add(doc_id)
    for members in clusters.values():
        [split] = {found[doc_id] for doc_id in members}
        known = {before[doc_id] for doc_id in members if doc_id in before}
        if known:
            assert split == next(each for each in ("train", "validation", "test") if each in known)
    for doc_id in set(before) - documents:
        assert found[doc_id] == before[doc_id], "a removed document is remembered"
    assert decided(documents, canonical, found) == found


def test_the_shares_are_about_those_of_the_settings_and_can_be_none() -> None:
    documents = {f"document {number}" for number in range(3000)}
    found = [*decided(documents, {}, {}).values()]
    shares = {split: found.count(split) / len(found) for split in ("train", "validation", "test")}
    assert abs(shares["train"] - 0.6) < 0.04
    assert abs(shares["test"] - 0.2) < 0.03
    alone = TrainingSetConfig(validation_share=0, test_share=0)
    assert set(decided(documents, {}, {}, alone).values()) == {"train"}
