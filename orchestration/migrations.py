"""Migrations of the state folder: an older one is brought to this version, a newer one is left alone."""

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

from assets.engine_releases import adopt_engine_releases
from assets.lake.lake import Lake
from assets.lake.tables import ENGINE_RELEASES
from common.atomic_files import atomic_file
from retrieval.index.release_log import ReleaseLog
from retrieval.store.postgres import Postgres, PostgresConfig
from training.registry.live import adopt_live_adapters
from training.registry.live_adapters import is_generator
from training.registry.versions import ModelRegistry


def close_state_folder(home: Path) -> None:
    """Removes all access to a state folder and its contents except the owner's; follows no links."""
    for folder, _, files in os.walk(home):
        for path in (Path(folder), *(Path(folder) / name for name in files)):
            with contextlib.suppress(FileNotFoundError):  # a service's, which comes and goes
                mode = path.lstat().st_mode
                if not stat.S_ISLNK(mode) and mode & 0o077:
                    path.chmod(stat.S_IMODE(mode) & 0o700)


def _adopt_decisions(home: Path, lake: Lake, config: PostgresConfig) -> None:
    """Adds to the release log what tables and folders said before it; starts PostgreSQL for that."""
    lake.conform_columns()
    registry = ModelRegistry(home / "models")
    adapters = any(registry.aliases(name).live for name in registry.names() if is_generator(name))
    engines = lake.query("select 1 from t limit 1", t=lake.delta(ENGINE_RELEASES.name))
    if adapters or len(engines):
        with contextlib.closing(Postgres(home, config)) as postgres:
            log = ReleaseLog(postgres)
            adopt_live_adapters(registry, log)
            adopt_engine_releases(lake, log)


def _conform_columns(_: Path, lake: Lake, __: PostgresConfig) -> None:
    lake.conform_columns()


MIGRATIONS: dict[int, Callable[[Path, Lake, PostgresConfig], None]] = {
    **dict.fromkeys(range(3, 14), _conform_columns),
    # Only the owner reads it.
    4: lambda home, _, __: close_state_folder(home),
    # The release log says which engine and which adapters answer.
    14: _adopt_decisions,
    15: _conform_columns,
}
"""The step that leads to each version, by version. Each can run again after it was interrupted.

A column that is added to a declared table, or whose comment changes, needs a step too: `Lake.conform_columns`
brings older folders to it.
"""

STATE_VERSION = max(MIGRATIONS)


class NewerStateFolder(RuntimeError):
    """The state folder was made by a newer Headwater than this one."""


def state_folder_version(home: Path) -> int:
    """Returns the version of a state folder; 0 for a new one.

    Raises:
        NewerStateFolder: It is of a later version than this Headwater knows.
    """
    file = home / "state.json"
    version: int = json.loads(file.read_text())["version"] if file.is_file() else 0
    if version > STATE_VERSION:
        raise NewerStateFolder(
            f"{home} has state version {version} and this Headwater knows {STATE_VERSION}: update Headwater, "
            "or name another folder with HEADWATER_HOME"
        )
    return version


def migrate_state_folder(home: Path, lake: Lake, postgres: PostgresConfig | None = None) -> None:
    """Runs the migrations that a state folder has not had, in order; a new folder gets the newest version.

    Args:
        home: The state folder.
        lake: Its tables; those that are missing are made.
        postgres: Where its database is; None for the embedded one.

    Raises:
        NewerStateFolder: The folder is of a later version; nothing was touched.
    """
    file = home / "state.json"
    version = state_folder_version(home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lake.ensure()
    for number, migrate in sorted(MIGRATIONS.items()):
        if number > version:
            migrate(home, lake, postgres or PostgresConfig())
            with atomic_file(file) as fresh:
                fresh.write_text(json.dumps({"version": number}) + "\n")
