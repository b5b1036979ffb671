"""Which split of a training set each document is in.

A hash of the cluster of duplicates decides, so that near-duplicates are never on both sides. What was decided
is remembered for each document, also after it was removed. Where clusters merge, a document that was trained
on makes all of them training documents; and one that training was stopped by makes them validation documents.
"""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from assets.engine.relations import Relations
from training.alike import alike_to
from training.datasets.config import TrainingSetConfig

_HEX_DIGITS = 8

SPLIT_OF_HASH = """
    CASE WHEN substring({hash}, 1, 8) < {{validation_from}} THEN 'train'
         WHEN substring({hash}, 1, 8) < {{test_from}} THEN 'validation' ELSE 'test' END
"""
"""SQL for the split of a hash in hexadecimal, with the values of `SplitBounds`."""

_MEMBERS = """
    SELECT d.doc_id, d.tenant, coalesce(u.canonical_id, d.doc_id) AS cluster_id
    FROM {documents} AS d LEFT JOIN {duplicates} AS u ON d.doc_id = u.doc_id
"""
_CLUSTERS = """
    SELECT m.cluster_id, min(CASE r.split WHEN 'train' THEN 0 WHEN 'validation' THEN 1 WHEN 'test' THEN 2 END)
        AS remembered
    FROM {members} AS m LEFT JOIN {training_splits} AS r ON m.doc_id = r.doc_id GROUP BY m.cluster_id
"""
_ROWS = f"""
    SELECT m.doc_id, m.tenant, CASE c.remembered WHEN 0 THEN 'train' WHEN 1 THEN 'validation'
        WHEN 2 THEN 'test' ELSE {SPLIT_OF_HASH.format(hash="sha2(concat('split', m.cluster_id), 256)")} END
        AS split
    FROM {{members}} AS m JOIN {{clusters}} AS c ON m.cluster_id = c.cluster_id
    UNION ALL
    SELECT r.doc_id, r.tenant, r.split FROM {{training_splits}} AS r ANTI JOIN {{members}} USING (doc_id)
"""


class SplitBounds(NamedTuple):
    """The hashes in hexadecimal from which documents are for validation, and from which for tests."""

    validation_from: str
    test_from: str


def split_bounds(config: TrainingSetConfig) -> SplitBounds:
    """Returns the bounds that give the splits their shares."""
    train = 1 - config.validation_share - config.test_share
    return SplitBounds(_hexadecimal(train), _hexadecimal(train + config.validation_share))


def define_splits(on: Relations, config: TrainingSetConfig) -> None:
    """Defines `splits`, the rows of `gold.training_splits`.

    Args:
        on: The relations `documents`, `duplicates` and `training_splits`: what was decided.
        config: The shares of the splits.
    """
    on.define("members", _MEMBERS)
    on.define("clusters", _CLUSTERS)
    bounds = split_bounds(config)
    on.define("splits", _ROWS, validation_from=bounds.validation_from, test_from=bounds.test_from)


def near_questions(asked: pa.Table) -> pa.Table:
    """Returns the questions of a tenant that are alike to one that is held out from their split.

    From training all others are held out, and from validation those of tests and evaluations.

    Args:
        asked: `split`, which may be `evaluation`, and `text`.
    """
    texts = asked["text"].to_pylist()
    tested = pc.is_in(asked["split"], pa.array(["test", "evaluation"])).to_numpy()
    learned, validated = (pc.equal(asked["split"], each).to_numpy() for each in ("train", "validation"))
    near = (learned & alike_to(texts, ~learned)) | (validated & alike_to(texts, tested))
    return asked.filter(pa.array(near))


def _hexadecimal(share: float) -> str:
    """Returns the hash below which a share of all hashes is; that of all is above every digit."""
    number = round(share * 16**_HEX_DIGITS)
    return f"{number:0{_HEX_DIGITS}x}" if number < 16**_HEX_DIGITS else "g"
