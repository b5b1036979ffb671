"""The release: makes an index live that was evaluated and approved.

A blocking check on `serving/index` evaluates the newest state of the index and logs its verdict to
`ops.releases`. `ops/release` makes live only what that verdict approves, also when it is launched on its own.
"""

import contextlib
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg

from assets.dagster.metadata import POLICIES, dagster_result
from assets.dagster.release_charts import (
    dagster_evaluation_chart,
    dagster_release_charts,
    metrics_of_live,
)
from assets.dagster.retry import retry_asset
from assets.engine_releases import adopt_engine_releases, project_engine_releases
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.releases import (
    ReleaseNotApproved,
    log_release_verdict,
    make_release_live,
    prune_releases,
    stored_release_name,
)
from assets.lake.tables import RELEASES
from assets.recipe import Recipe
from assets.release_evaluation import (
    MADE_FOR_A_METHOD,
    MADE_PER_TENANT,
    candidate_questions,
    canonical_candidate_documents,
    evaluate_candidate,
    tenants_without_questions,
)
from assets.sources.source_registry import SourceRegistry
from inference.answering.release_models import ReleaseModels
from quality.evaluation.release_gate import decide_release
from quality.evaluation.release_metrics import ReleaseEvaluation
from quality.evaluation.verdict import question_set_digest
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index, IndexPoint, IndexState
from retrieval.index.types import IndexRecord, IndexRelease
from retrieval.search.searcher import QueryModelMismatch, Searcher
from training.place import TrainingPlace
from training.registry.addresses import questions_learned
from training.registry.live import adopt_live_adapters, approved_beside, follow_release_log
from training.registry.versions import ModelRegistry

logger = logging.getLogger(__name__)

INDEX_KEY = dg.AssetKey(["serving", "index"])


def releasable_index_state(index: Index, recipe: Recipe, model: EmbeddingModel) -> IndexState:
    """Returns the newest state of the index for the model and chunker in force.

    Raises:
        ReleaseNotApproved: There is none.
    """
    state = index.state(model.digest, recipe.chunker_digest(model))
    if state is None:
        raise ReleaseNotApproved("there is no index for this model and chunker: run `headwater run`")
    return state


