"""What happens without being asked: every day, every night, when files arrive, when a run fails or dies."""

from collections import Counter

import dagster as dg

from assets.lake.lake import Lake
from assets.lake.maintenance import needed_versions, tidy
from assets.lake.tables import TABLES
from assets.sources.fetched import listing_digest
from assets.sources.registry import SourceError, SourceRegistry
from assets.sources.sources import quick_listing
from orchestration.automation.alerts import Alert
from orchestration.automation.dead_runs import end_dead_runs
from retrieval.index.index import Index

refresh = dg.define_asset_job(
    "refresh", dg.AssetSelection.all(), description="Everything, from the sources to the release."
)

daily = dg.ScheduleDefinition(
    name="daily",
    job=refresh,
    cron_schedule="0 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads every source again, those that no sensor watches among them.",
)


@dg.sensor(
    job=refresh,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run when a file of a local source came, changed or went.",
)
def arrivals(
    context: dg.SensorEvaluationContext, sources: dg.ResourceParam[SourceRegistry]
) -> dg.SensorResult | dg.SkipReason:
    """Compares each local source's listing with the one that the last run was started for.

    The cursor holds a line per source: its name, its digest and that of its listing. A source that can not be
    listed keeps its line, so that neither its going nor its coming back unchanged starts a run.
    """
    last = {line.partition("=")[0]: line for line in (context.cursor or "").splitlines()}
    digests, unreachable = [], []
    for source in sources.list():
        try:
            listing = quick_listing(source)
        except SourceError as error:
            unreachable.append(str(error))
            digests += [last[source.name]] if source.name in last else []
            continue
        if listing is not None:
            digests.append(f"{source.name}={source.digest}={listing_digest(listing)}")
    cursor = "\n".join(digests)
    if not digests:
        return dg.SkipReason("; ".join(unreachable) or "no source on this machine: headwater source add")
    if cursor == (context.cursor or ""):
        return dg.SkipReason("; ".join(["nothing new", *unreachable]))
    if context.instance.get_runs_count(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
        )
    ):
        return dg.SkipReason("a run is in progress; looking again when it is done")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=cursor)


@dg.op(pool="spark", description="Compacts tables, deletes files that nothing needs, cleans the index.")
def tidy_up(
    context: dg.OpExecutionContext,
    lake: dg.ResourceParam[Lake],
    search_index: dg.ResourceParam[Index],
    retention_days: dg.ResourceParam[int],
) -> None:
    """Keeps the state folder as large as what it holds. No asset writes meanwhile: it has their pool."""
    state = search_index.newest_state()
    needed = needed_versions(lake, search_index.releases(), [state.lineage["inputs"]] if state else [])
    done = [tidy(lake, name, needed[name], retention_days) for name in TABLES]
    totals = Counter({"files_removed": sum(each.files_removed for each in done)})
    totals |= Counter({f"{each.table} files": each.files_after for each in done})
    context.add_output_metadata({**totals, **search_index.maintain()})


@dg.job(description="Nightly housekeeping; changes no row.")
def maintenance() -> None:
    """One op, so that it holds the pool from start to end."""
    tidy_up()


nightly = dg.ScheduleDefinition(
    name="nightly",
    job=maintenance,
    cron_schedule="0 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compaction, VACUUM after the retention time, ANALYZE.",
)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process was killed: they would hold their pool for ever.",
)
def reaper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Looks for the process of every run in progress."""
    dead = end_dead_runs(context.instance)
    return dg.SkipReason(f"ended {', '.join(dead)}" if dead else "every run in progress has its process")


@dg.run_failure_sensor(
    name="alerts",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of a failed run, by HEADWATER_ALERT_WEBHOOK or HEADWATER_ALERT_COMMAND.",
)
def alerts(context: dg.RunFailureSensorContext, alert: dg.ResourceParam[Alert]) -> dg.SkipReason | None:
    """Sends the run, its job and what failed in it; nothing of any document."""
    if not alert.wanted:
        return dg.SkipReason("nobody is to be told: set HEADWATER_ALERT_WEBHOOK or HEADWATER_ALERT_COMMAND")
    failed = [event.step_key for event in context.get_step_failure_events() if event.step_key]
    alert.send(
        {
            "run_id": context.dagster_run.run_id,
            "job": context.dagster_run.job_name,
            "failed": ", ".join(failed) or "no step: the run itself",
            "message": (context.failure_event.message or "").splitlines()[0][:500],
        }
    )
    return None


automations = dg.AutomationConditionSensorDefinition(
    "automations",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes what follows from an asset whose data changed and whose gate held.",
)
