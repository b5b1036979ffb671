"""Decisions about quarantined documents: which a person released, and which are parsed once more."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import QUARANTINE_DECISIONS
from common.lineage import Lineage

QuarantineDecision = Literal["release", "rerun"]


def record_quarantine_decisions(lake: Lake, doc_ids: Collection[str], decision: QuarantineDecision) -> None:
    """Appends one decision about some documents to `ops.quarantine_decisions`; the next run follows it."""
    decided_at = lake.stamp(QUARANTINE_DECISIONS, "decided_at")
    rows = [{"doc_id": doc_id, "decision": decision, "decided_at": decided_at} for doc_id in doc_ids]
    lineage = Lineage(
        run_id=f"{decision} at {datetime.now(UTC).isoformat(timespec='seconds')}",
        asset="ops/quarantine_decisions",
        code_version=CODE_VERSION,
        config_digest="",
        inputs={},
        fence=lake.fencing_token(QUARANTINE_DECISIONS) + 1,
    )
    schema = QUARANTINE_DECISIONS.schema
    lake.append(QUARANTINE_DECISIONS, pa.Table.from_pylist(rows, schema), lineage)


def quarantine_decisions_version(lake: Lake) -> int:
    """Returns the version of `ops.quarantine_decisions` with the newest decision; 0 where there is none."""
    last = lake.last_commit(QUARANTINE_DECISIONS.name)
    return last.version if last else 0
