"""Whether the code server has to load the definitions anew, because what they are made from has changed."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.settings import Settings

_QUIET_S = 5.0
"""Seconds after a change in which another may follow: many sources that are added are loaded once."""


class DefinitionFiles:
    """Watches the sources and the users' suites, of which the web UI shows an asset or a check each.

    Args:
        settings: The settings of the state folder.
    """

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._loaded = self._seen = self._changed_ns()
        self._due_s = 0.0

    def outdated(self, now_s: float) -> bool:
        """Returns whether a change has settled that the code server does not know; asked again and again.

        Args:
            now_s: The time on a clock that nobody sets.
        """
        changed_ns = self._changed_ns()
        if changed_ns != self._seen or self._busy(now_s):
            self._seen, self._due_s = changed_ns, now_s + _QUIET_S
        return self._seen != self._loaded and now_s >= self._due_s

    def load(self) -> None:
        """Records that the code server, which is started again, knows what was seen last."""
        self._loaded = self._seen

    def _busy(self, now_s: float) -> bool:
        """Returns whether a run, which would end with the code server, is on its way when it is time."""
        if self._seen == self._loaded or now_s < self._due_s:
            return False
        import dagster as dg

        unfinished = dg.RunsFilter(
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
                dg.DagsterRunStatus.CANCELING,
            ]
        )
        with dg.DagsterInstance.from_config(str(self._settings.dagster_home)) as instance:
            return instance.get_runs_count(unfinished) > 0

    def _changed_ns(self) -> dict[Path, int]:
        """Returns when each file was changed from which definitions are made."""
        suites = sorted(self._settings.user_suites_folder.rglob("*.json"))
        return {
            file: file.stat().st_mtime_ns for file in [self._settings.sources_file, *suites] if file.is_file()
        }
