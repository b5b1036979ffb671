"""Ops: what is served, and the measurement that decides it.

The candidate is evaluated by a blocking check on `serving/index`, which writes its verdict to `ops.releases`;
`ops/release` makes live only what that verdict approves, also when it is launched on its own.
"""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from assets.dagster.metadata import POLICIES, evaluation_chart, release_charts, report
from assets.dagster.retry import retried
from assets.gold import chunker_digest
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import RELEASES
from assets.recipe import Recipe
from assets.release_evaluation import canonical_documents, evaluate_index_state, evaluation_questions
from assets.sources.sources import SourceRegistry
from quality.evaluation.release_gate import decide
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index, IndexPoint, IndexRelease, IndexState, UnknownRelease
from retrieval.index.types import ReleaseDetails
from retrieval.lineage import Lineage
from retrieval.search.searcher import Searcher

INDEX_KEY = dg.AssetKey(["serving", "index"])


class NotApproved(RuntimeError):
    """The index's newest state has not passed its evaluation."""


def release_id(point: IndexPoint) -> str:
    """The name of a moment of the index, the same for the same moment."""
    return f"r{point.generation}.{point.epoch}"


def last_decision(lake: Lake, point: IndexPoint) -> dict[str, Any] | None:
    """The newest row of `ops.releases` about a moment of the index, or None where nothing was decided."""
    rows = lake.query(
        "select * from releases where release_id = ? order by decided_at desc limit 1",
        [release_id(point)],
        releases=lake.delta(RELEASES.name),
    ).to_pylist()
    return rows[0] if rows else None


