"""The status of a state folder: what runs, what is live, how old it is, and what is wrong."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from assets.bronze import SOURCES_READ
from assets.dagster.metadata import asset_key
from assets.engine_releases import engine_releases, engine_standing, stored_engine_releases
from assets.lake.lake import Lake
from assets.lake.tables import AUDITS, RAW_DOCUMENTS, RELEASES
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.learned import learned_versions
from common.redaction import redact_urls
from inference.engines.generator import engine_name
from orchestration.configured_parts import missing_model_files
from orchestration.services import lifecycle
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.services.run_texts import run_failures, run_name
from orchestration.services.supervision.liveness import ASK_EVERY_S, MOST_UNANSWERED
from orchestration.services.supervision.service_definitions import POSTGRES, SUPERVISOR, service_log
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.store.postgres import DatabaseError, Postgres
from training.registry.addresses import EMBEDDER
from training.registry.versions import ModelRegistry

_RUNS_SHOWN = 5
_LOG_LINES = 3
NEARLY_FULL_BYTES = 1 << 30
"""With less room a run of a small lake can fail."""
_STARTS_S = 60
"""A service that runs for so long is not starting any more."""
_RECENT_CHECKS = 20
"""How many runs back the last reading of the sources is looked for."""
_FAILED = dg.DagsterRunStatus.FAILURE.value
_TELLING = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.RUN_FAILURE,
}
"""Events that say why a run failed."""
_LONGEST_REASON = 300


@dataclass(frozen=True)
class RunStatus:
    """One run, as the web UI shows it; `started_at` is in ISO 8601, `seconds` is None while it goes on."""

    run_id: str
    job: str
    state: str
    started_at: str | None
    seconds: float | None


@dataclass(frozen=True)
class LiveReleaseStatus:
    """The release that is served.

    Attributes:
        release: Its id.
        released_at: In ISO 8601.
        age_h: Hours since it went live.
        ndcg_at_10: Its measured nDCG@10.
        decided_by: `gate`, or the person who had it go live.
        held: Who holds it, since when and why, so that no other goes live; None if nobody does.
    """

    release: str
    released_at: str
    age_h: float
    ndcg_at_10: float
    decided_by: str
    held: str | None

    def to_dict(self) -> dict[str, str | float | None]:
        """Returns it as `headwater status --json` prints it."""
        values = asdict(self)
        return {"ndcg@10" if name == "ndcg_at_10" else name: value for name, value in values.items()}


@dataclass(frozen=True)
class StateStatus:
    """The status of one state folder.

    Attributes:
        services: Each service.
        live: The live release; None before the first, and where PostgreSQL, which knows it, does not run.
        stored_release: The release that went live last by the tables; None before the first.
        engine: The name of the engine that answers.
        runs: The newest runs.
        problems: What is wrong now: a sentence each, with what to do about it.
        models: Which model versions learned from documents that were removed since, a sentence each.
    """

    services: list[lifecycle.ServiceStatus]
    live: LiveReleaseStatus | None
    stored_release: str | None
    engine: str
    runs: list[RunStatus]
    problems: list[str]
    models: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as `headwater status --json` prints it."""
        return asdict(self) | {"live": self.live.to_dict() if self.live else None}


def state_status(settings: Settings) -> StateStatus:
    """Returns the status of a state folder; starts nothing."""
    found = lifecycle.service_statuses(settings)
    problems = service_problems(found, settings)
    problems += [*disk_problems(settings), *missing_model_files(settings)]
    live, log = None, None
    if any(each.service == POSTGRES and each.healthy for each in found):
        try:
            index = Index(Postgres(settings.home, settings.postgres))
            live, log = _live_release(index), engine_releases(index.log)
        except (DatabaseError, psycopg.Error) as error:
            problems.append(
                f"PostgreSQL does not say what is live ({error}): `headwater doctor` looks closer"
            )
    with dagster_home_instance(settings) as instance:
        records = instance.get_run_records(limit=_RUNS_SHOWN)
        unread = _sources_unread(instance)
        runs = [_run(record) for record in records]
        web = next(each.address for each in found if each.service == "web")
        problems += last_run_failed(instance, runs, web)
    away = sources_away(SourceRegistry(settings.sources_file).list())
    unread = {name: said for name, said in unread.items() if name not in away}
    problems += [*away.values(), *unread.values()]
    lake = open_configured_lake(settings)
    engines = engine_standing(stored_engine_releases(lake) if log is None else log, settings.generator)
    held = engines.held_because()
    problems += [*_gates_closed(lake), *([held] if held else [])]
    stored = _stored_release(lake)
    return StateStatus(
        found, live, stored, engine_name(engines.answering), runs, problems, _models(settings, lake)
    )


