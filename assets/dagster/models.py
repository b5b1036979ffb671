"""What the web UI shows of trained models: their tenants as partitions, results, curves, verdicts."""

from collections.abc import Mapping, Sequence

import dagster as dg

from assets.dagster.charts import chart_markdown, line_chart
from training.registry.versions import ModelRegistry, ModelVersion

MODEL_GROUP = "models"
"""The group of the assets that train, which no run of the lake makes."""

TRAINING_TENANTS = dg.DynamicPartitionsDefinition(name="training_tenants")
"""A partition per tenant for which a training set was asked."""


def follow_training_tenants(instance: dg.DagsterInstance, tenants: Sequence[str]) -> None:
    """Has the partitions of models be the tenants for which a training set was asked."""
    name = str(TRAINING_TENANTS.name)
    for gone in set(instance.get_dynamic_partitions(name)) - set(tenants):
        instance.delete_dynamic_partition(name, gone)
    instance.add_dynamic_partitions(name, list(tenants))


def model_result(
    key: dg.AssetKey, version: ModelVersion, curves: Mapping[str, Sequence[tuple[int, float]]]
) -> dg.MaterializeResult:
    """Returns the Dagster result of a training: what was made, from what, its figures and its curves.

    Args:
        key: The asset's key.
        version: The version.
        curves: The values of each figure by step, by the figure's name.
    """
    charts = [
        line_chart(name, [str(step) for step, _ in points], {name: [value for _, value in points]})
        for name, points in curves.items()
    ]
    lineage = version.lineage
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "curves": dg.MetadataValue.md("\n\n".join(map(chart_markdown, charts))),
            "version": version.address,
            "digest": version.digest,
            "dataset": lineage.dataset,
            "dataset_digest": lineage.dataset_digest,
            "base": lineage.base,
            "base_digest": lineage.base_digest,
            "job": lineage.run_id,
            "code_version": lineage.code_version,
            "seconds": round(version.seconds, 2),
            **version.metrics,
        },
        data_version=dg.DataVersion(version.digest),
    )


def comparison_result(registry: ModelRegistry, name: str) -> dg.AssetCheckResult:
    """Returns the newest verdict on the newest version of a model, beside the one that was live.

    Without a version or a verdict it passes: what is not compared can not be served.
    """
    newest = next(iter(registry.versions(name)), None)
    if newest is None:
        return dg.AssetCheckResult(passed=True, description="no version was trained yet")
    verdicts = [
        each
        for each in registry.decisions(name)
        if each.version == newest.version and each.decision in ("approved", "refused")
    ]
    if not verdicts:
        return dg.AssetCheckResult(
            passed=True,
            description=f"not compared yet: `headwater models compare {newest.address} live` does",
            metadata={"version": newest.address},
        )
    verdict = verdicts[-1]
    return dg.AssetCheckResult(
        passed=verdict.decision == "approved",
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{newest.address}: {verdict.decision}: {verdict.reason}",
        metadata={
            "version": newest.address,
            "against": verdict.against or "nothing",
            "dataset": verdict.dataset or "unknown",
            "decided_at": verdict.decided_at.isoformat(timespec="seconds"),
            **{
                f"{figure}, {end}": value
                for figure, gain in verdict.gains.items()
                for end, value in gain.items()
            },
        },
    )
