"""The release: makes an index live that was evaluated and approved.

A blocking check on `serving/index` evaluates the newest state of the index and logs its verdict to
`ops.releases`. `ops/release` makes live only what that verdict approves, also when it is launched on its own.
"""

import logging
from functools import partial

import dagster as dg

from assets.dagster.metadata import POLICIES, dagster_result
from assets.dagster.release_charts import (
    dagster_evaluation_chart,
    dagster_release_charts,
    metrics_of_live,
)
from assets.dagster.retry import retry_asset
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.releases import (
    ReleaseNotApproved,
    last_stored_verdict,
    log_release_verdict,
    make_release_live,
    prune_releases,
    stored_release_name,
)
from assets.lake.tables import RELEASES
from assets.recipe import Recipe
from assets.release_evaluation import candidate_questions, canonical_candidate_documents, evaluate_candidate
from assets.sources.source_registry import SourceRegistry
from quality.evaluation.release_gate import decide_release
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index, IndexPoint, IndexState
from retrieval.search.searcher import Searcher
from training.place import TrainingPlace
from training.registry.addresses import questions_learned
from training.registry.live import follow_live_release

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
    training_place: dg.ResourceParam[TrainingPlace],
) -> dg.AssetCheckResult:
    """Evaluates the newest state of the index and logs whether it may go live; `ops/release` obeys that."""
    token = lake.fencing_token(RELEASES)
    state, live = releasable_index_state(search_index, recipe, model), search_index.live()
    verdict = last_stored_verdict(lake, stored_release_name(state))
    if verdict is not None and verdict.decision == "approved":
        return dg.AssetCheckResult(
            passed=True, metadata={**verdict.metrics}, description=_with_hold(verdict.reason, search_index)
        )
    pins = state.lineage.inputs
    is_learned = partial(questions_learned, training_place.registry, recipe.embedder)
    questions = candidate_questions(lake, sources, pins, is_learned)
    canonical = canonical_candidate_documents(lake, pins)
    groups = search_index.groups()

    def evaluated(at: IndexPoint) -> dict[str, float]:
        asked = sum(map(len, questions.values()))
        logger.info("%s is asked %s questions, in each mode of search", stored_release_name(at), f"{asked:,}")
        return evaluate_candidate(questions, canonical, searcher, model, at, groups)

    figures = evaluated(state) if questions else {}
    # A live release of another model is judged by what it was released with: its vectors are not these.
    before = None
    if live is not None:
        before = live.details.metrics
        if live.details.model_digest == model.digest and questions:
            before = evaluated(live)
            figures |= metrics_of_live(before)
    decision = decide_release(figures, before, recipe.gate)
    log_release_verdict(lake, state, decision.released, decision.reason, figures, context.run.run_id, token)
    return dg.AssetCheckResult(
        passed=decision.released,
        description=_with_hold(decision.reason, search_index),
        metadata={
            "chart": dagster_evaluation_chart(figures),
            "release_id": stored_release_name(state),
            "live": live.release_id if live else "none",
            **figures,
        },
    )


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
    live = make_release_live(lake, search_index, state, context.run_id, model)
    follow_live_release(training_place.registry, search_index)
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
