"""Finds exact duplicates and near-duplicates, and the clusters that they form.

The result depends on the current documents only. `find_duplicates` computes it for all documents, or only for
those that a batch of changes can have affected, with the same rows as a computation for all.

* Documents of different tenants, or for different groups of readers, are never compared.
* Seniority is `(first_seen_at, doc_id)`. Of documents with the same text, the most senior is the text's
  representative; the others are exact duplicates of it, and only the representative is compared further.
* Two representatives that share an LSH band are a candidate pair. A bucket (a tenant's representatives with
  one band value) can be large, so only its `hot_bucket` most senior members are compared with the others: the
  pairs grow with a bucket's size and not with its square.
* A candidate pair whose exact Jaccard similarity reaches the threshold is an edge. Connected components over
  these edges and the exact duplicates are clusters; the most senior document of each is its canonical one.

Incremental computation. An edge can appear or vanish only at a document that changed, that became or ceased
to be a text's representative, or that moved across the rank `hot_bucket` in a bucket. These documents, and
all documents of the clusters that they were in, are *dirty*, and all their edges are computed again. A
cluster without a dirty document has kept its edges, so its rows in `silver.duplicates` replace them; it is
*touched* when it has a new edge to a dirty document.
"""

from dataclasses import dataclass

from assets.dedup.components import define_components
from assets.dedup.minhash import MinHashConfig
from assets.dedup.similarity import define_similarities
from assets.engine.relations import Relations


@dataclass(frozen=True)
class DuplicateCounts:
    """How much a deduplication compared.

    Attributes:
        candidate_pairs: Pairs whose exact similarity was computed.
        similar_pairs: Candidate pairs whose similarity reaches the threshold.
        hot_buckets: LSH buckets with more than `hot_bucket` members, among those that were read.
    """

    candidate_pairs: int
    similar_pairs: int
    hot_buckets: int


def find_duplicates(
    on: Relations, config: MinHashConfig, scope: str = "tenant", incremental: bool = False
) -> DuplicateCounts:
    """Defines the rows of `silver.duplicates` for all documents, or for those that recent changes affect.

    It reads these relations:

    * `documents`: all current documents: doc_id, tenant, text, text_sha256, first_seen_at;
    * `signatures`: their signatures: doc_id, bands (null where a text has no word);
    * `duplicates`: the present rows of silver.duplicates, from before the changes: doc_id, canonical_id,
      matched_id, jaccard, method;
    * `changed_signatures`, when incremental: doc_id of the documents that were added, changed or deleted
      since;
    * `replaced_signatures`, when incremental: the former bands of the signatures that changed or were
      deleted, which name the buckets that lost a member.

    It defines these:

    * `found_duplicates`: doc_id, canonical_id, matched_id, jaccard (float64), method (`exact` or `minhash`):
      the rows that silver.duplicates must have for the affected documents;
    * `affected_documents`: doc_id of every document for which the rows were computed. If a row of
      silver.duplicates has one of these doc_ids and is not in `found_duplicates`, it is obsolete.

    Args:
        config: Threshold and bucket limit; the other settings must be those that made the signatures.
        scope: An SQL expression over `documents` for who may read a document; only documents with an equal
            value are compared.
        incremental: True to compute only the rows that the changes can have affected.

    Returns:
        How much was compared.
    """
    columns = "doc_id, canonical_id, matched_id, jaccard, method"
    on.define("previous", f"SELECT {columns} FROM {{duplicates}}", reused=True)
    on.define(
        "members",
        f"SELECT doc_id, {scope} AS tenant, text_sha256, unix_micros(first_seen_at) AS seen "
        "FROM {documents}",
        reused=True,
    )
    if incremental:
        on.define("changed", "SELECT doc_id FROM {changed_signatures}", reused=True)
        on.define("replaced", "SELECT bands FROM {replaced_signatures}", reused=True)
        _define_dirty(on, config)
    else:
        every = "SELECT doc_id FROM {members} UNION SELECT doc_id FROM {previous}"
        on.define("dirty", every, reused=True)
    counts = _define_outcome(on, config)
    on.define("found_duplicates", f"SELECT {columns} FROM {{outcome}} WHERE canonical_id IS NOT NULL")
    on.define("affected_documents", "SELECT doc_id FROM {outcome}")
    return counts


