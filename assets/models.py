"""Models: versions of what is trained on the training sets of tenants.

`models/embedder` trains the embedder on the newest training set of a tenant, a partition each. It is made
when somebody asks for it, never by a run of the lake, and what it makes is served only after `headwater
models promote`.
"""

import dagster as dg

from assets.dagster.metadata import asset_key
from assets.dagster.models import MODEL_GROUP, TRAINING_TENANTS, comparison_result, model_result
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import TRAINING_EXAMPLES
from assets.model_consistency import model_discrepancies
from assets.training_sets.learned import require_base_without_removed
from assets.training_sets.snapshots import mark_removed
from retrieval.embedding.config import packaged_embedding_model
from retrieval.index.index import Index
from training.place import TrainingPlace
from training.registry.addresses import EMBEDDER, embedder_folder

EMBEDDER_KEY = dg.AssetKey([MODEL_GROUP, EMBEDDER])


class EmbedderTrainingConfig(dg.Config):
    """What `headwater train embedder` takes as options; the launchpad of the web UI asks for it."""

    base: str | None = None
    """What is trained: a name, a version or a folder; all-MiniLM-L6-v2 unless given."""
    minutes: float = 15
    """The time that it may take."""
    seed: int = 0
    """Decides what comes when."""


@dg.asset(
    key=EMBEDDER_KEY,
    deps=[asset_key(TRAINING_EXAMPLES.name)],
    group_name=MODEL_GROUP,
    kinds={"pytorch", "mlflow"},
    code_version=CODE_VERSION,
    partitions_def=TRAINING_TENANTS,
    # One at a time, beside the runs of the lake: it uses neither Spark nor the index.
    pool="training",
    description="A version of the embedder, trained on the newest training set of a tenant that has one.",
)
def embedder_asset(
    context: dg.AssetExecutionContext,
    config: EmbedderTrainingConfig,
    lake: dg.ResourceParam[Lake],
    training_place: dg.ResourceParam[TrainingPlace],
) -> dg.MaterializeResult:
    """Trains the embedder and registers what comes out; killed, it goes on from its last checkpoint."""
    # Torch takes seconds to import, and the code server needs none.
    from training.jobs.embedder_job import run_embedder_job
    from training.jobs.learned import learned_of_tenant
    from training.jobs.outcomes import training_curves
    from training.jobs.plan import EmbedderTraining

    mark_removed(lake, training_place.datasets)
    base = config.base
    folder = embedder_folder(training_place.models, base) if base else packaged_embedding_model()
    require_base_without_removed(lake, training_place.registry, folder)
    version = run_embedder_job(
        training_place,
        learned_of_tenant(training_place.datasets, context.partition_key),
        folder,
        base,
        EmbedderTraining(minutes=config.minutes, seed=config.seed),
        CODE_VERSION,
        context.log.info,
    )
    curves = training_curves(training_place.jobs)
    return model_result(EMBEDDER_KEY, version, curves.get(version.lineage.run_id, {}))


@dg.asset_check(
    asset=dg.AssetKey(["ops", "release"]),
    name="models_agree",
    description="MLflow, the registry, training sets, the lake and the index say the same about models.",
)
def models_agree_asset_check(
    lake: dg.ResourceParam[Lake],
    search_index: dg.ResourceParam[Index],
    training_place: dg.ResourceParam[TrainingPlace],
) -> dg.AssetCheckResult:
    """Compares what each says about models; what does not agree is a warning that names what mends it."""
    found = model_discrepancies(lake, search_index, training_place)
    versions = [
        each for name in training_place.registry.names() for each in training_place.registry.versions(name)
    ]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(map(str, found)) or f"{len(versions)} model versions: all agree",
        metadata={"versions": len(versions), "discrepancies": len(found)},
    )


@dg.asset_check(
    asset=EMBEDDER_KEY,
    name="compared_with_live",
    description="What `headwater models compare` found of the newest version, beside the model that is live.",
)
def embedder_compared_asset_check(training_place: dg.ResourceParam[TrainingPlace]) -> dg.AssetCheckResult:
    """Shows the newest verdict on the newest version; without one it passes, and says how to get one."""
    return comparison_result(training_place.registry, EMBEDDER)
