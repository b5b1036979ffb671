"""What runs, what is live, how fresh it is, and what failed last."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from orchestration import services
from orchestration.runs import dagster_instance
from orchestration.settings import Settings
from retrieval.index import Index
from retrieval.postgres import Postgres

_RUNS_SHOWN = 5


@dataclass(frozen=True)
class RunRow:
    """One run, as the web UI has it."""

    run_id: str
    job: str
    state: str
    started_at: str | None
    seconds: float | None


@dataclass(frozen=True)
class Whole:
    """The state of one state folder.

    Attributes:
        services: Each service.
        live: The live release, its age and its quality; None before the first.
        runs: The newest runs.
    """

    services: list[services.Status]
    live: dict[str, Any] | None
    runs: list[RunRow]

    def to_dict(self) -> dict[str, Any]:
        """As `headwater status --json` prints it."""
        return asdict(self)


def status(settings: Settings) -> Whole:
    """Looks at a state folder; starts nothing."""
    found = services.status(settings)
    live = None
    if any(each.service == "postgres" and each.healthy for each in found):
        release = Index(Postgres(settings.home, settings.postgres)).live()
        if release is not None:
            age = datetime.now(UTC) - release.released_at
            live = {
                "release": release.release_id,
                "released_at": release.released_at.isoformat(timespec="seconds"),
                "age_h": round(age.total_seconds() / 3600, 1),
                "ndcg@10": round(release.details["metrics"]["ndcg@10"], 3),
            }
    with dagster_instance(settings) as instance:
        records = instance.get_run_records(limit=_RUNS_SHOWN)
    return Whole(found, live, [_run(record) for record in records])


def _run(record: dg.RunRecord) -> RunRow:
    begun, ended = record.start_time, record.end_time
    return RunRow(
        run_id=record.dagster_run.run_id,
        job=record.dagster_run.job_name,
        state=record.dagster_run.status.value,
        started_at=datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds") if begun else None,
        seconds=round(ended - begun, 1) if begun and ended else None,
    )
