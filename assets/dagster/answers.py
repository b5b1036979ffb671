"""The checks and the metadata of a batch of answers, as Dagster shows them."""

import math
from dataclasses import asdict
from typing import Any

import dagster as dg

from assets.answers.checks import AnswerFigures, AnswerLimits, answer_figures, beyond_limits, check_citations
from assets.answers.stored import stored_batch
from assets.dagster.metadata import asset_key, dagster_result
from assets.lake.lake import Lake
from assets.lake.tables import ANSWERS
from common.counts import counted
from inference.batch.answer_batch import BatchOutcome

_CITATIONS_HOLD = "citations_hold"
_WITHIN_LIMITS = "within_limits"
_SHOWN_FAILURES = 20

ANSWER_CHECKS = [
    dg.AssetCheckSpec(
        _CITATIONS_HOLD,
        asset=asset_key(ANSWERS.name),
        blocking=True,
        description="Each citation is, word for word, at its place in the document that it names.",
    ),
    dg.AssetCheckSpec(
        _WITHIN_LIMITS,
        asset=asset_key(ANSWERS.name),
        description="Refusals, words and support, beside the batch's answers by another release or engine.",
    ),
]
"""What is checked of each batch."""


def answers_result(lake: Lake, limits: AnswerLimits, outcome: BatchOutcome) -> dg.MaterializeResult:
    """Returns the Dagster result of a batch: its counts, its questions that failed, and its checks."""
    citations = check_citations(lake, stored_batch(lake, outcome.name))
    figures = answer_figures(lake, outcome.name)
    beyond = beyond_limits(figures, limits)
    failed = [
        dg.TableRecord({"id": each.id, "reason": each.reason}) for each in outcome.failed[:_SHOWN_FAILURES]
    ]
    result = dagster_result(
        lake,
        ANSWERS,
        questions=outcome.questions,
        answered=outcome.answered,
        computed=outcome.computed,
        failed=len(outcome.failed),
        shards=outcome.shards,
        batch_seconds=round(outcome.seconds, 3),
        questions_per_s=round(outcome.questions_per_s, 3),
        failures=dg.MetadataValue.table(
            failed, dg.TableSchema([dg.TableColumn("id"), dg.TableColumn("reason")])
        ),
        **(_finite(figures[0]) if figures else {}),
    )
    severity = dg.AssetCheckSeverity.ERROR if limits.blocking else dg.AssetCheckSeverity.WARN
    checks = [
        dg.AssetCheckResult(
            passed=citations.broken == 0 and citations.uncited == 0,
            check_name=_CITATIONS_HOLD,
            metadata=asdict(citations),
            description=(
                f"{citations.unverifiable:,} of {counted(citations.citations, 'citation')} can not be "
                "verified: the version of silver.documents that they name is no longer kept"
                if citations.unverifiable
                else None
            ),
        ),
        dg.AssetCheckResult(
            passed=not beyond,
            check_name=_WITHIN_LIMITS,
            severity=severity,
            metadata={
                f"{name}{when}": value
                for each, when in zip(figures, ("", "_before"), strict=False)
                for name, value in _finite(each).items()
            },
            description="; ".join(beyond) or "within the limits",
        ),
    ]
    return dg.MaterializeResult(
        asset_key=result.asset_key,
        metadata=result.metadata,
        data_version=result.data_version,
        check_results=checks,
    )


def _finite(figures: AnswerFigures) -> dict[str, Any]:
    """The figures that are numbers."""
    return {name: value for name, value in asdict(figures).items() if math.isfinite(value)}
