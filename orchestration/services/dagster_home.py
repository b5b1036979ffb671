"""DAGSTER_HOME of a state folder: settings of Dagster, its instance, and the heartbeats of its daemon."""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common.atomic_files import atomic_file
from common.rooms import ROOMS
from orchestration.services.logs import run_log_settings

if TYPE_CHECKING:
    import dagster as dg

    from orchestration.settings import Settings

_KINDS = 3
"""The least number of kinds of daemons (sensors, schedules, the queue of runs …) that have to beat."""
_BEAT_HOLDS_S = 90
"""A daemon beats every 30 s."""


def dagster_home_settings(
    home: Path, log_format: str, lineage: dict[str, object] | None = None
) -> dict[str, object]:
    """Returns the content of `dagster.yaml`.

    Args:
        home: DAGSTER_HOME; runs, events and schedules are kept in it, in SQLite.
        log_format: "json" also writes the log of runs as JSON.
        lineage: The log handler that tells an OpenLineage endpoint of runs; None for none.
    """
    followed = run_log_settings(home.parent / "logs" / "runs.jsonl") if log_format == "json" else {}
    if lineage is not None:
        followed.setdefault("dagster_handler_config", {"handlers": {}})["handlers"]["openlineage"] = lineage
    return {
        "python_logs": {
            # What our own modules log during a run is part of the run's log.
            "managed_python_loggers": list(ROOMS),
            "python_log_level": "INFO",
            **followed,
        },
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},  # asks for an e-mail address
        "storage": {"sqlite": {"base_dir": str(home)}},
        "concurrency": {
            # By op, not by run: a run that only reads does not wait for another's Spark.
            "pools": {"default_limit": 1, "granularity": "op"},
            "runs": {"max_concurrent_runs": 2},
        },
        # Fails runs that never started, and frees the pool of those whose process died.
        "run_monitoring": {
            "enabled": True,
            "start_timeout_seconds": 300,
            "cancel_timeout_seconds": 60,
            "free_slots_after_run_end_seconds": 30,
        },
        # A sensor that ticks every half minute leaves a million ticks per year.
        "retention": {
            "schedule": {"purge_after_days": 90},
            "sensor": {
                "purge_after_days": {"skipped": 1, "success": 30, "failure": 90, "started": 1},
            },
            "auto_materialize": {
                "purge_after_days": {"skipped": 1, "success": 30, "failure": 90, "started": 1},
            },
        },
    }


def write_dagster_home(
    home: Path, log_format: str = "text", lineage: dict[str, object] | None = None
) -> Path:
    """Creates a folder for DAGSTER_HOME with its `dagster.yaml`; doing it again changes nothing.

    Args:
        home: The folder, in the state folder.
        log_format: As `Settings` has it.
        lineage: As `dagster_home_settings` has it.

    Returns:
        The path of `dagster.yaml`.
    """
    home.mkdir(parents=True, exist_ok=True)
    if log_format == "json":
        (home.parent / "logs").mkdir(exist_ok=True)
    path = home / "dagster.yaml"
    text = "# Written by Headwater at every start; set what you need through HEADWATER_* instead.\n"
    text += json.dumps(dagster_home_settings(home, log_format, lineage), indent=2) + "\n"  # JSON is YAML too
    if not path.is_file() or path.read_text() != text:
        with atomic_file(path) as fresh:
            fresh.write_text(text)
    return path


def write_configured_dagster_home(settings: "Settings") -> Path:
    """Writes the folder of a state folder as its settings say; returns the path of `dagster.yaml`."""
    lineage = None
    if settings.openlineage_url:
        from orchestration.openlineage.dagster_events import lineage_handler_settings

        lineage = lineage_handler_settings(settings.openlineage_url, settings.lake_root, settings.home)
    return write_dagster_home(settings.dagster_home, settings.log_format, lineage)


@contextmanager
def dagster_home_instance(settings: "Settings") -> Iterator["dg.DagsterInstance"]:
    """Opens the Dagster instance of a state folder: its runs, events and schedules."""
    import dagster as dg

    write_configured_dagster_home(settings)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    warnings.filterwarnings("ignore", "Handling yaml-defined logging", dg.BetaWarning)  # the JSON log
    with dg.DagsterInstance.get() as instance:
        yield instance


class DaemonBeats:
    """Tells whether Dagster's daemon works by whether its heartbeats change, so by no clock that can be set.

    Args:
        dagster_home: DAGSTER_HOME.
        works: Whether the daemon counts as working until its heartbeats could have changed; else it does from
            the first heartbeats that were not there yet.
    """

    def __init__(self, dagster_home: Path, *, works: bool = False) -> None:
        self._home = dagster_home
        self._seen = self._read()
        self._changed_s = dict.fromkeys(self._seen, time.monotonic()) if works else {}

    def beating(self) -> bool:
        """Looks again; returns whether each kind of daemon beat within the last minute and a half.

        A heartbeat that reports an error counts: the daemon works, and the web UI shows which tick failed.
        """
        now_s, found = time.monotonic(), self._read()
        self._changed_s |= {kind: now_s for kind, beat in found.items() if self._seen.get(kind) != beat}
        self._seen = found
        return sum(now_s - changed_s < _BEAT_HOLDS_S for changed_s in self._changed_s.values()) >= _KINDS

    def _read(self) -> dict[str, tuple[str | None, float]]:
        from dagster import DagsterInstance

        with DagsterInstance.from_config(str(self._home)) as instance:
            beats = instance.get_daemon_heartbeats()
        return {kind: (beat.daemon_id, beat.timestamp) for kind, beat in beats.items()}


if __name__ == "__main__":
    from orchestration.settings import Settings

    write_configured_dagster_home(Settings(home=Path(sys.argv[1]).parent))
