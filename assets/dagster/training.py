"""The checks of training examples, as Dagster shows them."""

from collections.abc import Iterator, Sequence

import dagster as dg
import pyarrow as pa

from assets.dagster.metadata import asset_key
from assets.lake.lake import Lake
from assets.lake.tables import TRAINING_EXAMPLES
from assets.training_sets.checks import TRAINING_SET_CHECKS, training_set_faults
from training.datasets.config import TrainingSetConfig

TRAINING_CHECK_SPECS = [
    dg.AssetCheckSpec(name, asset=asset_key(TRAINING_EXAMPLES.name), blocking=True, description=what_for)
    for name, (_, what_for) in TRAINING_SET_CHECKS.items()
]
"""What is checked of the examples of each tenant; a snapshot is made only of those that pass."""


def training_check_results(
    lake: Lake, config: TrainingSetConfig, tenants: Sequence[str], evaluation_questions: pa.Table
) -> Iterator[dg.AssetCheckResult]:
    """Yields a result for each check: it passes if the examples of every tenant pass it."""
    version = lake.version(TRAINING_EXAMPLES.name)
    faults = [
        fault
        for tenant in tenants
        for fault in training_set_faults(lake, version, tenant, evaluation_questions, config)
    ]
    for spec in TRAINING_CHECK_SPECS:
        said = [f"tenant {each.tenant}: {each.reason}" for each in faults if each.check == spec.name]
        yield dg.AssetCheckResult(
            passed=not said,
            asset_key=spec.asset_key,
            check_name=spec.name,
            description="; ".join(said) or ("passed" if tenants else "no training set was asked for"),
            metadata={"delta_version": version, "tenants": ", ".join(tenants) or "none"},
        )