def service_problems(found: Sequence[lifecycle.ServiceStatus], settings: Settings) -> list[str]:
    """Returns a sentence per service with which something is wrong.

    While `headwater up` still starts services there is no supervisor yet, and nothing is wrong with that. One
    that was killed has left its report.
    """
    starting = any(each.wanted and not each.healthy and _has_just_begun(each) for each in found)
    starting = starting and not lifecycle.supervisor_report_file(settings).exists()
    judged = [each for each in found if not (starting and each.service == SUPERVISOR and each.pid is None)]
    return [sentence for each in judged if (sentence := service_problem(each, settings))]


def _has_just_begun(found: lifecycle.ServiceStatus) -> bool:
    return found.uptime_s is not None and found.uptime_s < _STARTS_S


def service_problem(found: lifecycle.ServiceStatus, settings: Settings) -> str | None:
    """Returns what is wrong with a service and what to do, in a sentence; None if nothing is.

    A service that nobody started, or that `headwater down` stopped, is as it should be.
    """
    name = found.service
    if not found.wanted or found.healthy:
        return None
    if found.fault:
        return (
            f"PostgreSQL at {found.address} can not be reached ({redact_urls(found.fault)}): start it, or "
            "mend HEADWATER_POSTGRES__URL"
        )
    if name == SUPERVISOR:
        state = "does not run" if found.pid is None else "does not answer"
        return f"the supervisor {state}, so no service that dies is started again: `headwater up`"
    log = service_log(settings, name)
    if found.given_up:
        return (
            f"{name} {found.given_up} and is not started again: mend what {log} says, then `headwater up`. "
            f"It ends: {_log_end(log)}"
        )
    supervised = lifecycle.read_supervisor_report(settings) is not None
    if found.pid is None and supervised:
        return f"{name} was killed and is being started again: `headwater status` in a few seconds"
    if found.pid is None:
        return f"{name} was killed and does not run: `headwater up`"
    if _has_just_begun(found):
        return f"{name} is starting, for {found.uptime_s:.0f} s now: `headwater status` in a few seconds"
    again = (
        f"it is started again once it has left {MOST_UNANSWERED} questions in a row unanswered, one every "
        f"{ASK_EVERY_S:g} s ({found.unanswered} so far); if that does not help, "
    )
    return (
        f"{name} runs but does not answer: see {log}; {again if supervised else ''}`headwater down`, then "
        "`headwater up`"
    )


def _log_end(log: Path) -> str:
    lines = log.read_text(errors="replace")[-3000:].splitlines() if log.is_file() else []
    return " | ".join([line.strip() for line in lines if line.strip()][-_LOG_LINES:])


def disk_problems(settings: Settings) -> list[str]:
    """Returns a sentence per disk of the state folder that is nearly full."""
    folders = [settings.home, settings.home / "postgres", Path(settings.lake_root)]
    disks = {folder.stat().st_dev: folder for folder in reversed(folders) if folder.is_dir()}
    return [
        f"the disk of {folder} is nearly full, {free_bytes / 1e6:,.0f} MB are free: make room there"
        for folder in disks.values()
        if (free_bytes := shutil.disk_usage(folder).free) < NEARLY_FULL_BYTES
    ]


def sources_away(sources: list[Source]) -> dict[str, str]:
    """Returns a sentence per local source that is not there now, by its name."""
    return {
        source.name: f"source {source.name} can not be read now (nothing at {source.location}): its "
        f"documents stay as they are; bring it back, or `headwater source remove {source.name}`"
        for source in sources
        if source.local_root is not None and not source.local_root.exists()
    }


def _stored_release(lake: Lake) -> str | None:
    rows = lake.query(
        """
        select release_id from releases where decision in ('released', 'promoted', 'rolled_back')
        order by decided_at desc limit 1
        """,
        releases=lake.delta(RELEASES.name),
    ).to_pylist()
    return rows[0]["release_id"] if rows else None


