"""Audits: the verdicts of gates on versions of tables, and the version of a table that may be read."""

import pyarrow as pa
from pydantic import BaseModel

from assets.columns import Table
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import AUDITS
from common.lineage import Lineage


class Unaudited(RuntimeError):
    """A gated table has no version that passed its gate."""


class TableAudit(BaseModel, frozen=True):
    """A row of `ops.audits`: a gate's verdict on one version of a table.

    Attributes:
        table: `layer.table`.
        passed: Whether consumers may read it.
        failed: The names of the expectations that failed; if the version passed, only warnings.
        run_id: The Dagster run of the gate.
    """

    table: str
    version: int
    passed: bool
    failed: list[str]
    run_id: str


def record_audit(
    lake: Lake,
    name: str,
    version: int,
    passed: bool,
    failed: list[str],
    run_id: str,
    suites_digest: str = "",
) -> None:
    """Appends a gate's verdict on a version of a table to `ops.audits`, with the users' suites' digest."""
    audit = TableAudit(table=name, version=version, passed=passed, failed=failed, run_id=run_id)
    row = audit.model_dump() | {"audited_at": lake.stamp(AUDITS, "audited_at")}
    lineage = Lineage(
        run_id=run_id,
        asset="ops/audits",
        code_version=CODE_VERSION,
        config_digest=suites_digest,
        inputs={name: version},
    )
    lake.append(AUDITS, pa.Table.from_pylist([row], AUDITS.schema), lineage)


def last_audit(lake: Lake, name: str, version: int) -> TableAudit | None:
    """Returns the newest verdict on a version of a table, or None if the version was not audited."""
    rows = lake.query(
        """
        select * from audits where "table" = ? and version = ? order by audited_at desc limit 1
        """,
        [name, version],
        audits=lake.delta(AUDITS.name),
    ).to_pylist()
    return TableAudit.model_validate(rows[0]) if rows else None


def audited_version(lake: Lake, name: str) -> int | None:
    """Returns the newest version of a table whose last audit passed, or None."""
    audits = lake.query(
        """
        select max(version) as version from (
            select version from audits where "table" = ? group by version
            having arg_max(passed, audited_at)
        )
        """,
        [name],
        audits=lake.delta(AUDITS.name),
    )
    version = audits["version"][0].as_py()
    return None if version is None else lake.settled_version(name, version)


def readable_version(lake: Lake, table: Table) -> int:
    """Returns the version that consumers may read: of a gated table the newest that passed, else the newest.

    Raises:
        Unaudited: When the table is gated and no version of it has passed.
    """
    if not table.gated:
        return lake.version(table.name)
    version = audited_version(lake, table.name)
    if version is None:
        raise Unaudited(
            f"{table.name} has no version that passed its gate: run it with its checks "
            f"(`headwater run`), or see what failed with "
            f'`headwater sql "select * from ops.audits where not passed"`'
        )
    return version
