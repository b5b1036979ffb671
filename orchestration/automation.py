"""When the lake is brought up to date: every day, and when files arrive."""

import dagster as dg

from assets.transforms.fetched import listing_digest
from assets.transforms.registry import SourceError, SourceRegistry
from assets.transforms.sources import quick_listing

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
    """Compares each local source's listing with the one that the last run was started for."""
    digests, unreachable = [], []
    for source in sources.list():
        try:
            listing = quick_listing(source)
        except SourceError as error:
            unreachable.append(str(error))
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
            job_name=refresh.name,
            statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
        )
    ):
        return dg.SkipReason("a run is in progress; looking again when it is done")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=cursor)
