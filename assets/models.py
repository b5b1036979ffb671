"""Models: versions of what is trained on the training sets of tenants.

`models/embedder` and `models/generator` train on the newest training set of a tenant, a partition each. They
are made when somebody asks for it, never by a run of the lake, and what they make is served only after
`headwater models promote`.
"""

from collections.abc import Callable

import dagster as dg

from assets.dagster.metadata import asset_key
from assets.dagster.models import (
    MODEL_GROUP,
    TRAINING_TENANTS,
    comparison_result,
    model_key,
    model_metadata,
)
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import TRAINING_EXAMPLES
from assets.model_consistency import model_discrepancies
from assets.training_sets.learned import require_base_without_removed
from assets.training_sets.snapshots import mark_removed
from inference.engines.generator import EngineConfig
from retrieval.embedding.config import packaged_embedding_model
from retrieval.index.index import Index
from training.place import TrainingPlace
from training.registry.addresses import EMBEDDER, embedder_folder
from training.registry.live_adapters import GENERATOR, is_generator
from training.registry.versions import ModelVersion


class TrainingConfig(dg.Config):
    """What `headwater train` takes as options; the launchpad of the web UI asks for it."""

    base: str | None = None
    """What is trained, as the command has it; its default unless given."""
    dataset: str | None = None
    """The snapshot that it learns from, NAME or NAME@DIGEST; the newest of the tenant unless given."""
    minutes: float = 15
    """The time that it may take."""
    seed: int = 0
    """Decides what comes when."""


def _training_asset(
    name: str, description: str
) -> Callable[[Callable[..., dg.MaterializeResult]], dg.AssetsDefinition]:
    """Returns what makes an asset of a function that trains a model for a tenant."""
    return dg.asset(
        key=model_key(name),
        deps=[asset_key(TRAINING_EXAMPLES.name)],
        group_name=MODEL_GROUP,
        kinds={"pytorch", "mlflow"},
        code_version=CODE_VERSION,
        partitions_def=TRAINING_TENANTS,
        # One at a time, beside the runs of the lake: it uses neither Spark nor the index.
        pool="training",
        description=description,
    )


@_training_asset(
    EMBEDDER, "A version of the embedder, trained on the newest training set of a tenant that has one."
)
def embedder_asset(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    lake: dg.ResourceParam[Lake],
    training_place: dg.ResourceParam[TrainingPlace],
) -> dg.MaterializeResult:
    """Trains the embedder and registers what comes out; killed, it goes on from its last checkpoint."""
    # Torch takes seconds to import, and the code server needs none.
    from training.jobs.embedder_job import run_embedder_job
    from training.jobs.learned import learned_of_tenants
    from training.jobs.plan import EmbedderTraining

    mark_removed(lake, training_place.datasets)
    base = config.base
    folder = embedder_folder(training_place.models, base) if base else packaged_embedding_model()
    require_base_without_removed(lake, training_place.registry, folder)
    version = run_embedder_job(
        training_place,
        learned_of_tenants(
            training_place.datasets, [context.partition_key], [config.dataset] if config.dataset else []
        ),
        folder,
        base,
        EmbedderTraining(minutes=config.minutes, seed=config.seed),
        CODE_VERSION,
        context.log.info,
    )
    return _result(training_place, version)


@_training_asset(
    GENERATOR,
    "A version of a tenant's adapter of the local generator, trained on the tenant's newest training set.",
)
def generator_asset(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    lake: dg.ResourceParam[Lake],
    training_place: dg.ResourceParam[TrainingPlace],
    engine_config: dg.ResourceParam[EngineConfig],
) -> dg.MaterializeResult:
    """Trains the tenant's adapter and registers it; killed, it goes on from its last checkpoint."""
    from training.generator.job import generator_base, run_generator_job, written_by_tenant
    from training.jobs.plan import GeneratorTraining

    mark_removed(lake, training_place.datasets)
    version = run_generator_job(
        training_place,
        written_by_tenant(training_place.datasets, context.partition_key, config.dataset),
        generator_base(config.base, engine_config.model, training_place.registry),
        GeneratorTraining(minutes=config.minutes, seed=config.seed),
        CODE_VERSION,
        context.log.info,
    )
    return _result(training_place, version)


def _result(place: TrainingPlace, version: ModelVersion) -> dg.MaterializeResult:
    from training.jobs.outcomes import training_curves

    curves = training_curves(place.jobs).get(version.lineage.run_id, {})
    return dg.MaterializeResult(
        metadata=model_metadata(version, curves), data_version=dg.DataVersion(version.digest)
    )


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
    asset=embedder_asset,
    name="compared_with_live",
    description="What `headwater models compare` found of the newest version, beside the model that is live.",
)
def embedder_compared_asset_check(training_place: dg.ResourceParam[TrainingPlace]) -> dg.AssetCheckResult:
    """Shows the newest verdict on the newest version; without one it warns, and says how to get one."""
    return comparison_result(training_place.registry, [EMBEDDER])


@dg.asset_check(
    asset=generator_asset,
    name="compared_with_live",
    description="What its training, or `headwater models compare`, found of each newest adapter, beside what "
    "answers.",
)
def generator_compared_asset_check(training_place: dg.ResourceParam[TrainingPlace]) -> dg.AssetCheckResult:
    """Shows the newest verdict on the newest version of each adapter; it passes if all were approved."""
    registry = training_place.registry
    return comparison_result(registry, [name for name in registry.names() if is_generator(name)])
