"""The schedules: `daily` reads every source again, `nightly` does the housekeeping."""

import dagster as dg

from orchestration.automation.jobs import maintenance_job, refresh_job

daily_schedule = dg.ScheduleDefinition(
    name="daily",
    job=refresh_job,
    cron_schedule="0 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads every source again, also those that no sensor watches.",
)

nightly_schedule = dg.ScheduleDefinition(
    name="nightly",
    job=maintenance_job,
    cron_schedule="0 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compaction, VACUUM after the retention time, ANALYZE.",
)