def record(
    lake: Lake,
    state: IndexState,
    decision: str,
    reason: str,
    metrics: Mapping[str, float],
    run_id: str,
    seen: int,
) -> None:
    """Appends a decision about a moment of the index to `ops.releases`; the rest as `append_decision`."""
    versions = state.lineage.inputs
    row = {
        "release_id": release_id(state),
        "decision": decision,
        "reason": reason,
        "generation": state.generation,
        "epoch": state.epoch,
        "model_digest": state.model_digest,
        "metrics": json.dumps(dict(metrics), sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
    }
    append_decision(lake, row, run_id, seen)


def append_decision(lake: Lake, row: dict[str, Any], run_id: str, seen: int) -> None:
    """Appends one row to `ops.releases`, as of now.

    Args:
        lake: Where it is.
        row: The decision.
        run_id: The Dagster run that takes it.
        seen: The fencing token of the newest decision that this one takes into account.

    Raises:
        WriteConflict: Another was taken since; nothing was written.
    """
    lineage = Lineage(
        run_id=run_id,
        asset="ops/release",
        code_version=CODE_VERSION,
        config_digest="",
        inputs=json.loads(row["versions"]),
        fence=seen + 1,
    )
    rows = [row | {"decided_at": lake.stamp(RELEASES, "decided_at")}]
    lake.append(RELEASES, pa.Table.from_pylist(rows, RELEASES.schema), lineage)


def candidate(index: Index, recipe: Recipe, model: EmbeddingModel) -> IndexState:
    """The newest state of the index for the model and chunker in force.

    Raises:
        NotApproved: When there is none.
    """
    state = index.state(model.digest, chunker_digest(recipe, model))
    if state is None:
        raise NotApproved("there is no index for this model and chunker: run `headwater run`")
    return state


@dg.asset_check(
    asset=INDEX_KEY,
    name="retrieval_quality",
    blocking=True,
    pool="index",
    description="nDCG@10 on the evaluation questions and recall against exact search, beside the live ones.",
)
def retrieval_quality(
    context: dg.AssetCheckExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
    sources: dg.ResourceParam[SourceRegistry],
    search_index: dg.ResourceParam[Index],
    searcher: dg.ResourceParam[Searcher],
) -> dg.AssetCheckResult:
    """Whether the candidate may go live; the verdict is written down for `ops/release`."""
    token = lake.fencing_token(RELEASES)
    state, live = candidate(search_index, recipe, model), search_index.live()
    seen = last_decision(lake, state)
    if seen is not None and seen["decision"] != "refused":
        return dg.AssetCheckResult(
            passed=True, metadata=json.loads(seen["metrics"]), description=seen["reason"]
        )
    pins = state.lineage.inputs
    questions, canonical = evaluation_questions(lake, sources, pins), canonical_documents(lake, pins)
    groups = search_index.groups()

    def evaluated(at: IndexPoint) -> dict[str, float]:
        return evaluate_index_state(questions, canonical, searcher, model, at, groups)

    figures = evaluated(state) if questions else {}
    # A live release of another model is judged by what it was released with: its vectors are not these.
    before = None
    if live is not None:
        same = live.details.model_digest == model.digest
        before = evaluated(live) if same and questions else live.details.metrics
    decision = decide(figures, before, recipe.gate)
    verdict = "approved" if decision.released else "refused"
    record(lake, state, verdict, decision.reason, figures, context.run.run_id, token)
    return dg.AssetCheckResult(
        passed=decision.released,
        description=decision.reason,
        metadata={
            "chart": evaluation_chart(figures),
            "release_id": release_id(state),
            "live": release_id(live) if live else "none",
            **figures,
        },
    )


@dg.asset(
    key=["ops", "release"],
    deps=[INDEX_KEY],
    group_name="ops",
    kinds={"postgres", "deltalake"},
    owners=["team:headwater"],
    code_version=CODE_VERSION,
    description=RELEASES.about,
    pool="index",
    **POLICIES,
)
@retried
def release(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
    search_index: dg.ResourceParam[Index],
    releases_kept: dg.ResourceParam[int],
) -> dg.MaterializeResult:
    """Points what is served at the newest index, if its evaluation approved it."""
    live = go_live(lake, search_index, candidate(search_index, recipe, model), context.run_id, model)
    keep = [(each.generation, each.epoch) for each in search_index.releases()[:releases_kept]]
    search_index.prune(keep)
    return report(
        lake,
        RELEASES,
        key=context.asset_key,
        release_id=live.release_id,
        generation=live.generation,
        epoch=live.epoch,
        charts=release_charts(lake),
        **live.details.metrics,
    )


def go_live(lake: Lake, index: Index, state: IndexState, run_id: str, model: EmbeddingModel) -> IndexRelease:
    """Makes an approved state of the index the one that is served.

    A state that was rolled back from stays so until the index changes again.

    Returns:
        The release that is live now.

    Raises:
        NotApproved: When the state was refused, or not evaluated.
        WriteConflict: Another decision was taken meanwhile.
    """
    token = lake.fencing_token(RELEASES)
    name, live, seen = release_id(state), index.live(), last_decision(lake, state)
    if seen is None or seen["decision"] == "refused":
        why = "it was not evaluated" if seen is None else f"it was refused: {seen['reason']}"
        raise NotApproved(f"release {name} can not go live: {why}; what was live stays live")
    if seen["decision"] != "approved":
        if live is None:
            raise NotApproved(f"release {name} was {seen['decision']} and nothing is live: run again")
        return live
    metrics = json.loads(seen["metrics"])
    if live is None or live.release_id != name:
        details = ReleaseDetails(
            metrics=metrics,
            versions=state.lineage.inputs,
            model_digest=state.model_digest,
            embedder=model.config,
            run_id=run_id,
        )
        live = index.release(name, state, live.release_id if live else None, details)
    # The pointer first: a decision that is written down is one that holds.
    record(lake, state, "released", seen["reason"], metrics, run_id, token)
    return live


def roll_back(lake: Lake, index: Index, to: str | None) -> IndexRelease:
    """Makes an earlier release live again.

    Args:
        lake: Where the decision is written down.
        index: The index.
        to: The release; None for the one before the live one.

    Raises:
        UnknownRelease: When there is no such release, or none before the live one.
    """
    live = index.live()
    if live is None:
        raise UnknownRelease("nothing is live yet: run `headwater run`")
    if to is None:
        earlier = [each for each in index.releases() if each.released_at < live.released_at]
        if not earlier:
            raise UnknownRelease(f"{live.release_id} is the first release: there is none before it")
        to = earlier[0].release_id
    made = index.rollback(to)
    if made.release_id != live.release_id:
        row = {
            "release_id": live.release_id,
            "decision": "rolled_back",
            "reason": f"rolled back to {made.release_id}",
            "generation": live.generation,
            "epoch": live.epoch,
            "model_digest": live.details.model_digest,
            "metrics": json.dumps(live.details.metrics, sort_keys=True),
            "versions": json.dumps(live.details.versions, sort_keys=True),
        }
        append_decision(lake, row, "", lake.fencing_token(RELEASES))
    return made
