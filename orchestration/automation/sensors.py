"""The sensors: files that arrive, runs that died or failed, and assets whose inputs changed."""

import dagster as dg

from assets.dagster.metadata import asset_key
from assets.dagster.sources import AS_READ, follow_sources, sources_state_digest
from assets.lake.tables import RAW_DOCUMENTS
from assets.sources.source_config import SourceError
from assets.sources.source_reader import list_local_source, source_state_digest
from assets.sources.source_registry import SourceRegistry
from orchestration.automation.alerts import FailureAlert
from orchestration.automation.dead_runs import end_dead_runs
from orchestration.automation.jobs import refresh_job
from orchestration.services.run_texts import run_name


@dg.sensor(
    name="arrivals",
    job=refresh_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run when a file of a local source is added, changed or deleted.",
)
def arrivals_sensor(
    context: dg.SensorEvaluationContext, sources: dg.ResourceParam[SourceRegistry]
) -> dg.SensorResult | dg.SkipReason:
    """Starts a run if a local source differs from what the last run has read, whoever started that.

    The cursor holds one line per source, its name and its digest, for which this sensor started a run: one
    that failed is not started again and again. A source that can not be listed keeps its line, so that no run
    starts when it becomes unreachable, or reachable again without a change. The partitions of
    `bronze/source_documents` follow the sources here as well.
    """
    last = {line.partition("=")[0]: line for line in (context.cursor or "").splitlines()}
    digests, kept, unreachable = dict[str, str](), list[str](), list[str]()
    registered = sources.list()
    follow_sources(context.instance, [source.name for source in registered])
    for source in registered:
        try:
            listing = list_local_source(source)
        except SourceError as error:
            unreachable.append(str(error))
            kept += [last[source.name]] if source.name in last else []
            continue
        if listing is not None:
            digests[source.name] = source_state_digest(source, listing)
    cursor = "\n".join(sorted([*kept, *(f"{name}={digest}" for name, digest in digests.items())]))
    if not cursor:
        return dg.SkipReason("; ".join(unreachable) or "no source on this machine: headwater source add")
    if cursor == (context.cursor or ""):
        return dg.SkipReason("; ".join(["nothing new", *unreachable]))
    if sources_state_digest(digests) == _last_read(context.instance):
        reason = "; ".join(["the last run has read what is there", *unreachable])
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    if context.instance.get_runs_count(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
        )
    ):
        return dg.SkipReason("a run is in progress; the sensor looks again when it has ended")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=cursor)


def _last_read(instance: dg.DagsterInstance) -> str | None:
    """Returns the digest of the local sources as the last run has read them; None before the first run."""
    event = instance.get_latest_materialization_event(asset_key(RAW_DOCUMENTS.name))
    made = event.asset_materialization if event else None
    digest = made.metadata.get(AS_READ) if made else None
    return str(digest.value) if digest else None


@dg.sensor(
    name="reaper",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs of this host whose process was killed: they would hold their pool for ever.",
)
def dead_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Ends the runs whose process died on this host."""
    dead = end_dead_runs(context.instance)
    return dg.SkipReason(f"ended {', '.join(dead)}" if dead else "every run in progress has its process")


@dg.run_failure_sensor(
    name="alerts",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends an alert about a failed run to HEADWATER_ALERT_WEBHOOK and HEADWATER_ALERT_COMMAND.",
)
def failed_run_sensor(
    context: dg.RunFailureSensorContext, alert: dg.ResourceParam[FailureAlert]
) -> dg.SkipReason | None:
    """Sends an alert about a failed run: its id, job and failed steps, and no content of documents."""
    if not alert.is_configured:
        return dg.SkipReason("no alert is configured: set HEADWATER_ALERT_WEBHOOK or HEADWATER_ALERT_COMMAND")
    failed = [event.step_key for event in context.get_step_failure_events() if event.step_key]
    alert.send(
        {
            "run_id": context.dagster_run.run_id,
            "job": run_name(context.dagster_run),
            "failed": ", ".join(failed) or "no step: the run itself",
            "message": next(iter((context.failure_event.message or "").splitlines()), "")[:500],
        }
    )
    return None


automation_sensor = dg.AutomationConditionSensorDefinition(
    "automations",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Materializes the assets that depend on one whose data changed and whose gate passed.",
)