def _define_outcome(on: Relations, config: MinHashConfig) -> DuplicateCounts:
    """Defines `outcome`: each affected document with its row, or nulls for none.

    Args:
        on: Holds `members`, `signatures`, `previous` and `dirty`.
        config: Threshold and bucket limit.

    Returns:
        How much there was to compare.
    """
    on.define(
        "exact",
        _SHARING_TEXT.replace("{ids}", "{dirty}")
        + " SEMI JOIN {dirty} USING (doc_id) WHERE doc_id <> matched_id",
        reused=True,
    )
    _define_edges(on, "edges", "dirty", config)
    candidates, hot = on.row("SELECT count_if(wanted), coalesce(sum(hot), 0) FROM {edges_compared}")
    (similar,) = on.row("SELECT count(*) FROM {edges}")

    # A touched cluster's standing rows hold it together; new edges may join it to others.
    on.define(
        "ends",
        """
        SELECT doc_id FROM (
            SELECT matched_id AS doc_id FROM {exact}
            UNION SELECT left_id FROM {edges} UNION SELECT right_id FROM {edges}
        ) ANTI JOIN {dirty} USING (doc_id)
        """,
    )
    on.define(
        "touched",
        """
        SELECT doc_id, canonical_id, matched_id, jaccard, method FROM {previous} SEMI JOIN (
            SELECT canonical_id FROM {previous} SEMI JOIN {ends} USING (doc_id)
            UNION SELECT p.canonical_id FROM {previous} AS p JOIN {ends} AS e ON p.canonical_id = e.doc_id
        ) USING (canonical_id) ANTI JOIN {dirty} USING (doc_id)
        """,
        reused=True,
    )
    on.define(
        "links",
        """
        SELECT doc_id AS left_id, matched_id AS right_id FROM {exact}
        UNION ALL SELECT left_id, right_id FROM {edges}
        UNION ALL SELECT doc_id, canonical_id FROM {touched}
        """,
        reused=True,
    )
    define_components(on, "components", "links")
    on.define(
        "canonical",
        """
        SELECT doc_id, first_value(doc_id) OVER (PARTITION BY component ORDER BY seen, doc_id) AS canonical_id
        FROM {components} JOIN {members} ON node = doc_id
        """,
        reused=True,
    )

    # A cluster's canonical document had no row. Where it is canonical no more, nothing kept says what it
    # resembles: look all its edges up.
    on.define(
        "demoted",
        """
        SELECT doc_id FROM {canonical} SEMI JOIN (SELECT canonical_id AS doc_id FROM {touched}) USING (doc_id)
        WHERE doc_id <> canonical_id
        """,
        reused=True,
    )
    both_ways = "SELECT left_id, right_id, jaccard, 'minhash' FROM {edges} UNION ALL "
    both_ways += "SELECT right_id, left_id, jaccard, 'minhash' FROM {edges}"
    if on.row("SELECT count(*) FROM {demoted}") != (0,):
        _define_edges(on, "more", "demoted", config)
        both_ways += " UNION ALL " + both_ways.replace("{edges}", "{more}")
    on.define(
        "outcome",
        f"""
        SELECT doc_id, canonical_id, matched_id, jaccard, method
        FROM (SELECT doc_id FROM {{dirty}} UNION SELECT doc_id FROM {{canonical}}) LEFT JOIN (
            SELECT doc_id, canonical_id, matched_id, jaccard, method,
                row_number() OVER (PARTITION BY doc_id ORDER BY jaccard DESC, matched_id) AS place
            FROM (
                SELECT doc_id, matched_id, CAST(1 AS DOUBLE) AS jaccard, 'exact' AS method FROM {{exact}}
                UNION ALL {both_ways}
                UNION ALL SELECT doc_id, matched_id, jaccard, method FROM {{touched}}
            ) JOIN {{canonical}} USING (doc_id) WHERE doc_id <> canonical_id
        ) USING (doc_id) WHERE coalesce(place, 1) = 1
        """,
        reused=True,
    )
    return DuplicateCounts(candidates, similar, int(hot))


_SHARING_TEXT = """
    SELECT doc_id, matched_id FROM (
        SELECT doc_id, first_value(doc_id) OVER (
            PARTITION BY tenant, text_sha256 ORDER BY seen, doc_id
        ) AS matched_id
        FROM {members} SEMI JOIN (
            SELECT tenant, text_sha256 FROM {members} SEMI JOIN {ids} USING (doc_id)
        ) USING (tenant, text_sha256)
    )
"""
"""The documents with the text of one of `ids`, each with that text's representative as matched_id."""

_BANDS = "SELECT explode(bands) AS band FROM {signatures} SEMI JOIN {ids} USING (doc_id)"
"""The bands of the documents of `ids`."""

