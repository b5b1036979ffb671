"""What the web UI shows of trained models: their tenants as partitions, results, curves, verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.dagster.charts import chart_markdown, line_chart
from quality.evaluation.verdict import Gain
from training.registry.live_adapters import GENERATOR, is_generator
from training.registry.versions import VERDICTS, ModelDecision, ModelRegistry, ModelVersion

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


def model_key(name: str) -> dg.AssetKey:
    """Returns the key of the asset that makes a model's versions; all generators' adapters have one."""
    return dg.AssetKey([MODEL_GROUP, GENERATOR if is_generator(name) else name])


def model_metadata(
    version: ModelVersion, curves: Mapping[str, Sequence[tuple[int, float]]]
) -> dict[str, Any]:
    """Returns what Dagster shows of a training: what was made, from what, its figures and its curves.

    Args:
        curves: The values of each figure by step, by the figure's name.
    """
    charts = [
        line_chart(name, [str(step) for step, _ in points], {name: [value for _, value in points]})
        for name, points in curves.items()
    ]
    lineage = version.lineage
    return {
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
    }


def comparison_result(registry: ModelRegistry, names: Sequence[str]) -> dg.AssetCheckResult:
    """Returns the newest verdict on the newest version of each model, beside the one that was live.

    It passes where each was approved: not where one was not compared, or not decided, or none was trained.

    Args:
        names: The models of one asset. Of several, the metadata's names begin with a version's address.
    """
    newest = [versions[0] for name in names if (versions := registry.versions(name))]
    verdicts = {version.address: _verdict(registry, version) for version in newest}
    said = [
        f"{address}: {verdict.decision.replace('undecided', 'not decided')}: {verdict.reason}"
        if verdict
        else f"{address} is not compared yet: `headwater models compare {address} live` does"
        for address, verdict in verdicts.items()
    ]
    return dg.AssetCheckResult(
        passed=bool(verdicts) and all(each and each.decision == "approved" for each in verdicts.values()),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(said) or "no version was trained yet",
        metadata={
            f"{address}: {key}" if len(verdicts) > 1 else key: value
            for address, verdict in verdicts.items()
            for key, value in _shown(address, verdict).items()
        },
    )


def _verdict(registry: ModelRegistry, version: ModelVersion) -> ModelDecision | None:
    """Returns what was found last of a version."""
    decided = [each for each in registry.decisions(version.name) if each.version == version.version]
    return next((each for each in reversed(decided) if each.decision in VERDICTS), None)


def _ends(gain: Gain) -> list[tuple[str, float]]:
    return [("difference", gain.difference), ("low", gain.low), ("high", gain.high)]


def _shown(address: str, verdict: ModelDecision | None) -> dict[str, str | float]:
    if verdict is None:
        return {"version": address}
    gains = {f"{name}, {end}": value for name, gain in verdict.gains.items() for end, value in _ends(gain)}
    return {
        "version": address,
        "against": verdict.against or "nothing",
        "dataset": verdict.dataset or "unknown",
        "questions": verdict.questions or 0,
        "decided_at": verdict.decided_at.isoformat(timespec="seconds"),
        **gains,
    }