@dg.asset_check(
    asset=INDEX_KEY,
    name="retrieval_quality",
    blocking=True,
    pool="index",
    description="nDCG@10 on the evaluation questions and recall against exact search, beside the live ones.",
)
def retrieval_quality_asset_check(
    context: dg.AssetCheckExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
    sources: dg.ResourceParam[SourceRegistry],
    search_index: dg.ResourceParam[Index],
    searcher: dg.ResourceParam[Searcher],
    release_models: dg.ResourceParam[ReleaseModels],
    training_place: dg.ResourceParam[TrainingPlace],
) -> dg.AssetCheckResult:
    """Evaluates the newest state of the index and logs whether it may go live; `ops/release` obeys that.

    Of an embedder that was approved beside the live one it was shown already that it is no worse: here it
    has to keep to the floors and to the live release's means, as changed documents have.
    """
    since = search_index.log.newest_move_id()
    state, live = releasable_index_state(search_index, recipe, model), search_index.live()
    stored = search_index.log.newest_verdict("index", stored_release_name(state))
    record = IndexRecord.model_validate_json(stored.record) if stored else None
    if stored and record and stored.decision == "approved":
        return _checked(True, stored.reason, search_index, record.metrics)
    pins = state.lineage.inputs
    sampled = live is not None and _needs_sample(search_index, state, live, training_place.registry)
    is_learned = partial(questions_learned, training_place.registry, recipe.embedder)
    most_made = MADE_FOR_A_METHOD if sampled else MADE_PER_TENANT
    questions = candidate_questions(lake, sources, pins, is_learned, most_made)
    digest = question_set_digest((tenant, each) for tenant, asked in questions.items() for each in asked)
    against = live.release_id if live else None
    same = record is not None and (record.against, record.questions_digest) == (against, digest)
    if stored and record and same and stored.decision == "undecided":
        return _checked(False, stored.reason, search_index, record.metrics)
    canonical, groups = canonical_candidate_documents(lake, pins), search_index.groups()

    def evaluated(at: IndexPoint, by: EmbeddingModel) -> ReleaseEvaluation:
        asked = sum(map(len, questions.values()))
        logger.info("%s is asked %s questions, in each mode of search", stored_release_name(at), f"{asked:,}")
        return evaluate_candidate(questions, canonical, searcher, by, at, groups)

    nothing = ReleaseEvaluation({}, {})
    candidate = evaluated(state, model) if questions else nothing
    before = None
    if live is not None:
        before = ReleaseEvaluation(live.details.metrics, {})
        with contextlib.suppress(QueryModelMismatch):  # its model is gone
            before = evaluated(live, release_models.model_of(live)) if questions else before
    figures = candidate.metrics
    if before is not None and before.ndcg:
        figures = figures | metrics_of_live(before.metrics)
    gains = candidate.gains_over(before) if before else {}
    live_metrics = before.metrics if before else None
    verdict = decide_release(candidate.metrics, live_metrics, recipe.gate, gains, sampled)
    run_id = context.run.run_id
    log_release_verdict(lake, search_index, state, verdict, figures, run_id, since, against, digest)
    chart = {"chart": dagster_evaluation_chart(figures)}
    named = {"release_id": stored_release_name(state), "live": against or "none"}
    if unasked := tenants_without_questions(lake, pins, questions):
        named["tenants_without_questions"] = ", ".join(unasked)
    return _checked(verdict.released, verdict.reason, search_index, chart | named | figures)


def _needs_sample(index: Index, state: IndexState, live: IndexRelease, registry: ModelRegistry) -> bool:
    """Returns whether a state is of another embedder or chunker than what is live, and nothing is shown."""
    of_live = index.newest_state(live.generation)
    if of_live and (of_live.model_digest, of_live.chunker_digest) == (
        state.model_digest,
        state.chunker_digest,
    ):
        return False
    return not approved_beside(registry, state.model_digest, live.details.model_digest)


def _checked(passed: bool, reason: str, index: Index, metadata: Mapping[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, description=_with_hold(reason, index), metadata={**metadata})


def _with_hold(reason: str, index: Index) -> str:
    """Returns why a state may go live or not, and that it does not go live meanwhile where one is held."""
    hold = index.live_hold()
    return f"{reason}; held back: {hold}" if hold else reason


@dg.asset(
    key=["ops", "release"],
    deps=[INDEX_KEY],
    group_name="ops",
    kinds={"postgres", "deltalake"},
    code_version=CODE_VERSION,
    description=RELEASES.about,
    pool="index",
    **POLICIES,
)
@retry_asset
def release_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
    search_index: dg.ResourceParam[Index],
    releases_kept: dg.ResourceParam[int],
    training_place: dg.ResourceParam[TrainingPlace],
) -> dg.MaterializeResult:
    """Makes the newest state of the index the live release, if its evaluation approved it."""
    state = releasable_index_state(search_index, recipe, model)
    # Before anything can be asked, where PostgreSQL was lost.
    adopt_engine_releases(lake, search_index.log)
    adopt_live_adapters(training_place.registry, search_index.log)
    live = make_release_live(lake, search_index, state, context.run_id, model)
    project_engine_releases(lake, search_index.log)
    follow_release_log(training_place.registry, search_index)
    prune_releases(search_index, releases_kept)
    hold = search_index.live_hold()
    return dagster_result(
        lake,
        RELEASES,
        key=context.asset_key,
        release_id=live.release_id,
        generation=live.generation,
        epoch=live.epoch,
        **({"held": str(hold)} if hold else {}),
        charts=dagster_release_charts(lake),
        **live.details.metrics,
    )