_RANKED = """
    SELECT tenant, band, doc_id,
        row_number() OVER (PARTITION BY tenant, band ORDER BY seen, doc_id) - 1 AS place
    FROM (
        SELECT /*+ REPARTITION(tenant, band) */ tenant, band, doc_id, seen,
            row_number() OVER (PARTITION BY tenant, band, text_sha256 ORDER BY seen, doc_id) AS place_of_text
        FROM (
            SELECT doc_id, band FROM (SELECT doc_id, explode(bands) AS band FROM {signatures})
            SEMI JOIN {values} USING (band)
        ) JOIN {members} USING (doc_id)
    ) WHERE place_of_text = 1
"""
"""The representatives in every bucket of `values`, by seniority from 0.

Documents with the same text share every band, so a bucket knows its texts' representatives by itself.
"""


def _define_edges(on: Relations, name: str, ids: str, config: MinHashConfig) -> None:
    """Defines all edges of the documents in the table `ids`: left_id, right_id, jaccard.

    Their bands are looked up among all, from the small side. Defines `{name}_compared` on the way, where
    `hot` counts the hot buckets whose most senior member and first member beyond the limit a pair is: each
    hot bucket has exactly one such pair, so the sum counts hot buckets without a pass of its own.
    """
    on.define(f"{name}_values", f"SELECT DISTINCT band FROM ({_BANDS.replace('{ids}', f'{{{ids}}}')})")
    on.define(
        f"{name}_ranked",
        f"""
        SELECT r.tenant, r.band, r.doc_id, r.place, i.doc_id IS NOT NULL AS due
        FROM ({_RANKED.replace("{values}", f"{{{name}_values}}")}) AS r
        LEFT JOIN {{{ids}}} AS i ON r.doc_id = i.doc_id
        """,
        reused=True,
    )
    on.define(
        f"{name}_pairs",
        f"""
        SELECT a.doc_id AS left_id, b.doc_id AS right_id, bool_or(a.due OR b.due) AS wanted,
            CAST(count_if(a.place = 0 AND b.place = {{hot_bucket}}) AS BIGINT) AS hot
        FROM {{{name}_ranked}} AS a JOIN {{{name}_ranked}} AS b
            ON a.tenant = b.tenant AND a.band = b.band AND a.place < b.place
        WHERE a.place < {{hot_bucket}} AND (a.due OR b.due OR (a.place = 0 AND b.place = {{hot_bucket}}))
        GROUP BY a.doc_id, b.doc_id
        """,
        hot_bucket=config.hot_bucket,
    )
    define_similarities(on, f"{name}_compared", f"{name}_pairs", config)
    on.define(
        name,
        f"SELECT left_id, right_id, jaccard FROM {{{name}_compared}} "
        "WHERE wanted AND jaccard >= CAST({threshold} AS DOUBLE)",
        threshold=config.jaccard_threshold,
    )


def _define_dirty(on: Relations, config: MinHashConfig) -> None:
    """Defines `dirty`: the documents whose edges may differ from those that `previous` was made from."""
    # Each change moves others in its bucket by one place at most. Bands are counted over all tenants, which
    # can only widen the window.
    on.define(
        "moved",
        """
        SELECT band, count(*) AS moves FROM (
            {changed_bands} UNION ALL SELECT explode(bands) AS band FROM {replaced}
        ) GROUP BY band
        """.replace("{changed_bands}", _BANDS.replace("{ids}", "{changed}")),
    )
    on.define(
        "crossing",
        f"""
        SELECT DISTINCT doc_id FROM ({_RANKED.replace("{values}", "{moved}")}) JOIN {{moved}} USING (band)
        WHERE place >= {{hot_bucket}} - moves AND place < {{hot_bucket}} + moves
        """,
        hot_bucket=config.hot_bucket,
    )
    # Where a changed document is now the representative of a text, those that shared it before follow.
    on.define("sharing", _SHARING_TEXT.replace("{ids}", "{changed}") + " WHERE doc_id <> matched_id")
    on.define(
        "seeds",
        """
        SELECT doc_id FROM {changed} UNION SELECT doc_id FROM {crossing}
        UNION SELECT s.doc_id FROM {sharing} AS s JOIN {changed} AS c ON s.matched_id = c.doc_id
        """,
    )
    # An exact duplicate hangs on its cluster by one edge of its own: without it the others are as they were.
    on.define(
        "broken",
        """
        WITH joints AS (
            SELECT doc_id FROM {seeds}
            ANTI JOIN (SELECT doc_id FROM {previous} WHERE method = 'exact') USING (doc_id)
        )
        SELECT canonical_id FROM {previous} SEMI JOIN joints USING (doc_id)
        UNION SELECT p.canonical_id FROM {previous} AS p JOIN joints AS j ON p.canonical_id = j.doc_id
        """,
    )
    on.define(
        "dirty",
        """
        SELECT doc_id FROM {seeds} UNION SELECT canonical_id FROM {broken}
        UNION SELECT doc_id FROM {previous} SEMI JOIN {broken} USING (canonical_id)
        """,
        reused=True,
    )