def _live_release(index: Index) -> LiveReleaseStatus | None:
    release, hold, move = index.live(), index.live_hold(), index.log.live("index")
    if release is None:
        return None
    age = datetime.now(UTC) - release.released_at
    return LiveReleaseStatus(
        release=release.release_id,
        released_at=release.released_at.isoformat(timespec="seconds"),
        age_h=round(age.total_seconds() / 3600, 1),
        ndcg_at_10=round(release.details.metrics["ndcg@10"], 3),
        decided_by=move.decided_by if move else "",
        held=str(hold) if hold else None,
    )


def last_run_failed(instance: dg.DagsterInstance, runs: list[RunStatus], web: str) -> list[str]:
    """Returns a sentence about the last run that ended, if it failed: where, why, and how to see more.

    Args:
        instance: Dagster's instance.
        runs: The newest runs, newest first.
        web: The address of the web UI.
    """
    ended = [run for run in runs if run.state in (dg.DagsterRunStatus.SUCCESS.value, _FAILED)]
    if not ended or ended[0].state != _FAILED:
        return []
    run = ended[0]
    entries = instance.all_logs(run.run_id, of_type=_TELLING)
    failures = run_failures([entry.dagster_event for entry in entries if entry.dagster_event])
    first = failures[0].strip().splitlines()[0] if failures else "no step says why"
    more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
    return [
        f"the last run, {run.run_id[:8]} ({run.job}), failed: {redact_urls(first)[:_LONGEST_REASON]}{more}; "
        f"all of it is at {web}/runs/{run.run_id} (`headwater up`); `headwater run` continues from what it "
        "committed"
    ]


def _sources_unread(instance: dg.DagsterInstance) -> dict[str, str]:
    """Returns a sentence per source that could not be read when the sources were read last, by its name."""
    key = dg.AssetCheckKey(asset_key(RAW_DOCUMENTS.name), SOURCES_READ)
    # A run that was only planned, or that did not come to the check, has nothing to say of it.
    evaluations = (
        each.evaluation
        for each in instance.event_log_storage.get_asset_check_execution_history(key, limit=_RECENT_CHECKS)
    )
    evaluation = next((each for each in evaluations if isinstance(each, dg.AssetCheckEvaluation)), None)
    if evaluation is None or evaluation.passed:
        return {}
    return {
        name: f"source {name} could not be read ({reason.value}): its documents are as they were; "
        "mend that, then `headwater run`"
        for name, reason in evaluation.metadata.items()
    }


def _gates_closed(lake: Lake) -> list[str]:
    """Returns a sentence per table whose newest audit failed: its consumers read an older version."""
    failed = lake.query(
        """
        select "table", version, array_to_string(failed, ', ') as failed from (
            select *, row_number() over (partition by "table" order by audited_at desc) as place from audits
        ) where place = 1 and not passed order by "table"
        """,
        audits=lake.delta(AUDITS.name),
    )
    return [
        f"the gate of {row['table']} is closed at version {row['version']} ({row['failed']}): its consumers "
        f"read the last version that passed; mend the cause, then `headwater run`"
        for row in failed.to_pylist()
    ]


def _models(settings: Settings, lake: Lake) -> list[str]:
    """Returns a sentence per model version that learned from removed documents, and what is done about it."""
    said = []
    for each in learned_versions(lake, ModelRegistry(settings.models_folder)):
        if not each.removed:
            continue
        what = "nothing is trained from it"
        if each.is_live:
            what = "it stays live until another is promoted (HEADWATER_LIVE_MODEL_WITH_REMOVED_DOCUMENTS)"
        if each.is_live and settings.live_model_with_removed_documents == "steps_down":
            what = (
                "the next run builds the index without it"
                if each.version.name == EMBEDDER
                else "with the next run the version before it answers, or the base, unless a hold keeps it"
            )
        said.append(f"{each}: {what}")
    return said


def _run(record: dg.RunRecord) -> RunStatus:
    begun, ended = record.start_time, record.end_time
    return RunStatus(
        run_id=record.dagster_run.run_id,
        job=run_name(record.dagster_run),
        state=record.dagster_run.status.value,
        started_at=datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds") if begun else None,
        seconds=round(ended - begun, 1) if begun and ended else None,
    )
