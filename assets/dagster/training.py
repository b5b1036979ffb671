"""The checks of training examples, as Dagster shows them."""

from collections.abc import Iterator

import dagster as dg

from assets.answers.batches import AnswerBatches
from assets.dagster.metadata import asset_key
from assets.lake.lake import Lake
from assets.lake.tables import TRAINING_EXAMPLES
from assets.recipe import Recipe
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.checks import TRAINING_SET_CHECKS, training_set_faults
from assets.training_sets.rated_answers import rated_answers
from assets.training_sets.step import evaluation_questions
from training.datasets.requests import DatasetRequests


@dg.multi_asset_check(
    name="gold_training_examples_gate",
    specs=[
        dg.AssetCheckSpec(name, asset=asset_key(TRAINING_EXAMPLES.name), blocking=True, description=what_for)
        for name, (_, what_for) in TRAINING_SET_CHECKS.items()
    ],
    description="Whether the examples of each tenant may go into a training set.",
    can_subset=True,
)
def training_set_gate(
    context: dg.AssetCheckExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    sources: dg.ResourceParam[SourceRegistry],
    dataset_requests: dg.ResourceParam[DatasetRequests],
    answer_batches: dg.ResourceParam[AnswerBatches],
) -> Iterator[dg.AssetCheckResult]:
    """Yields a result for each check: it passes if the examples of every tenant pass it."""
    version, tenants = lake.version(TRAINING_EXAMPLES.name), dataset_requests.tenants
    asked = evaluation_questions(sources, answer_batches, rated_answers(lake, tenants))
    faults = [
        fault
        for tenant in tenants
        for fault in training_set_faults(lake, version, tenant, asked, recipe.training_sets)
    ]
    for key in sorted(context.selected_asset_check_keys):
        said = [f"tenant {each.tenant}: {each.reason}" for each in faults if each.check == key.name]
        yield dg.AssetCheckResult(
            passed=not said,
            asset_key=key.asset_key,
            check_name=key.name,
            description="; ".join(said) or ("passed" if tenants else "no training set was asked for"),
            metadata={"delta_version": version, "tenants": ", ".join(tenants) or "none"},
        )
