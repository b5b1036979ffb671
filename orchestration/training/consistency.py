"""Having tables, aliases and MLflow follow the release log; what does not agree about models."""

from collections.abc import Callable

from assets.engine_releases import project_engine_releases
from assets.lake.releases import project_releases
from assets.model_consistency import ModelDiscrepancy, model_discrepancies
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.jobs.job import follow_models
from training.registry.live import follow_release_log


def rebuild_projections(settings: Settings, progress: Callable[[str], None]) -> list[str]:
    """Has `ops.releases`, `ops.engine_releases`, aliases and MLflow say what the release log says.

    Args:
        settings: The settings of the state folder.
        progress: Takes a line about what could not follow.

    Returns:
        What was behind, one item each: rows of a table, or the name of a model.
    """
    place = settings.training_place
    lake, index = open_configured_lake(settings), Index(Postgres(settings.home, settings.postgres))
    behind = [f"ops.releases: {rows} rows" for rows in [project_releases(lake, index.log)] if rows]
    behind += [
        f"ops.engine_releases: {rows} rows" for rows in [project_engine_releases(lake, index.log)] if rows
    ]
    behind += follow_release_log(place.registry, index)
    for name in place.registry.names():
        follow_models(place, name, progress)
    return behind


def check_models(settings: Settings, mend: bool, progress: Callable[[str], None]) -> list[ModelDiscrepancy]:
    """Returns what MLflow, the registry, training sets, the lake and the index do not agree about.

    Args:
        settings: The settings of the state folder.
        mend: Whether `rebuild_projections` comes first.
        progress: Takes a line about what could not be mended.
    """
    place = settings.training_place
    if not place.registry.names():
        return []
    if mend:
        rebuild_projections(settings, progress)
    lake, index = open_configured_lake(settings), Index(Postgres(settings.home, settings.postgres))
    return model_discrepancies(lake, index, place)
